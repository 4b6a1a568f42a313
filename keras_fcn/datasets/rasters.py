"""The pixels of a file as they are stored, and what the file says of them."""

import dataclasses

import numpy as np

from keras_fcn.datasets.orientation import EXIF_ORIENTATION
from keras_fcn.datasets.tiffs import (
    has_alpha,
    orientation_of,
    stated_white,
    white_is_high,
    white_is_zero,
)

ONE_BAND = ("L", "I", "I;16", "I;16B", "I;16L", "F")
MODES = (*ONE_BAND, "LA", "RGB", "RGBA")  # of Pillow, taken as they are


@dataclasses.dataclass(frozen=True)
class Raster:
    """The pixels of a file as they are stored."""

    pixels: np.ndarray  # (height, width, bands), any number type
    alpha: bool = False  # whether the last band is transparency
    white: int | None = None  # the largest value that the camera gives, where the file says
    orientation: int = 1  # of EXIF, not yet heeded
    white_is_zero: bool = False  # whether the file says that 0 is white


def of_picture(picture) -> Raster:
    """Return the pixels of a loaded picture of Pillow."""
    orientation = picture.getexif().get(EXIF_ORIENTATION, 1)
    clear = picture.mode in ("RGBa", "PA") or "transparency" in picture.info
    if picture.mode not in MODES or (clear and picture.mode in ("L", "RGB")):
        gray = picture.mode in ("1", "L")
        picture = picture.convert(("LA" if gray else "RGBA") if clear else "L" if gray else "RGB")
    pixels = np.asarray(picture)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    return Raster(pixels, picture.mode in ("LA", "RGBA"), orientation=orientation)


def of_page(pixels: np.ndarray, file, page) -> Raster:
    """Return the raster of pixels that tifffile has read of a page, of one image or of several."""
    white = stated_white(file, page, pixels)
    return Raster(pixels, has_alpha(page), white, orientation_of(page), white_is_zero(page))


def with_white(raster: Raster, file, page) -> Raster:
    """Return what Pillow has read of a page of tifffile, with what the page says of white."""
    pixels = raster.pixels
    if pixels.dtype != np.uint8:  # which Pillow has inverted
        pixels = white_is_high(page, pixels)
    white = stated_white(file, page, pixels)
    return dataclasses.replace(
        raster, pixels=pixels, white=white, white_is_zero=white_is_zero(page)
    )
