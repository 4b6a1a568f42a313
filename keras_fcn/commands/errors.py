"""Errors as the command line tells them: the rule, what came, the way on, and no traceback."""

import errno
import os
import re
import sys
from pathlib import Path

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
BESIDE = (".lock", ".writing-")  # names of what the package itself writes in a folder
# An error of Python inside of one of TensorFlow, as from the thread that reads the data.
INNER = re.compile(
    r"(?:^|[\s{])\w*(?:Error|Exception): (.*?)\s*\nTraceback \(most recent", re.DOTALL
)


def is_expected(error: Exception) -> bool:
    """Return whether an error is told in one line; others are faults of the package."""
    return isinstance(error, ValueError | OSError | ImportError | MemoryError) or _is_op(error)


def explain(error: Exception) -> str:
    """Return the message of an error that `is_expected`."""
    if _is_full_disk(error):
        named = getattr(error, "filename", None)  # none of TensorFlow's
        file = f"'{_place(error)[0]}'" if named else "the output"
        return (
            f"The disk is full, and {file} could not be written. Make room and run the same "
            "command again, or write to another disk."
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


def _place(error):
    """Return the path of an error, and whether it is a folder in which something was written."""
    path = Path(os.fsdecode(error.filename))
    inside = path.name.startswith(BESIDE)
    return path.parent if inside else path, inside


def _is_full_disk(error):
    """Return whether a disk is full; TensorFlow has one error for that and for the memory."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return _is_op(error) and os.strerror(errno.ENOSPC) in str(error)


def _is_op(error):
    tensorflow = sys.modules.get("tensorflow")  # an error of it comes only when it is there
    return tensorflow is not None and isinstance(error, tensorflow.errors.OpError)


def _first_line(error):
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
