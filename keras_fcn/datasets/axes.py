"""Which axes of an array are height, width and bands."""

import numpy as np

from keras_fcn.datasets.problems import FileError

BANDS = 16  # at most, where a file does not say which axis they are


def bands_last(array, path, channels):
    """Return an array of three axes with the bands last, where they are last or first.

    Without `channels` the bands are the shorter of the two axes.
    """
    first, last = array.shape[0], array.shape[-1]
    if channels is None and first != last and min(first, last) <= BANDS:
        return array if last < first else np.moveaxis(array, 0, -1)
    for bands in (channels, {1: 3, 3: 1}.get(channels)):  # gray becomes RGB and RGB gray
        if bands is not None and (first == bands) != (last == bands):
            return array if last == bands else np.moveaxis(array, 0, -1)
    wanted = "" if channels is None else f", where {channels} bands are wanted"
    raise FileError("bands", path, f"an array of shape {array.shape}{wanted}")


def tiff_bands(pixels, axes, path, channels):
    """Return pixels (height, width, bands) of the axes that tifffile names."""
    keep = [n for n, size in enumerate(pixels.shape) if size > 1 or axes[n] in "YX"]
    axes = "".join(axes[n] for n in keep)
    pixels = pixels.reshape([pixels.shape[n] for n in keep])
    if pixels.ndim == 2:
        return pixels[..., None]
    bands = [n for n, axis in enumerate(axes) if axis in "SC"]
    if pixels.ndim == 3 and len(bands) == 1:
        return np.moveaxis(pixels, bands[0], -1)
    if pixels.ndim == 3 and axes[0] not in "ZT":
        if channels not in (None, 1):
            return bands_last(pixels, path, channels)
        if pixels.shape[-1] <= BANDS < pixels.shape[0]:  # an array written row by row
            return pixels
    raise FileError("frames", path, f"an array of axes {axes} and shape {pixels.shape}")
