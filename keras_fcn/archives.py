"""Files of weights and models, looked at before they are read: they may come from strangers.

A `.keras` file is a zip archive of `config.json` and `model.weights.h5`; that and a
`.weights.h5` file are HDF5. Both can claim to hold far more than they do, so claims are
compared with the file's size before anything is read.
"""

import contextlib
import io
import json
import math
import os
import re
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import h5py

# How much more than its own size a file may claim to hold. Weights hardly compress.
LARGEST_RATIO = 100
ALWAYS_ALLOWED = 2**20  # bytes
CONFIG, WEIGHTS = "config.json", "model.weights.h5"


def models_directory() -> Path:
    """Return the folder in which `keras.utils.get_file` keeps models."""
    home = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()
    if not os.access(home if home.exists() else home.parent, os.W_OK):
        home = Path(tempfile.gettempdir(), ".keras")
    return home / "models"


def is_archive(path: str | os.PathLike) -> bool:
    """Whether a file begins as a zip archive does, whole or not."""
    with Path(path).open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def read_config(path: str | os.PathLike) -> dict:
    """Return the configuration in a `.keras` file.

    Raises:
        ValueError: with a reason, when the file is none, or is damaged.
    """
    with _reading(), zipfile.ZipFile(path) as archive:
        config = json.loads(_read(archive, CONFIG))
    if not isinstance(config, dict) or not {"class_name", "config"} <= set(config):
        raise ValueError(f"its {CONFIG} describes no model")
    return config


@contextlib.contextmanager
def open_weights(path: str | os.PathLike) -> Iterator[h5py.File]:
    """Yield the HDF5 file that a `.weights.h5` file is, or that is in a `.keras` file.

    Raises:
        ValueError: with a reason, when the file is none, is damaged, or claims to hold far
            more than it does.
    """
    size = Path(path).stat().st_size
    source: str | os.PathLike | io.BytesIO = path
    with _reading():
        if is_archive(path):
            with zipfile.ZipFile(path) as archive:
                source = io.BytesIO(_read(archive, WEIGHTS))
        with h5py.File(source) as file:
            _check_claim(sum(claimed_bytes(file).values()), size)
            yield file


def claimed_bytes(file: h5py.File) -> dict:
    """Return {name: bytes that it says to hold} of every array of an HDF5 file."""
    claims = {}

    def claim(name, item):
        if isinstance(item, h5py.Group):
            if any(isinstance(item.get(key, getlink=True), h5py.ExternalLink) for key in item):
                raise ValueError("it refers to another file")
        elif item.external or item.is_virtual:
            raise ValueError("it refers to another file")
        elif item.shape is not None:
            claims[name] = math.prod(item.shape) * item.dtype.itemsize

    claim("/", file)
    file.visititems(claim)
    return claims


def shapes_in(file: h5py.File) -> Counter:
    """Count the shapes of the layers' arrays in an HDF5 file of Keras."""
    shapes: Counter = Counter()

    def count(name, item):
        if name.startswith("layers/") and re.search(r"/vars/\d+$", name):
            shapes[item.shape] += 1

    file.visititems(count)
    return shapes


def _read(archive, name):
    """Return a member of an archive, whose claim is checked first."""
    info = archive.getinfo(name)
    _check_claim(info.file_size, os.fstat(archive.fp.fileno()).st_size)
    return archive.read(name)


def _check_claim(claimed, size):
    if claimed > max(ALWAYS_ALLOWED, LARGEST_RATIO * size):
        raise ValueError(f"it is {size:,} bytes long and claims to hold {claimed:,}")


@contextlib.contextmanager
def _reading():
    """Let what zip, JSON and HDF5 raise for a damaged file be one `ValueError`."""
    try:
        yield
    except KeyError as error:
        raise ValueError(f"something is missing in it: {error.args[0]}") from error
    except (OSError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"it is damaged or of another kind: {error}") from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"its {CONFIG} is damaged: {error}") from error
