"""Files at addresses, as "s3://bucket/photos": what fsspec reaches, copied here while in use."""

import contextlib
import functools
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from keras_fcn.atomic import temporary_folder
from keras_fcn.lock import busy, owner, read_owner, runs

ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
HERE = ("file://", "local://")
# What `pip install` takes for some kinds of addresses; for others fsspec says it.
PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs"}
# Names of the time of the last change in the listings of fsspec's file systems.
TIMES = ("LastModified", "mtime", "updated", "last_modified", "created")


def place_of(path: str | os.PathLike) -> Path | str:
    """Return a path of this machine as `Path`, and an address as it is."""
    if not isinstance(path, str) or not ADDRESS.match(path):
        return Path(path)
    here = next((scheme for scheme in HERE if path.lower().startswith(scheme)), None)
    return path.rstrip("/") if here is None else Path(path[len(here) :])


def below(place: Path | str, name: Path) -> Path | str:
    """Return the place of a name below another."""
    return place / name if isinstance(place, Path) else f"{place}/{name.as_posix()}"


def identity(place: Path | str) -> str:
    """Return the one name that a file has, by whatever path it is reached."""
    return str(place.resolve()) if isinstance(place, Path) else place


class Store:
    """What lies at an address.

    Args:
        address: what fsspec takes, as "s3://bucket/photos".

    Attributes:
        address: of what is below it.

    Raises:
        ImportError: when fsspec, or its package for the address, is missing.
        ValueError: for an address that fsspec does not know.
    """

    def __init__(self, address: str):
        self.address = address
        if "::" in address:
            raise ValueError(
                f"An address should be of files, not of what is packed in one. Received: "
                f"'{address}'. Unpack the archive."
            )
        scheme = address.partition("://")[0].lower()
        package = PACKAGES.get(scheme, "fsspec")
        try:
            self.system = _system("/".join(address.split("/")[:3]))
        except ImportError as error:
            raise ImportError(
                f"An address needs the package that reaches it. Received: '{address}': "
                f"{str(error).rstrip('.')}. Install it by `pip install {package}`."
            ) from error
        except ValueError as error:
            raise ValueError(
                "An address should be one that fsspec knows, as s3://bucket/photos. Received: "
                f"'{address}': {str(error).rstrip('.')}."
            ) from error
        self.root = self.system._strip_protocol(address).rstrip("/")

    def find(self) -> dict[str, float]:
        """Return {name of each file below: when it was changed, in seconds, 0 if unknown}.

        Of the address of a file the name is empty.
        """
        with _telling(self.address):
            self.system.invalidate_cache()
            found = self.system.find(self.root, detail=True)
        found = {path: entry for path, entry in found.items() if not path.endswith("/")}
        return {path[len(self.root) + 1 :]: _time(entry) for path, entry in found.items()}

    def glob(self) -> dict[str, float]:
        """Return {address of each file that the address, a pattern, fits: when it was changed}."""
        with _telling(self.address):
            self.system.invalidate_cache()
            found = self.system.glob(self.root, detail=True)
        scheme = self.address.partition("://")[0]
        return {
            path if ADDRESS.match(path) else f"{scheme}://{path}": _time(entry)
            for path, entry in found.items()
            if entry.get("type") == "file"
        }

    def open(self):
        """Return the file at the address, open to read a part at a time."""
        with _telling(self.address):
            return self.system.open(self.root, "rb")

    def fetch(self, name: str, path: Path) -> bool:
        """Copy a file, of the name below the address, to a path; return whether it is there."""
        with _telling(self._address(name)):
            try:
                self.system.get_file(self._path(name), str(path))
            except FileNotFoundError:
                path.unlink(missing_ok=True)
                return False
        return True

    def put(self, path: Path, name: str) -> None:
        """Copy a file from a path to a name below; in an object store it is whole at any time."""
        with _telling(self._address(name)):
            self.system.put_file(str(path), self._path(name))
            self.system.invalidate_cache()

    def remove(self, name: str) -> None:
        """Remove a file of the name below, if it is there."""
        with _telling(self._address(name)), contextlib.suppress(FileNotFoundError):
            self.system.rm_file(self._path(name))

    @contextlib.contextmanager
    def locked(self, name: str = ".lock"):
        """Hold the lock of the address while the block runs, as `keras_fcn.lock.locked`."""
        text = json.dumps(owner()).encode()
        while True:
            with _telling(self._address(name)), contextlib.suppress(FileExistsError):
                self.system.pipe_file(self._path(name), text, mode="create")
                break
            other = read_owner(self._read(name))
            if other is not None and runs(other):
                raise busy(self.address, other, self._address(name))
            self.remove(name)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # lost: then it is that of a process that is gone
                self.remove(name)

    def _read(self, name):
        with _telling(self._address(name)), contextlib.suppress(FileNotFoundError):
            return self.system.cat_file(self._path(name)).decode(errors="replace")
        return ""

    def _path(self, name):
        return f"{self.root}/{name}" if name else self.root

    def _address(self, name):
        return f"{self.address}/{name}" if name else self.address


@functools.lru_cache(maxsize=16)
def _system(base):
    """Return fsspec's file system of a bucket or host: fsspec itself has one for each thread."""
    from fsspec.core import url_to_fs

    return url_to_fs(base)[0]


@contextlib.contextmanager
def copied(place: Path | str) -> Iterator[Path]:
    """Yield the path of a file, of an address that of a copy, which goes when the block ends."""
    if isinstance(place, Path):
        yield place
        return
    with temporary_folder() as folder:
        path = folder / PurePosixPath(place).name
        if not Store(place).fetch("", path):
            raise FileNotFoundError(f"There is no file '{place}'.")
        try:
            yield path
        except ValueError as error:  # names the copy
            raise ValueError(str(error).replace(str(path), place)) from error


@contextlib.contextmanager
def opened(place: Path | str):
    """Yield a file, open to read; of an address only what is read is fetched."""
    with place.open("rb") if isinstance(place, Path) else Store(place).open() as file:
        yield file


@contextlib.contextmanager
def _telling(address):
    """Turn the errors of fsspec's many packages into those of the system, with the address."""
    try:
        yield
    except FileExistsError:
        raise
    except FileNotFoundError as error:
        raise FileNotFoundError(f"There is nothing at '{address}' ({error}).") from error
    except PermissionError as error:
        raise PermissionError(
            f"The address should be open to you. Received: '{address}': {error}. Give yourself "
            "the right, or sign in as its provider says."
        ) from error
    except MemoryError:
        raise
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConnectionError(
            f"The address should be reachable, and open to you. Received: '{address}': {first}. "
            "Check the network and how you sign in, and run the same command again."
        ) from error


def _time(entry: Mapping) -> float:
    value = next((entry[name] for name in TIMES if entry.get(name) is not None), 0)
    return value.timestamp() if hasattr(value, "timestamp") else float(value)
