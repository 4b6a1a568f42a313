"""A few of the kills of `tools/kills.py`, and that it sees what it looks for."""

import re
from pathlib import Path

import forked
import numpy as np
import pytest
from conftest import leave_half
from PIL import Image

from keras_fcn import UNet

TOOLS = Path(__file__).resolve().parents[1] / "tools"


@pytest.fixture
def kills(monkeypatch):
    monkeypatch.syspath_prepend(TOOLS)
    import kills

    return kills


@pytest.fixture
def folders(tmp_path, rng):
    """Two folders of the same files, times aside."""
    network = UNet(filters=(2, 2))
    for name in ("one", "other"):
        folder = tmp_path / name
        (folder / "deep").mkdir(parents=True)
        Image.fromarray(np.eye(40, dtype="uint8")).save(folder / "deep" / "a.png")
        network.save(folder / "last.keras")
        (folder / "log.csv").write_text(f"epoch,loss,seconds\n0,0.5,{rng.random()}\n")
        (folder / "run.json").write_text(f'{{"seconds": {rng.random()}, "epochs": [1]}}')
    return tmp_path / "one", tmp_path / "other"


def test_the_same_files_are_the_same(kills, folders):
    assert kills.differences(*folders) == []
    assert kills.halves(folders[0]) == []


@pytest.mark.parametrize("name", ["deep/a.png", "last.keras", "run.json"])
def test_half_a_file_is_seen(name, kills, folders):
    path = folders[0] / name
    path.write_bytes(path.read_bytes()[:-8])
    assert [fault.partition(":")[0] for fault in kills.halves(folders[0])] == [name]


@pytest.mark.parametrize(
    ("name", "content"),
    [("log.csv", "epoch,loss,seconds\n0,0.25,1\n"), ("run.json", "{}"), ("new", "x")],
)
def test_another_content_is_seen(name, content, kills, folders):
    (folders[0] / name).write_text(content)
    assert kills.differences(*folders) == [name]


def test_other_weights_and_leftovers_are_seen(kills, folders):
    UNet(filters=(2, 2)).save(folders[0] / "last.keras")
    place = leave_half(folders[0] / "deep", "a.png")
    assert kills.differences(*folders) == ["last.keras", str(place)]


@pytest.mark.slow
def test_killed_work_is_done_in_the_end():
    kinds = ["predict", "into", "weights"]
    result = forked.run([TOOLS / "kills.py", *kinds, "--kills", "2"])
    for kind in kinds:
        line = rf"^{kind}: 2 kills .*, 0 faults$"
        assert re.search(line, result.stdout, re.M), result.stdout + result.stderr
    assert result.returncode == 0
