"""Ctrl-C, SIGTERM and SIGHUP end a process of the command line in order, wherever they find it.

Python raises the exception of a signal at any line, so what is open is closed on its way out:
files begun and locks are removed. On that way it may be taken for another error, as by an import
within C, or be lost, as in a callback of the garbage collector; so the number is kept here too.
"""

import contextlib
import errno
import os
import signal
import sys
import threading
from collections.abc import Callable

OF_SIGNALS = 128  # and the number is the exit status, as a shell has it: 130 and 143
HANG_UP: int | None = getattr(signal, "SIGHUP", None)  # the terminal closes; Windows has none
LINES: dict[int, str] = {
    signal.SIGINT: "keras-fcn: stopped",
    signal.SIGTERM: "keras-fcn: stopped by SIGTERM",
}
if HANG_UP is not None:
    LINES[HANG_UP] = "keras-fcn: stopped by SIGHUP"
AGAIN = 0.05  # seconds until a signal comes again whose exception was lost

received: list[int] = []  # the number of the signal that ends this process


class Stopped(KeyboardInterrupt):
    """Ctrl-C. Of a `KeyboardInterrupt` itself within an import Python would kill the process."""


def heeding(run: Callable[[], int]) -> int:
    """Do what a process is for; return its exit status, or that of a signal that ended it.

    A second signal ends it at once.

    Args:
        run: function that returns an exit status.
    """
    install(_receive)
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
    tell(LINES[received[0]])
    return OF_SIGNALS + received[0]


def install(handler: Callable) -> dict:
    """Let a handler have the signals of `LINES`; return {number: handler before}.

    What the process was told to ignore, as a shell does for what runs in the background and
    `nohup` for SIGHUP, it ignores.
    """
    before = {number: signal.getsignal(number) for number in LINES}
    before = {number: old for number, old in before.items() if old != signal.SIG_IGN}
    for number in before:
        signal.signal(number, handler)
    return before


def tell(line: str) -> None:
    """Print a line on standard error, if anybody reads it any more."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def leave_terminal() -> bool:
    """Give to nobody what is still printed on a terminal that is closed; return whether one is."""
    closed = [number for number in (1, 2) if _is_closed(number)]
    for number in closed:
        nobody = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nobody, number)
        os.close(nobody)
    return bool(closed)


def _is_closed(number):
    try:
        os.write(number, b"")
    except OSError as error:
        return error.errno == errno.EIO
    return False


def _receive(number, _frame):
    if number == HANG_UP:
        signal.signal(number, signal.SIG_IGN)  # a terminal that closes may send it twice
        leave_terminal()
    else:
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
