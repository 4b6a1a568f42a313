"""Progress of what takes long: a bar on a terminal, lines in a log."""

import sys
import time
from collections.abc import Iterable, Iterator

PATIENCE = 5  # seconds before anything shows
INTERVAL = 30  # seconds from line to line in a log


def track(items: Iterable, description: str, total: int | None = None) -> Iterator:
    """Yield the items, and show on standard error how far it is, if it takes long.

    Args:
        items: what is worked through.
        description: what is done, as "Predicting".
        total: how many items there are, where `len` does not tell.
    """
    from rich.console import Console

    console = Console(stderr=True)
    total = len(items) if hasattr(items, "__len__") else total
    start = time.monotonic()
    shown = start + PATIENCE - INTERVAL
    bar = None
    try:
        for done, item in enumerate(items):
            now = time.monotonic()
            if bar is not None:
                bar.update(bar.task_ids[0], completed=done)
            elif console.is_terminal and now - start > PATIENCE:
                bar = _start_bar(console, description, done, total)
            elif not console.is_terminal and now - shown > INTERVAL:
                shown = now
                _print_line(description, done, total, now - start)
            yield item
    finally:
        if bar is not None:
            bar.stop()


def _start_bar(console, description, done, total):
    """Return a running bar, or None where another shows and rich has room for one only."""
    from rich.errors import LiveError
    from rich.progress import Progress

    bar = Progress(*Progress.get_default_columns(), console=console, transient=True)
    bar.add_task(description, completed=done, total=total)
    try:
        bar.start()
    except LiveError:
        return None
    return bar


def _print_line(description, done, total, seconds):
    left = f", {seconds * (total - done) / done:.0f} s left" if done and total else ""
    of = f" of {total}" if total else ""
    print(f"{description}: {done}{of}, {seconds:.0f} s{left}", file=sys.stderr, flush=True)
