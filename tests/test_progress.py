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
    assert second == "Predicting: 1 of 2, 0 s, 0 s left"
    assert list(progress.track(iter("a"), "Evaluating")) == ["a"]
    assert capsys.readouterr().err == "Evaluating: 0, 0 s\n"


def test_what_is_short_shows_nothing(capsys):
    assert list(progress.track(range(3), "Predicting")) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar(at_once, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    outer = progress.track(range(2), "Predicting")
    for _ in outer:
        assert list(progress.track(range(2), "Predicting in tiles")) == [0, 1]
    assert "Predicting" in capsys.readouterr().err
