"""What the pixels of a file leave open: whether they are dark or of few bits, and transparency."""

import numpy as np

from keras_fcn.datasets.rasters import Raster
from keras_fcn.remedies import choose, spell

WHITE = 65535  # of 16-bit pixels, where neither the caller nor the file says
DARK_BITS = 14  # 16-bit images that use no more are asked about
TRANSPARENT = (
    "Transparency, the last band of the file, is dropped: what was transparent is shown in the "
    "colour that the file holds there. Lay the image over a background of your choice where that "
    "matters. If the band is one like the others, save it as such (in a TIFF with "
    "`extrasamples=['unspecified']` of tifffile) for a network that takes as many."
)


def largest_pixel(raster: Raster) -> int | None:
    """Return the largest of integer pixels of more than 8 bits, where no white is stated."""
    pixels = raster.pixels[..., :-1] if raster.alpha else raster.pixels
    deep = pixels.dtype.kind in "iu" and pixels.dtype.itemsize > 1 and raster.white is None
    return int(pixels.max()) if deep else None


def is_dark(largest: int) -> bool:
    """Return whether pixels of 16 bits seem to be those of a camera of fewer."""
    return 0 < largest < 2**DARK_BITS


def dark_question(raster: Raster) -> str | None:
    """Return what to say of a raster whose pixels seem to be those of a camera of fewer bits."""
    largest = largest_pixel(raster)
    return dark_message(largest) if largest is not None and is_dark(largest) else None


def is_see_through(raster: Raster) -> bool:
    """Return whether pixels are transparent; `TRANSPARENT` says what becomes of them."""
    if not raster.alpha:
        return False
    alpha = raster.pixels[..., -1]
    opaque = 1 if alpha.dtype.kind == "f" else np.iinfo(alpha.dtype).max
    return bool((alpha < opaque).any())


def dark_message(largest: int) -> str:
    """Return what to say of dark pixels of 16 bits."""
    bits = next(bits for bits in (8, 10, 12, DARK_BITS) if largest < 2**bits)
    again = "; for predictions that are written, with another output folder."
    return (
        "16-bit images should use their range, or they are taken for dark ones. Received: pixels "
        f"of at most {bits} bits. If white is less than {WHITE}, pass the value that becomes 255, "
        f"as {spell('white', 2**bits - 1)} for {bits} bits{choose(again, again, '.')}"
    )
