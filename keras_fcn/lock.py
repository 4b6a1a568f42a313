"""A lock on a folder, so that two runs do not write into one."""

import contextlib
import json
import os
import socket
from pathlib import Path

from keras_fcn.atomic import remove_leftovers


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
    mine = {"pid": os.getpid(), "host": socket.gethostname(), "started": _started(os.getpid())}
    while True:
        try:
            with path.open("x") as file:
                json.dump(mine, file)
            return
        except FileExistsError:
            owner = _read(path)
            if owner is not None and _runs(owner):
                raise FileExistsError(
                    f"One run at a time may write into a folder. Received: '{path.parent}', in "
                    f"which process {owner['pid']} on {owner['host']} is at work. Wait for it or "
                    f"stop it, or choose another folder. If it is gone, remove '{path}'."
                ) from None
            stale = path.with_name(f"{path.name}.{os.getpid()}")
            with contextlib.suppress(FileNotFoundError):  # another process was faster
                path.rename(stale)
                stale.unlink()


def _read(path):
    """Return the owner, or None for a file cut short or gone."""
    try:
        owner = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return owner if isinstance(owner, dict) and {"pid", "host"} <= set(owner) else None


def _runs(owner):
    if owner["host"] != socket.gethostname():
        return True  # nothing is known of another host's processes
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return _started(owner["pid"]) == owner.get("started")  # else the number was given again


def _started(pid):
    """Return when a process started, where the system tells, else None."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None
