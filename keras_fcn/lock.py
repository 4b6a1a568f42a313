"""A lock on a folder, so that two runs do not write into one."""

import contextlib
import json
import os
import socket
from pathlib import Path

from keras_fcn.atomic import folder_beside, parse_json, remove_leftovers, telling_full


@contextlib.contextmanager
def locked(folder: str | os.PathLike, name: str = ".lock"):
    """Hold the lock of a folder while the block runs.

    The lock is a file with the owner's process and host. That of a process which no
    longer runs on this host is taken over, and what it was writing is removed.

    Args:
        folder: existing folder.
        name: name of the lock file in it.

    Raises:
        FileExistsError: when another process holds the lock; it says which.
    """
    path = Path(folder) / name
    _acquire(path)
    try:
        remove_leftovers(folder)
        yield
    finally:
        path.unlink(missing_ok=True)


def _acquire(path):
    with folder_beside(path) as folder:
        mine = folder / "mine"
        with telling_full(folder, path.parent):
            mine.write_text(json.dumps(owner()))
        while not _put(mine, path):
            text = _read(path)
            other = read_owner(text)
            if other is not None and runs(other):
                raise busy(path.parent, other, path)
            stale = folder / "stale"
            with contextlib.suppress(FileNotFoundError):  # another process was faster
                path.rename(stale)
                if _read(stale) != text:  # and has the lock by now
                    _put(stale, path)


def _put(file, path):
    """Give a file the name of the lock, with its text; return whether there was none."""
    try:
        os.link(file, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without links, where others may see the lock without its text
        try:
            with path.open("x") as lock:
                lock.write(file.read_text())
        except FileExistsError:
            return False
    return True


def _read(path):
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def owner() -> dict:
    """Return what a lock says of this process."""
    return {"pid": os.getpid(), "host": socket.gethostname(), "started": _started(os.getpid())}


def read_owner(text: str) -> dict | None:
    """Return the owner that the text of a lock names, or None where it was cut short or gone."""
    try:
        found = parse_json(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) and _names_process(found) else None


def _names_process(found):
    """Whether a record has a host and the number of a process, of at most 32 bits."""
    pid = found.get("pid")
    return isinstance(found.get("host"), str) and type(pid) is int and 0 < pid < 2**31


def busy(place, other: dict, file) -> FileExistsError:
    """Return the error of a place in which another process is at work."""
    return FileExistsError(
        f"One run at a time may write into a folder. Received: '{place}', in which process "
        f"{other['pid']} on {other['host']} is at work. Wait for it or stop it, or choose another "
        f"folder. If it is gone, remove '{file}'."
    )


def runs(other: dict) -> bool:
    """Return whether the owner of a lock may still be at work."""
    if other["host"] != socket.gethostname():
        return True  # nothing is known of another host's processes
    try:
        os.kill(other["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return _started(other["pid"]) == other.get("started")  # else the number was given again


def _started(pid):
    """Return when a process started, where the system tells, else None."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None
