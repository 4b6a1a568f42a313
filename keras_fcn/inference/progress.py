"""Progress of what takes long: a bar on a terminal, lines in a log."""

import sys
import time
from collections.abc import Generator, Iterable, Sized

PATIENCE = 5  # seconds before anything shows
INTERVAL = 30  # seconds from line to line in a log


def track(
    items: Iterable, description: str, total: int | None = None, before: int = 0
) -> Generator:
    """Yield the items, and show on standard error how far and how fast it is, if it takes long.

    Args:
        items: what is worked through.
        description: what is done, as "Predicting".
        total: how many items there are, where `len` does not tell.
        before: how many an earlier run has done, to be counted with these.
    """
    from rich.console import Console

    console = Console(stderr=True)
    total = len(items) if isinstance(items, Sized) else total
    total = total and total + before
    start = time.monotonic()
    shown = start + PATIENCE - INTERVAL
    bar = None
    try:
        for done, item in enumerate(items):
            now = time.monotonic()
            if bar is not None:
                bar.update(bar.task_ids[0], completed=before + done, rate=_rate(done, now - start))
            elif console.is_terminal and now - start > PATIENCE:
                rate = _rate(done, now - start)
                bar = _start_bar(console, description, before + done, total, rate)
            elif not console.is_terminal and now - shown > INTERVAL:
                shown = now
                _print_line(description, before, done, total, now - start)
            yield item
    finally:
        if bar is not None:
            bar.stop()


def _rate(done, seconds):
    """Return how fast it goes, as "2.5/s"; nothing before the first is done."""
    return f"{done / max(seconds, 1e-3):.3g}/s" if done else ""


def _start_bar(console, description, done, total, rate):
    """Return a running bar, or None where another shows and rich has room for one only."""
    from rich.errors import LiveError
    from rich.progress import Progress, TextColumn

    columns = (*Progress.get_default_columns(), TextColumn("{task.fields[rate]}"))
    bar = Progress(*columns, console=console, transient=True)
    bar.add_task(description, completed=done, total=total, rate=rate)
    try:
        bar.start()
    except LiveError:
        return None
    return bar


def _print_line(description, before, done, total, seconds):
    left = f", {seconds * (total - before - done) / done:.0f} s left" if done and total else ""
    rate = f", {_rate(done, seconds)}" if done else ""
    of = f" of {total}" if total else ""
    line = f"{description}: {before + done}{of}, {seconds:.0f} s{rate}{left}"
    print(line, file=sys.stderr, flush=True)
