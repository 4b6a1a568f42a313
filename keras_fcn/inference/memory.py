"""How large a tile may be: what a prediction needs of memory, and what is free."""

import mmap
from pathlib import Path

import keras
import numpy as np

from keras_fcn.convolutionize import functional
from keras_fcn.inference.tiles import View, receptive_field_of

UNKNOWN = 2**31  # bytes taken as free where the system does not tell
STEP = 64  # pixels; a tile's side is a multiple
CGROUP = Path("/sys/fs/cgroup")  # the limits of a container


def choose_tile_size(model: keras.Model, view: View) -> tuple[int, int] | None:
    """Return the side of the tiles by free memory, or None where the whole image fits.

    What is needed is counted as if all maps of all layers were kept until the last is made,
    as float32; most are gone before, which leaves room for other programs. A tile is the
    largest square, its side a multiple of 64, for which that is free.

    Args:
        model: Keras model.
        view: the image.
    """
    try:
        field = receptive_field_of(model)
    except ValueError:  # tiles it has none
        return None
    pixels = free_memory() / bytes_per_pixel(model)
    if view.size[0] * view.size[1] <= pixels:
        return None
    # in pixels of the image; twice what a tile may be shifted by to be aligned
    margins = [
        before + after + 2 * alignment
        for before, after, alignment in zip(field.before, field.after, field.alignment, strict=True)
    ]
    side = STEP
    while (side + STEP + margins[0]) * (side + STEP + margins[1]) <= pixels:
        side += STEP
    rows, columns = (max(1, int(side / stride)) for stride in field.stride)
    return rows, columns


def bytes_per_pixel(model: keras.Model) -> float:
    """Return the size of all maps of all layers for each pixel of the image.

    Raises:
        ValueError: for a model without a receptive field.
    """
    layers = dict(_named_layers(model))
    numbers = channels = model.inputs[0].shape[-1]
    for row in receptive_field_of(model).layers:
        layer = layers.get(row.name)
        if layer is not None:  # an operation has as many channels as what it is applied to
            channels = layer.output.shape[-1]
        numbers += channels / float(row.stride[0] * row.stride[1])
    return 4 * numbers


def _named_layers(model, prefix=""):
    """Yield the layers of a model, also of those nested in it, by the names of the rows."""
    for layer in functional(model).layers:
        if isinstance(layer, keras.Model):
            yield from _named_layers(layer, f"{prefix}{layer.name}/")
        else:
            yield prefix + layer.name, layer


def free_memory() -> int:
    """Return the bytes that are free to use, in this container where it is one.

    Of systems other than Linux nothing is known, and 2 GiB are taken as free.
    """
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return UNKNOWN
    try:
        limit = int((CGROUP / "memory.max").read_text())
        return min(free, limit - int((CGROUP / "memory.current").read_text()))
    except (OSError, ValueError):  # no container, or "max"
        return free


def release(array) -> None:
    """Let go of what memory holds of the file of a `numpy.memmap`; it is read again at need."""
    if getattr(array, "mode", None) not in ("r", "r+", "w+"):  # of "c" changes would be lost
        return
    while isinstance(array, np.ndarray):
        array = array.base
    if isinstance(array, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        array.madvise(mmap.MADV_DONTNEED)
