"""Stacks: TIFF files that hold several images, one after the other."""

import contextlib
import dataclasses
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from keras_fcn.datasets.axes import BANDS, tiff_bands
from keras_fcn.datasets.doubts import dark_message, is_dark, largest_pixel
from keras_fcn.datasets.images import check_count, load_pixels, open_header, to_image
from keras_fcn.datasets.problems import FileError, reading
from keras_fcn.datasets.rasters import of_page, of_picture, with_white
from keras_fcn.datasets.tiffs import (
    TIFF,
    image_pages,
    image_series,
    is_for_pillow,
    open_tiff,
    pixels_of,
    white_is_high,
)


def count_pages(path, channels: int | None = None, file=None) -> int | None:
    """Return how many images a stack holds, from its header; None for a file of one image.

    Pages are images where the file does not say, and the network does not take as many
    channels, that they are the bands of one.

    Args:
        path: any file.
        channels: as in `keras_fcn.datasets.images.read_image`.
        file: the file, where it is open to read, as of an address.
    """
    try:
        with contextlib.nullcontext(file) if file else Path(path).open("rb") as opened:
            if opened.read(4) not in TIFF:
                return None
            opened.seek(0)
            with reading(path), open_tiff(opened) as tiff:
                return _count(tiff, path, channels)
    except (OSError, FileError):
        return None  # who reads it tells what is wrong


def read_stack(
    path, channels: int | None = None, white: float | None = None, max_pixels: int | None = None
) -> Iterator[np.ndarray]:
    """Yield the images of a stack.

    Args:
        path: TIFF file of which `count_pages` gives a number.
        channels, white, max_pixels: as in `keras_fcn.datasets.images.read_image`; the limit is
            that of each image.

    Yields:
        uint8 array `(height, width, channels)`.

    Raises:
        FileError: as `read_image`.
    """
    with open_tiff(path) as file:
        if is_for_pillow(file, file.pages[0], channels):
            rasters = _read_pages(file, path, max_pixels)
        else:
            rasters = _read_series(file, path, channels, max_pixels)
        dark = []
        for raster in rasters:
            largest = largest_pixel(raster)
            if white is None and largest is not None and is_dark(largest):
                dark.append(largest)
            yield to_image(raster, path, channels, white)
    if dark:
        warnings.warn(dark_message(max(dark)), stacklevel=1)


def _count(file, path, channels):
    page = file.pages[0]
    if is_for_pillow(file, page, channels):
        count = len(image_pages(file))
        return count if count > 1 else None
    found = image_series(file)
    if len(found) == 1 and not _is_stack(found[0], path, channels):
        return None
    return sum(len(_images(series, _unread(series), channels)) for series in found)


def _is_stack(series, path, channels):
    try:
        tiff_bands(_unread(series), series.axes, path, channels)
    except FileError as error:
        planes = [size for size in series.shape if size > 1]
        gray = channels in (1, 3) and len(planes) == 3 and planes[0] != channels
        return error.kind == "frames" or (gray and planes[-1] > BANDS)
    return False


def _unread(series):
    """Return an array as a series will be; of what is not touched no memory is used."""
    return np.empty(series.shape, "uint8")


def _images(series, pixels, channels):
    """Return pixels (images, height, width, bands) of the axes that tifffile names."""
    keep = [n for n, size in enumerate(pixels.shape) if size > 1 or series.axes[n] in "YX"]
    pixels = pixels.reshape([pixels.shape[n] for n in keep])
    bands = [n for n, old in enumerate(keep) if series.axes[old] in "SC"]
    if len(bands) > 1:
        raise ValueError(f"bands on two of the axes {series.axes}")
    if not bands and pixels.ndim > 3 and pixels.shape[-1] == channels:
        bands = [pixels.ndim - 1]  # an array written row by row
    pixels = np.moveaxis(pixels, bands[0], -1) if bands else pixels[..., None]
    return pixels.reshape(-1, *pixels.shape[-3:])


def _read_pages(file, path, max_pixels):
    """Yield the rasters of pages that Pillow reads."""
    with reading(path), open_header(path, max_pixels) as picture:
        for number in image_pages(file):
            picture.seek(number)
            check_count((picture.height, picture.width), path, max_pixels)
            load_pixels(picture)
            raster = with_white(of_picture(picture), file, file.pages[number])
            yield dataclasses.replace(raster, orientation=1)  # Pillow has turned it already


def _read_series(file, path, channels, max_pixels):
    """Yield the rasters of images that the file, or its reader, says are on certain axes."""
    for series in image_series(file):
        with reading(path):
            page = series.keyframe
            shape = _images(series, _unread(series), channels).shape
            check_count(shape[1:], path, max_pixels)
            images = white_is_high(page, _images(series, pixels_of(series, path), channels))
            whole = of_page(images, file, page)
        for pixels in images:
            yield dataclasses.replace(whole, pixels=pixels)
