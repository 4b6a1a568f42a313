import errno
import json
import os
import socket
import tempfile
from types import SimpleNamespace

import pytest
from forked import FORKS

from keras_fcn import atomic, lock
from keras_fcn.atomic import (
    FullDiskError,
    read_json,
    replacing,
    telling_full,
    temporary_folder,
    write_json,
)
from keras_fcn.lock import locked

DEEP = "[" * 100_000  # for which Python's reader has an error of its own


def names(folder):
    return [path.name for path in folder.iterdir()]


def test_a_file_is_replaced_when_it_is_whole(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"n": 1})
    with replacing(path) as beside:
        beside.write_text("half")
        assert json.loads(path.read_text()) == {"n": 1}
    assert path.read_text() == "half"
    assert names(tmp_path) == ["a.json"]


@pytest.mark.parametrize("text", ['{"n": 1', "[1]", "", "\udcff", DEEP])
def test_a_damaged_record_is_named(tmp_path, text):
    path = tmp_path / "training.json"
    path.write_text(text, "utf-8", "surrogateescape")
    with pytest.raises(ValueError, match=r"training\.json' should be JSON.*Put it back"):
        read_json(path)
    write_json(path, {"n": 1})
    assert read_json(path) == read_json(path, n=int) == {"n": 1}
    with pytest.raises(ValueError, match=r"training\.json' should be JSON.*'given' is None"):
        read_json(path, given=dict)
    with pytest.raises(ValueError, match="'n' is 1"):
        read_json(path, n=dict)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_after_an_error_all_is_as_it_was(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error), replacing(path) as beside:
        beside.write_text("new")
        raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(
    "error", [OSError("9 requested and 0 written"), RuntimeError("HDF5"), None]
)
def test_a_full_disk_is_told_by_the_name_whatever_the_library_says(tmp_path, monkeypatch, error):
    full = error or OSError(errno.EDQUOT, "Quota exceeded")
    room = 2**30 if error is None else 0
    monkeypatch.setattr(atomic.shutil, "disk_usage", lambda _: SimpleNamespace(free=room))
    with pytest.raises(FullDiskError) as raised, telling_full(tmp_path, "outer"):
        with replacing(tmp_path / "a.npy"):
            raise full
    assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, str(tmp_path / "a.npy"))
    with pytest.raises(FullDiskError) as raised, temporary_folder() as folder:
        raise full
    assert raised.value.filename == tempfile.gettempdir()
    assert not folder.exists()
    assert names(tmp_path) == []


def test_the_full_disk_is_told_where_a_block_writes_to_two(tmp_path, monkeypatch):
    full = OSError(errno.ENOSPC, "No space left on device")
    room = {}
    monkeypatch.setattr(atomic.shutil, "disk_usage", lambda at: SimpleNamespace(free=room[str(at)]))
    for here, expected in ((2**30, tmp_path / "a.zip"), (0, tempfile.gettempdir())):
        with pytest.raises(FullDiskError) as raised, replacing(tmp_path / "a.zip") as beside:
            room[str(beside.parent)] = 0
            with temporary_folder(elsewhere=True) as folder:
                room[str(folder)] = here
                raise full
        assert raised.value.filename == str(expected)


def test_another_error_is_told_as_it_is(tmp_path, monkeypatch):
    with pytest.raises(RuntimeError), temporary_folder() as folder:
        folder.rmdir()  # of a lost share nobody knows the room
        raise RuntimeError
    monkeypatch.setattr(atomic.shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "a.npy"):
        (tmp_path / "missing.png").read_bytes()


def test_what_a_link_names_is_left_as_it_is(tmp_path):
    target = tmp_path / "target.txt"
    target.write_text("the user's")
    link = tmp_path / "link.txt"
    link.symlink_to(target)
    with replacing(link) as beside:
        beside.write_text("new")
    assert target.read_text() == "the user's"
    assert link.read_text() == "new"


def test_a_folder_appears_whole(tmp_path):
    with replacing(tmp_path / "folder") as beside:
        beside.mkdir()
        (beside / "file").touch()
        assert not (tmp_path / "folder").exists()
    assert (tmp_path / "folder" / "file").exists()


def hold(folder, started, stop):
    with locked(folder):
        started.set()
        stop.wait()


def test_a_folder_is_locked_by_one_process(tmp_path):
    started, stop = FORKS.Event(), FORKS.Event()
    process = FORKS.Process(target=hold, args=(tmp_path, started, stop))
    process.start()
    assert started.wait(60)
    with pytest.raises(FileExistsError, match=f"process {process.pid} on"), locked(tmp_path):
        pass
    process.kill()  # it leaves its lock behind
    process.join()
    with locked(tmp_path):
        assert (tmp_path / ".lock").exists()
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"pid": 1}', DEEP]
    + [json.dumps({"pid": pid, "host": socket.gethostname()}) for pid in ("1", 1e300, 0, 10**30)],
)
def test_a_lock_cut_short_is_taken_over(tmp_path, text):
    (tmp_path / ".lock").write_text(text)
    with locked(tmp_path):
        pass
    assert names(tmp_path) == []


def test_of_two_that_take_over_a_lock_one_has_it(tmp_path, monkeypatch):
    path, read = tmp_path / ".lock", lock._read
    path.write_text("")  # of a run that is gone
    parent = os.getppid()
    other = json.dumps({**lock.owner(), "pid": parent, "started": lock._started(parent)})

    def read_late(file):
        text = read(file)
        if not text:  # the other has read the same, and was faster
            path.write_text(other)
        return text

    monkeypatch.setattr(lock, "_read", read_late)
    with pytest.raises(FileExistsError, match=f"process {parent} on"), locked(tmp_path):
        pass
    assert path.read_text() == other
    assert names(tmp_path) == [".lock"]


def test_a_file_system_without_links_has_locks(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    with locked(tmp_path):
        assert lock.read_owner((tmp_path / ".lock").read_text()) == lock.owner()
        with pytest.raises(FileExistsError, match="at work"), locked(tmp_path):
            pass
    assert names(tmp_path) == []
