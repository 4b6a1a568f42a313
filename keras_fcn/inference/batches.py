"""Images that are read ahead, and small ones of one size that go into the network together.

A call of the network takes as long as its images one after the other, from about 128x128 pixels
on; of 64x64 pixels sixteen at once take three quarters of the time or less (`python -m
benchmarks.folders` measures both). So images go together up to as many pixels as one of 256x256
has, which takes no more memory than that one.

In another company an image may get other scores in the last bit. So who goes with whom follows
from the list of the images alone, and not from what is read first or was done before: a run that
goes on, or that several processes share, writes the bytes of an undisturbed one.
"""

import collections
import concurrent.futures
import threading
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path

from keras_fcn.inference.sources import Job

PIXELS, MOST = 2**16, 16  # of the images that go into the network together, and how many
AHEAD = 2  # images that are read, or wait to be written, beside those that are predicted


def in_batches(items: Iterable, shape_of: Callable) -> Iterator[list]:
    """Yield items in order, in lists: small images of one shape in a row, and others alone.

    Args:
        items: of which each has an image.
        shape_of: function from an item to the shape `(height, width, ...)` of its image, or to
            None for one that goes alone.
    """
    batch: list = []
    before = None
    for item in items:
        shape = shape_of(item)
        if batch and shape != before:
            yield batch
            batch = []
        batch.append(item)
        before = shape
        one_more = len(batch) + 1
        if shape is None or one_more > MOST or one_more * shape[0] * shape[1] > PIXELS:
            yield batch
            batch = []
    if batch:
        yield batch


def batches_of(jobs: Iterable[Job]) -> list[list[Job]]:
    """Return the images in the batches in which they are predicted, by the heads of their files.

    What is at an address goes alone: to look at all heads first would take long.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # who reads the image warns
        return list(in_batches(jobs, _size))


def wanted(batches: list[list[Job]]) -> list[Job]:
    """Return the images of batches that are to be done."""
    return [job for batch in batches for job in batch if not job.done]


def _size(job):
    """Return the height and width of an image; None where Pillow does not tell it."""
    from PIL import Image

    if job.pages is not None or not isinstance(job.image, Path):
        return None
    try:
        with Image.open(job.image) as picture:
            return picture.size[::-1]
    except Exception:  # Pillow raises what it likes; who reads the image tells what is wrong
        return None


def read_ahead(
    read: Callable, items: Iterable, count: Callable
) -> Generator[concurrent.futures.Future, None, None]:
    """Yield what is read of each item, while a thread reads on.

    As many wait as go into the network together, or two.

    Args:
        read: function of an item.
        items: what to read.
        count: function from what is read to its pixels.

    Yields:
        A future that is done, with what was read or the error.
    """
    waiting: collections.deque = collections.deque()
    change = threading.Condition()
    over = threading.Event()

    def has_room():
        return over.is_set() or not is_enough(pixels for _, pixels in waiting)

    def work():
        for item in items:
            with change:
                change.wait_for(has_room)
            if over.is_set():
                return
            future: concurrent.futures.Future = concurrent.futures.Future()
            pixels = 0
            try:
                found = read(item)
                pixels = count(found)
                future.set_result(found)
            except BaseException as error:
                future.set_exception(error)
            with change:
                waiting.append((future, pixels))
                change.notify_all()
        with change:
            waiting.append((None, 0))
            change.notify_all()

    # a daemon: an error elsewhere may end the process while this generator still exists
    thread = threading.Thread(target=work, name="reading ahead", daemon=True)
    thread.start()
    try:
        while True:
            with change:
                change.wait_for(lambda: waiting)
                future, _ = waiting.popleft()
                change.notify_all()
            if future is None:
                return
            yield future
    finally:
        with change:
            over.set()
            change.notify_all()
        thread.join()


def is_enough(pixels: Iterable[int]) -> bool:
    """Return whether images of so many pixels that wait are as many as a batch, or two large."""
    pixels = list(pixels)
    return len(pixels) >= MOST or (len(pixels) >= AHEAD and sum(pixels) >= PIXELS)
