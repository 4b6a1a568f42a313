"""Where predictions are written to: a folder, or an address by way of one."""

import contextlib
import math
import time
from collections.abc import Iterator
from pathlib import Path

from keras_fcn.atomic import remove_leftovers, temporary_folder
from keras_fcn.inference import ledger
from keras_fcn.inference.addresses import Store
from keras_fcn.inference.formats import is_ours, is_recorded
from keras_fcn.lock import locked

TABLES = (ledger.RECORD, *ledger.TABLES)
PATIENCE = 10  # seconds from copy to copy of the tables, at least
SHARE = 50  # such copies take one in so many seconds


class Folder:
    """A folder of this machine, or of a share.

    Args:
        place: its path.

    Attributes:
        folder: where files are written, the same.
    """

    def __init__(self, place: Path):
        self.place = self.folder = place

    def is_foreign(self, file: Path, kind: str) -> bool:
        """Return whether a file, of a format as "labels.npy", exists and is not this package's."""
        return file.exists() and not is_ours(file, self.folder, kind)

    @contextlib.contextmanager
    def locked(self, jobs) -> Iterator[None]:
        """Hold the lock of the folder, cleared of what killed processes have left in it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        folders = {self.folder / job.stem.parent for job in jobs}
        with locked(self.folder):
            for folder in folders:
                remove_leftovers(folder)
            yield
            for folder in folders:  # of processes of this run
                remove_leftovers(folder)

    def is_older(self, file: Path, changed: float) -> bool:
        """Return whether a file was written before a time, in seconds; OSError for none."""
        return file.stat().st_mtime < changed

    def take(self, names: list[Path]) -> None:
        """Take over what is written in the folder; it is where it belongs."""

    def sync(self, now: bool = True) -> None:
        """Copy the tables; they are where they belong."""


class Address:
    """An address of fsspec, to which files are moved from a folder, and tables that grow copied.

    Args:
        place: the address.
        folder: empty folder.
    """

    def __init__(self, place: str, folder: Path):
        self.place, self.folder = place, folder
        self.store = Store(place)
        self.times: dict[str, float] | None = None  # when each file there was written
        self.sent: dict[str, tuple | None] = {}  # of the tables, as they were copied last
        self.due = 0.0

    def is_foreign(self, file: str, kind: str) -> bool:
        """Return whether there is a file, and the record there does not say that it is ours."""
        times = self._look() if self.times is None else self.times
        ours = is_recorded(self.folder, kind) or (
            is_recorded(self.folder, kind.replace(".tif", ".png"))  # of a stack
        )
        return self._name(file) in times and not ours

    @contextlib.contextmanager
    def locked(self, _jobs) -> Iterator[None]:
        """Hold the lock of the address."""
        with self.store.locked():
            self._look()
            yield

    def is_older(self, file: str, changed: float) -> bool:
        """Return whether a file was written before a time, as exactly as object stores tell it."""
        return (self.times or {}).get(self._name(file), -1) < math.floor(changed)

    def take(self, names: list[Path]) -> None:
        """Move what is written in the folder to the address."""
        for name in names:
            self.store.put(self.folder / name, name.as_posix())
            (self.folder / name).unlink()

    def sync(self, now: bool = True) -> None:
        """Copy the tables that have changed; unless `now` not more often than there is time for."""
        if not now and time.monotonic() < self.due:
            return
        start = time.monotonic()
        for name in TABLES:
            status = _status(self.folder / name)
            if status == self.sent[name]:
                continue
            if status is None:
                self.store.remove(name)
            else:
                self.store.put(self.folder / name, name)
            self.sent[name] = status
        end = time.monotonic()
        self.due = end + max(PATIENCE, SHARE * (end - start))

    def _look(self):
        """Fetch the tables, and see what else is there."""
        self.times = self.store.find()
        for name in set(TABLES) & set(self.times):
            self.store.fetch(name, self.folder / name)
        self.sent = {name: _status(self.folder / name) for name in TABLES}
        return self.times

    def _name(self, file):
        return file.removeprefix(f"{self.place}/")


@contextlib.contextmanager
def open_output(place: Path | str) -> Iterator[Folder | Address]:
    """Yield what writes to a folder or an address.

    Args:
        place: of `keras_fcn.inference.addresses.place_of`.
    """
    if isinstance(place, Path):
        yield Folder(place)
        return
    with temporary_folder() as folder:
        yield Address(place, folder)


def _status(path):
    """Return what is another once a file has changed, None for no file."""
    with contextlib.suppress(FileNotFoundError):
        status = path.stat()
        return status.st_mtime_ns, status.st_size
    return None
