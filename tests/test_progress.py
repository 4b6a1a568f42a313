import re

import pytest

from keras_fcn.inference import progress


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE", -1)
    monkeypatch.setattr(progress, "INTERVAL", -1)


def test_a_log_gets_lines(at_once, capsys):
    assert list(progress.track("ab", "Predicting")) == ["a", "b"]
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("Predicting: 0 of 2, 0 s")
    assert re.fullmatch(r"Predicting: 1 of 2, 0 s, [\d.e+]+/s, 0 s left", second)
    assert list(progress.track(iter("a"), "Evaluating")) == ["a"]
    assert capsys.readouterr().err == "Evaluating: 0, 0 s\n"


def test_what_an_earlier_run_did_is_counted_and_no_time_of_this_one(at_once, monkeypatch, capsys):
    clock = iter(range(0, 100, 10))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    assert list(progress.track("abc", "Predicting", before=5)) == ["a", "b", "c"]
    assert capsys.readouterr().err.splitlines() == [
        "Predicting: 5 of 8, 10 s",
        "Predicting: 6 of 8, 20 s, 0.05/s, 40 s left",
        "Predicting: 7 of 8, 30 s, 0.0667/s, 15 s left",
    ]


def test_what_is_short_shows_nothing(capsys):
    assert list(progress.track(range(3), "Predicting")) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar(at_once, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    outer = progress.track(range(2), "Predicting")
    for _ in outer:
        assert list(progress.track(range(2), "Predicting in tiles")) == [0, 1]
    shown = capsys.readouterr().err
    assert "Predicting" in shown
    assert re.search(r"\d/s", shown)
