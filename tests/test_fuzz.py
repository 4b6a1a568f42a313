"""A few of the damaged files of `tools/fuzz.py`, and those in `corpus/` that are worth keeping."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
CORPUS = Path(__file__).parent / "corpus"
KINDS = ["caffemodel", "weights", "keras", "image", "stack", "mask", "classes", "record"]


@pytest.fixture(scope="module")
def fuzz():
    spec = importlib.util.spec_from_file_location("fuzz", ROOT / "tools" / "fuzz.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert list(module.KINDS) == KINDS
    return module


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_read_or_refused(kind, fuzz, tmp_path):
    outcome = fuzz.fuzz(kind, 50, 0, tmp_path)
    assert outcome.faults == []
    assert outcome.read + outcome.refused == 50
    assert outcome.refused > 0


@pytest.mark.parametrize("file", sorted(CORPUS.iterdir()), ids=lambda file: file.name)
def test_kept_files_are_read_or_refused(file, fuzz, tmp_path):
    kind = file.name.partition("-")[0]
    _, _, read, suffix = fuzz.KINDS[kind](np.random.default_rng(0))
    error, seconds = fuzz.try_file(read, tmp_path / f"damaged{suffix}", file.read_bytes())
    assert error is None or fuzz.is_promised(error), repr(error)
    assert seconds < fuzz.SLOW


def test_what_no_kind_of_error_promises_is_a_fault(fuzz):
    outcome = fuzz.Outcome()
    for error in (ValueError("a.png is damaged"), OSError("gone"), None):
        outcome.add(b"", error, 0.1)
    assert outcome.faults == []
    outcome.add(b"", KeyError("given"), 0.1)
    outcome.add(b"", ValueError(""), 0.1)
    outcome.add(b"", None, 2)
    assert [what for what, _ in outcome.faults] == [
        "KeyError: 'given'",
        "ValueError: ",
        "took 2.0 s",
    ]
