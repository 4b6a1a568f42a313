"""Ctrl-C and SIGTERM end a process of the command line in order, wherever they find it.

Python raises the exception of a signal at any line, so what is open is closed on its way out:
files begun and locks are removed. On that way it may be taken for another error, as by an import
within C, or be lost, as in a callback of the garbage collector; so the number is kept here too.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable

OF_SIGNALS = 128  # and the number is the exit status, as a shell has it: 130 and 143
LINES: dict[int, str] = {
    signal.SIGINT: "keras-fcn: stopped",
    signal.SIGTERM: "keras-fcn: stopped by SIGTERM",
}
AGAIN = 0.05  # seconds until a signal comes again whose exception was lost

received: list[int] = []  # the number of the signal that ends this process


class Stopped(KeyboardInterrupt):
    """Ctrl-C. Of a `KeyboardInterrupt` itself within an import Python would kill the process."""


def heeding(run: Callable[[], int]) -> int:
    """Do what a process is for; return its exit status, or that of a signal that ended it.

    A second signal ends it at once. What the process was told to ignore, as a shell does for
    what runs in the background, it ignores.

    Args:
        run: function that returns an exit status.
    """
    for number in LINES:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _receive)
    sys.unraisablehook, hook = _again, sys.unraisablehook
    try:
        status = run()
    except BaseException:
        if not received:
            raise
    finally:
        sys.unraisablehook = hook
        for number in LINES:
            if signal.getsignal(number) == _receive:
                signal.signal(number, signal.SIG_DFL)
    if not received:
        return status
    with contextlib.suppress(OSError):  # nobody reads it any more
        print(LINES[received[0]], file=sys.stderr, flush=True)
    return OF_SIGNALS + received[0]


def _receive(number, _frame):
    signal.signal(number, signal.SIG_DFL)
    received.append(number)
    raise Stopped if number == signal.SIGINT else SystemExit(OF_SIGNALS + number)


def _again(unraisable):
    """Send a signal once more whose exception was raised where Python drops it."""
    if not (received and isinstance(unraisable.exc_value, Stopped | SystemExit)):
        sys.__unraisablehook__(unraisable)
        return
    number = received.pop()
    signal.signal(number, _receive)
    # not from here: the handler would be called here
    timer = threading.Timer(AGAIN, os.kill, (os.getpid(), number))
    timer.daemon = True
    timer.start()
