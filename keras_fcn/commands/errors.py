"""Errors as the command line tells them: the rule, what came, the way on, and no traceback."""

import errno
import os
import re
import sys
import tempfile
from pathlib import Path

from keras_fcn.atomic import is_full

CLOSED = (
    "should be open to you. Choose another, or give yourself the right, as `chmod u+rwX` does.",
    "should be a folder in which you may write. Choose another, or give yourself the right, as "
    "`chmod u+rwX` does.",
)
# Errors of the system about a path: what to say after it, and where something is written in it.
PATHS = {
    errno.EACCES: CLOSED,
    errno.EPERM: CLOSED,
    errno.EROFS: ("should lie on a disk that can be written to. Choose another folder.",) * 2,
    errno.EEXIST: ("should be a folder, and is a file. Choose another.",) * 2,
    errno.ENOTDIR: ("should be a folder or lie in one, and a part of it is a file.",) * 2,
    errno.EISDIR: ("should be a file, and is a folder. Choose another, or move it.",) * 2,
    errno.ENOENT: ("should be there, and is not. Choose another, or put it there.",) * 2,
    errno.ELOOP: ("should be a link to a file, and leads to itself. Remove it.",) * 2,
    errno.ENAMETOOLONG: ("should be shorter than the system's limit.",) * 2,
}
# Of names of files, which may hold anything: a terminal obeys them.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
NO_ROOM = "No usable temporary directory"  # of `tempfile`
BESIDE = (".lock", ".writing-")  # names of what the package itself writes in a folder
# An error of Python inside of one of TensorFlow, as from the thread that reads the data.
INNER = re.compile(
    r"(?:^|[\s{])\w*(?:Error|Exception): (.*?)\s*\nTraceback \(most recent", re.DOTALL
)


def visible(text: str) -> str:
    r"""Return a text with its control characters, but for tabs and the ends of lines, escaped.

    Example:

    >>> visible("photos/a\x1b[2Jb.png")
    'photos/a\\x1b[2Jb.png'
    """
    return CONTROL.sub(lambda match: repr(match[0])[1:-1], text)


def is_expected(error: Exception) -> bool:
    """Return whether an error is told in one line; others are faults of the package."""
    return isinstance(error, ValueError | OSError | ImportError | MemoryError) or _is_op(error)


def explain(error: Exception) -> str:
    """Return the message of an error that `is_expected`."""
    if is_full(error):  # TensorFlow has one error for that and for the memory
        return _tell_full(error)
    if isinstance(error, FileNotFoundError) and NO_ROOM in str(error):
        return (
            f"There should be a folder for temporary files, with room in it. Received: {error}. "
            "Make room, or set the environment variable TMPDIR to a folder of another disk, and "
            "run the same command again."
        )
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        return (
            f"The memory does not suffice. Received: {_first_line(error)}. Predict in tiles "
            "(--tile-size 512), or train on smaller crops or batches, as the command has it."
        )
    if isinstance(error, OSError) and error.errno in PATHS and error.filename:
        place, inside = _place(error)
        return f"'{place}' {PATHS[error.errno][inside]}"
    if _is_op(error):
        inner = INNER.search(str(error))
        return inner[1] if inner else _first_line(error)
    return str(error)


def _tell_full(error):
    place, way_on = "the output", "write to another disk"
    if getattr(error, "filename", None):  # none of TensorFlow's
        place = f"'{_place(error)[0]}'"
        if error.filename == tempfile.tempdir:
            way_on = "set the environment variable TMPDIR to a folder of another disk"
    return (
        f"The disk is full, and {place} could not be written. Make room and run the same command "
        f"again, or {way_on}."
    )


def _place(error):
    """Return the path of an error, and whether it is a folder in which something was written."""
    path = Path(os.fsdecode(error.filename))
    inside = path.name.startswith(BESIDE)
    return path.parent if inside else path, inside


def _is_op(error):
    tensorflow = sys.modules.get("tensorflow")  # an error of it comes only when it is there
    return tensorflow is not None and isinstance(error, tensorflow.errors.OpError)


def _first_line(error):
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
