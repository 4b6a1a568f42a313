"""Files and folders that are whole at any time: written beside, then renamed."""

import contextlib
import csv
import errno
import glob
import io
import json
import math
import os
import shutil
import socket
import tempfile
from collections.abc import Iterable
from pathlib import Path

PREFIX = ".writing-"  # of the folders in which files are written
FULL = 2**14  # bytes; a disk with less room is full: what did not fit has filled it


class FullDiskError(OSError):
    """A disk is full; the name is that of the file, or of the folder, which was to be written."""


@contextlib.contextmanager
def replacing(path: str | os.PathLike):
    """Yield a path beside `path` to write to; rename it when the block ends without an error.

    The name beside is unique, so no file of the user is touched and two processes do not
    meet. After an error, Ctrl-C included, what was written is removed, and `path` is as
    it was.

    Args:
        path: file or folder to write. A file is replaced, a folder must not exist.

    Yields:
        `pathlib.Path` of a name in a fresh folder beside `path`, with the same suffixes.

    Example:

    >>> with replacing("scores.txt") as beside:  # doctest: +SKIP
    ...     beside.write_text("0.5")
    """
    path = Path(path)
    with folder_beside(path) as folder:
        beside = folder / path.name
        with telling_full(folder, path):
            yield beside
        beside.replace(path)  # a symbolic link is replaced, and what it names left as it is


@contextlib.contextmanager
def folder_beside(path: Path):
    """Yield a fresh folder beside a path, which goes; once killed, by `remove_leftovers`."""
    prefix = f"{PREFIX}{socket.gethostname()}-{os.getpid()}-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=path.parent) as folder:
        yield Path(folder)


@contextlib.contextmanager
def temporary_folder(elsewhere: bool = False):
    """Yield a fresh folder of the system's place for such, which goes when the block ends.

    Args:
        elsewhere: as of `telling_full`.
    """
    with tempfile.TemporaryDirectory() as folder:
        with telling_full(folder, tempfile.gettempdir(), elsewhere):
            yield Path(folder)


@contextlib.contextmanager
def telling_full(folder: str | os.PathLike, name: str | os.PathLike, elsewhere: bool = False):
    """Turn what a library makes of a full disk, as NumPy and HDF5, into an error of that name.

    Where no room is left it is any error for which the system has given no other reason.

    Args:
        folder: where the block writes.
        name: what the error says could not be written.
        elsewhere: whether the block writes to other folders, too, whose disk may be the full one.

    Raises:
        FullDiskError: by the innermost name of several.
    """
    try:
        yield
    except FullDiskError:
        raise
    except Exception as error:
        told = is_full(error)
        unexplained = getattr(error, "errno", None) is None
        if (told and not elsewhere) or ((told or unexplained) and _free(folder) < FULL):
            message = os.strerror(errno.ENOSPC)
            raise FullDiskError(errno.ENOSPC, message, str(name)) from error
        raise


def _free(folder):
    try:
        return shutil.disk_usage(folder).free
    except OSError:  # the folder is gone, as with a lost share
        return math.inf


def is_full(error: BaseException) -> bool:
    """Return whether an error is that of a full disk or quota, also as TensorFlow tells it."""
    numbers = (errno.ENOSPC, errno.EDQUOT)
    return getattr(error, "errno", None) in numbers or os.strerror(errno.ENOSPC) in str(error)


def remove_leftovers(folder: str | os.PathLike) -> None:
    """Remove what processes of this host that run no longer have left of writing into a folder."""
    for path in find_leftovers(folder):
        shutil.rmtree(path, ignore_errors=True)


def find_leftovers(folder: str | os.PathLike) -> list[Path]:
    """Return the folders of `replacing` that such processes have left in a folder."""
    own = f"{PREFIX}{socket.gethostname()}-"
    found = []
    for path in Path(folder).glob(f"{glob.escape(own)}*"):
        number = path.name.removeprefix(own).partition("-")[0]
        if number.isdecimal() and not _runs(int(number)):
            found.append(path)
    return found


def _runs(number):
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        pass
    return True


def read_json(path: str | os.PathLike, **parts: type) -> dict:
    """Return the record of a JSON file.

    Args:
        path: of the file.
        parts: the type of each entry that it should have.

    Raises:
        ValueError: for a file that is damaged or lacks an entry, by its name.
        FileNotFoundError: for a missing file.
    """
    try:
        record = parse_json(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(_damaged(path, error)) from error
    if not isinstance(record, dict):
        raise ValueError(_damaged(path, f"a {type(record).__name__}"))
    for name, kind in parts.items():
        if not isinstance(record.get(name), kind):
            raise ValueError(_damaged(path, f"{name!r} is {record.get(name)!r}"))
    return record


def parse_json(text: str):
    """Return what a text in JSON says.

    Raises:
        ValueError: for a damaged one, lists in lists without end among them.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _damaged(path, what):
    return (
        f"'{path}' should be JSON, as it was written. Received: {what}. Put it back from a copy, "
        "or choose another folder."
    )


def open_table(path: Path, mode: str = "r"):
    """Open a file of comma-separated values; names of files in it need not be UTF-8."""
    return path.open(mode, newline="", encoding="utf-8", errors="surrogateescape")


def write_rows(file: io.TextIOBase, rows: Iterable) -> None:
    """Write lines of comma-separated values, which end in a line feed, to an open table.

    Names of files may hold any character of a line's end; `csv` quotes only those of the
    end that it writes itself.
    """
    for row in rows:
        line = io.StringIO(newline="")
        csv.writer(line, lineterminator="\r\n").writerow(row)
        file.write(line.getvalue().removesuffix("\r\n") + "\n")


def write_json(path: str | os.PathLike, record) -> None:
    """Write a record as JSON, whole at any time; NumPy's numbers are numbers."""
    with replacing(path) as beside:
        beside.write_text(json.dumps(record, indent=2, default=_plain) + "\n")


def as_json(record):
    """Return a record as JSON stores it, to be compared with one that was read.

    Example:

    >>> as_json({"scales": (1, 2)})
    {'scales': [1, 2]}
    """
    return json.loads(json.dumps(record, default=_plain))


def _plain(value):
    if hasattr(value, "tolist"):  # a number or an array of NumPy
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no form in JSON")
