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
from h5py import h5z

# How much more than its own size a file may claim to hold. Weights hardly compress.
LARGEST_RATIO = 100
ALWAYS_ALLOWED = 2**20  # bytes
DEEPEST = 100  # groups in groups; HDF5 takes minutes for thousands of them
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
        if name.count("/") > DEEPEST:
            raise ValueError(f"it has groups within groups, more than {DEEPEST} deep")
        if isinstance(item, h5py.Group):
            if any(isinstance(item.get(key, getlink=True), h5py.ExternalLink) for key in item):
                raise ValueError("it refers to another file")
        elif not isinstance(item, h5py.Dataset):
            raise ValueError(f"it has a {type(item).__name__.lower()} in {name!r}")
        elif item.external or item.is_virtual:
            raise ValueError("it refers to another file")
        elif item.shape is not None:
            claims[name] = math.prod(item.shape) * item.dtype.itemsize

    claim("/", file)
    file.visititems(claim)
    return claims


def check_pieces(file: h5py.File) -> None:
    """Raise `ValueError` for an array whose compressed pieces hold more than its shape says."""

    def check(name, item):
        if isinstance(item, h5py.Dataset) and item.chunks:
            _check_chunks(name, item)

    file.visititems(check)


def _check_chunks(name, item):
    settings = item.id.get_create_plist()
    filters = [settings.get_filter(number)[0] for number in range(settings.get_nfilters())]
    if set(filters) - {h5z.FILTER_SHUFFLE, h5z.FILTER_DEFLATE, h5z.FILTER_FLETCHER32}:
        raise ValueError(f"{name!r} is compressed otherwise than by gzip")
    if filters.count(h5z.FILTER_DEFLATE) > 1:
        raise ValueError(f"{name!r} is compressed twice")
    if h5z.FILTER_DEFLATE not in filters:
        return
    skipped = 1 << filters.index(h5z.FILTER_DEFLATE)
    size = math.prod(item.chunks) * item.dtype.itemsize + 4  # of the sum
    pieces: list = []
    item.id.chunk_iter(pieces.append)
    for piece in pieces:
        _, stored = item.id.read_direct_chunk(piece.chunk_offset)
        if not piece.filter_mask & skipped and holds_more(stored, size, zlib.decompressobj()):
            raise ValueError(f"a piece of {name!r} holds more than it claims, {size - 4:,} bytes")


def holds_more(data: bytes, size: int, unpacker) -> bool:
    """Return whether compressed data holds more than so many bytes; no more are unpacked.

    Args:
        data: of the compression of the unpacker.
        size: bytes.
        unpacker: a new `zlib.decompressobj()`, or another with its `decompress`.
    """
    return len(unpacker.decompress(data, size + 1)) > size


def shapes_in(file: h5py.File) -> Counter:
    """Count the shapes of the layers' arrays in an HDF5 file of Keras."""
    shapes: Counter = Counter()

    def count(name, item):
        if not isinstance(item, h5py.Dataset):
            return
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
