"""Ctrl-C, SIGTERM and SIGHUP in the process of a command: a line and a status, wherever they come.

The handlers are called as Python calls them; real signals are for processes of their own, see
`signal_at` in the tests of training.
"""

import signal

import forked
import pytest

from keras_fcn import signals
from keras_fcn.commands import main, models

LINES = {
    signal.SIGINT: "keras-fcn: stopped\n",
    signal.SIGTERM: "keras-fcn: stopped by SIGTERM\n",
    signal.SIGHUP: "keras-fcn: stopped by SIGHUP\n",
}


@pytest.fixture(autouse=True)
def handlers(monkeypatch):
    """A process of a shell, in the foreground; afterwards it does for signals what it did."""
    monkeypatch.setattr(signals, "received", [])
    before = {number: signal.signal(number, signal.default_int_handler) for number in LINES}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def come(number):
    signal.getsignal(number)(number, None)


def command(monkeypatch, run):
    """Return the function of a process whose command does what `run` does."""
    monkeypatch.setattr(models, "run", lambda _: run())
    return lambda: main(["models"])


@pytest.mark.parametrize("number", LINES)
@pytest.mark.parametrize("error", [None, ValueError, SystemError])
def test_a_signal_ends_it_whatever_became_of_its_exception(number, error, monkeypatch, capsys):
    cleared = []

    def run():
        try:
            come(number)
        except BaseException:
            cleared.append(signal.getsignal(number))  # a second one ends it at once
            if error:  # as libraries in C, and operations of TensorFlow
                raise error("interrupted") from None
            raise

    assert signals.heeding(command(monkeypatch, run)) == 128 + number
    assert capsys.readouterr().err == LINES[number]
    # a terminal that closes may send two
    assert cleared == [signal.SIG_IGN if number == signal.SIGHUP else signal.SIG_DFL]


def test_a_signal_that_was_swallowed_is_told_at_the_end(monkeypatch, capsys):
    def run():
        with pytest.raises(SystemExit):
            come(signal.SIGTERM)

    assert signals.heeding(command(monkeypatch, run)) == 143
    assert capsys.readouterr().err == LINES[signal.SIGTERM]


def test_without_a_signal_it_is_as_ever(monkeypatch):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as of a shell for what is in the background
    seen = []

    def run():
        seen.append(signal.getsignal(signal.SIGINT))
        return 3

    assert signals.heeding(command(monkeypatch, run)) == 3
    assert seen == [signal.SIG_IGN]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    with pytest.raises(KeyError):  # a fault of the package is traced
        signals.heeding(command(monkeypatch, lambda: {}["x"]))


def test_ctrl_c_of_a_caller_in_python_is_one_line(monkeypatch, capsys):
    def run():
        raise KeyboardInterrupt

    assert command(monkeypatch, run)() == 130
    assert capsys.readouterr().err == LINES[signal.SIGINT]


LOST = """
import os, signal, sys, time
from keras_fcn import signals

class Lost:
    def __del__(self):
        os.kill(os.getpid(), signal.{name})
        time.sleep(0.1)  # the exception comes here, where Python drops it

def run():
    Lost()
    time.sleep(60)

sys.exit(signals.heeding(run))
"""


@pytest.mark.parametrize("number", LINES)
def test_a_signal_whose_exception_is_lost_comes_again(number):
    result = forked.run(["-c", LOST.format(name=number.name)])
    assert (result.returncode, result.stderr) == (128 + number, LINES[number])


EARLY = """
import os, signal, sys
from keras_fcn.__main__ import main
sys.modules.pop("keras_fcn.commands", None)

class Finder:
    def find_spec(self, name, *_):
        if name == "keras_fcn.commands":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
sys.exit(main())
"""


def test_ctrl_c_while_the_commands_are_imported_is_one_line():
    result = forked.run(["-c", EARLY])
    assert (result.returncode, result.stderr) == (130, LINES[signal.SIGINT])
