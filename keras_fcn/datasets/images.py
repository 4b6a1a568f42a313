"""One reader of images: for prediction, evaluation and training alike."""

import contextlib
import dataclasses
import math
import threading
import warnings
from pathlib import Path

import numpy as np

from keras_fcn.arguments import check_reading
from keras_fcn.datasets.axes import BANDS, bands_last, tiff_bands
from keras_fcn.datasets.doubts import TRANSPARENT, WHITE, dark_question
from keras_fcn.datasets.orientation import INVERSE, as_mask, turned
from keras_fcn.datasets.problems import FileError, check_file, reading
from keras_fcn.datasets.rasters import ONE_BAND, Raster, of_page, of_picture, with_white
from keras_fcn.datasets.tiffs import (
    TIFF,
    has_alpha,
    image_pages,
    image_series,
    is_for_pillow,
    open_tiff,
    orientation_of,
    pixels_of,
    white_is_high,
)
from keras_fcn.remedies import spell

PNG = b"\x89PNG"
NPY = b"\x93NUMPY"

_pillow_limit = threading.Lock()  # it is a global


def read_image(
    path,
    channels: int | None = None,
    white: float | None = None,
    mask_shape: tuple | None = None,
    max_pixels: int | None = None,
) -> np.ndarray:
    """Read an image, as PNG, JPEG, TIFF, BMP, WebP, GIF or NumPy's `.npy`.

    Args:
        path: file of the image: bilevel, gray, palette, RGB, CMYK or of other bands, 8
            or 16 bits a channel, or floats.
        channels: 1 for gray, 3 for RGB, or the number of bands; by default what the
            file has, without transparency. RGB becomes gray and gray RGB; other
            numbers must be those of the file.
        white: the value of pixels of more than 8 bits, or of floats, that becomes 255,
            for example 4095 for a 12-bit camera; smaller values become proportional
            ones. By default what a TIFF says (`MaxSampleValue`, ImageJ's range or
            OME's significant bits, where they are those of 8 to 16 whole bits), else
            65535, of signed integers of 16 bits 32767; floats need it.
        mask_shape: `(height, width)` of its mask, which decides whether an EXIF tag
            is heeded; by default it is.
        max_pixels: the most pixels that an image may have, of up to 16 bands each; by
            default twice Pillow's `Image.MAX_IMAGE_PIXELS`, about 179 million.

    Returns:
        uint8 array `(height, width, channels)`.

    Raises:
        FileError: a `ValueError`, when the file breaks a rule of
            `keras_fcn.datasets.problems.PROBLEMS`.
        FileNotFoundError: when there is no such file.

    Warns:
        UserWarning: when 16-bit pixels use at most 14 bits and nothing says which
            value is white; when transparency is dropped.

    Example:

    >>> read_image("photo.jpg", channels=3).shape  # doctest: +SKIP
    (427, 640, 3)
    """
    check_reading(white, max_pixels, channels)
    raster = read_raster(path, max_pixels, channels)
    if white is None and (question := dark_question(raster)):
        warnings.warn(question, stacklevel=1)  # once for all files
    return to_image(raster, path, channels, white, mask_shape)


def to_image(
    raster: Raster,
    path,
    channels: int | None = None,
    white: float | None = None,
    mask_shape: tuple | None = None,
) -> np.ndarray:
    """Return the image that `read_image` gives of a raster."""
    with reading(path):
        pixels = _to_bytes(raster, path, white)
        pixels = as_mask(pixels, raster.orientation, mask_shape)
        return _fit(pixels, raster.alpha, channels, path)


def read_raster(
    path, max_pixels: int | None = None, channels: int | None = None, shown: bool = True
) -> Raster:
    """Read the pixels of a file as they are stored.

    Args:
        path, max_pixels: as in `read_image`.
        channels: the number of bands, where the file does not say which axis they are.
        shown: whether white is the largest number, also of a TIFF in which it is 0.

    Raises:
        FileError, FileNotFoundError: as `read_image`.
    """
    check_file(path)
    with Path(path).open("rb") as file:
        head = file.read(26)
    with reading(path):
        if head.startswith(NPY):
            return _read_npy(path, max_pixels, channels)
        if head.startswith(TIFF):
            return _read_tiff(path, max_pixels, channels, shown)
        raster = _read_pillow(path, max_pixels)
        if head.startswith(PNG) and head[24] == 16 and head[25] != 0:  # 16 bits, not gray
            return _read_deep_png(path, raster)
        return raster


def count_bands(path, max_pixels: int | None = None) -> int:
    """Return the bands of a file, without transparency; reads its header only.

    Raises:
        FileError, FileNotFoundError: as `read_image`.
    """
    check_file(path)
    with Path(path).open("rb") as file:
        head = file.read(4)
    with reading(path):
        if NPY.startswith(head):
            return _read_npy(path, max_pixels, None).pixels.shape[-1]
        if head in TIFF:
            with open_tiff(path) as file:
                if not is_for_pillow(file, file.pages[0], None):
                    shape = _series_shape(file.series[0], path, None)
                    check_count(shape, path, max_pixels)
                    return shape[-1] - has_alpha(file.pages[0])
        with open_header(path, max_pixels) as picture:
            return 1 if picture.mode in (*ONE_BAND, "1", "LA", "La") else 3


def _read_npy(path, max_pixels, channels):
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.ndim not in (2, 3) or array.dtype.kind not in "biuf" or array.size == 0:
        what = f"an array of shape {array.shape} and type {array.dtype}"
        raise FileError("unreadable", path, what, "Save numbers as (height, width, bands).")
    pixels = array[..., None] if array.ndim == 2 else bands_last(array, path, channels)
    check_count(pixels.shape, path, max_pixels)
    return Raster(np.asarray(pixels))


def _read_tiff(path, max_pixels, channels, shown):
    with open_tiff(path) as file:
        page = file.pages[0]
        if is_for_pillow(file, page, channels):
            raster = with_white(_read_pillow(path, max_pixels), file, page)
            # Pillow has turned it already
            orientation = orientation_of(page)
            pixels = turned(raster.pixels, INVERSE.get(orientation, orientation))
            return dataclasses.replace(raster, pixels=pixels, orientation=orientation)
        series, *others = image_series(file)
        if others:
            raise FileError("frames", path, f"{len(image_pages(file))} images")
        check_count(_series_shape(series, path, channels), path, max_pixels)
        pixels = tiff_bands(pixels_of(series, path), series.axes, path, channels)
        return of_page(white_is_high(page, pixels) if shown else pixels, file, page)


def _series_shape(series, path, channels):
    """Return (height, width, bands) of a series of tifffile that is not read yet."""
    unread = np.empty(series.shape, "uint8")  # of what is not touched no memory is used
    return tiff_bands(unread, series.axes, path, channels).shape


def _read_pillow(path, max_pixels):
    return of_picture(open_picture(path, max_pixels))


def open_picture(path, max_pixels: int | None = None):
    """Return the loaded picture of Pillow; `max_pixels` replaces Pillow's limit.

    Raises:
        FileError: when it has more pixels, or several frames.
    """
    with open_header(path, max_pixels) as picture:  # closes the file; the pixels stay
        load_pixels(picture)
        if (count := count_images(picture, path)) > 1:
            raise FileError("frames", path, f"{count} images")
    return picture


def count_images(picture, path) -> int:
    """Return how many images the file of a picture of Pillow holds."""
    if picture.format == "TIFF":
        with reading(path), open_tiff(path) as file:
            return len(image_pages(file))
    return 1 if picture.format == "MPO" else getattr(picture, "n_frames", 1)


def open_header(path, max_pixels: int | None = None):
    """Return the picture of Pillow, not yet loaded.

    Raises:
        FileError: when it has too many pixels.
    """
    from PIL import Image

    try:
        picture = Image.open(path)
    except Image.DecompressionBombError:
        with _without_limit():
            picture = Image.open(path)
    if picture.format == "TIFF":
        # else Pillow maps the file, and scrambles pixels that a tag turns by a quarter
        picture.filename = ""
    try:
        if picture.format == "EPS":  # a program, which Pillow has Ghostscript run
            raise FileError("unreadable", path, "PostScript", "Export it as PNG.")
        check_count((picture.height, picture.width), path, max_pixels)
    except FileError:
        picture.close()
        raise
    return picture


def load_pixels(picture) -> None:
    """Load a picture of Pillow whose number of pixels is checked; of a TIFF it checks again."""
    from PIL import Image

    limit = Image.MAX_IMAGE_PIXELS
    is_large = limit is not None and picture.height * picture.width > 2 * limit
    with _without_limit() if is_large else contextlib.nullcontext():
        picture.load()


@contextlib.contextmanager
def _without_limit():
    """Let Pillow take pictures of any size, within the block."""
    from PIL import Image

    with _pillow_limit:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def check_count(shape: tuple, path, max_pixels: int | None) -> None:
    """Raise `FileError` for more pixels than are to be read.

    Args:
        shape: `(height, width)` or `(height, width, bands)`. So many bands that they would fill
            the memory count as pixels: 16 of them as one.
        path, max_pixels: as in `read_image`.
    """
    from PIL import Image

    count = max(math.prod(shape[:2]), math.prod(shape) // BANDS)
    limit = max_pixels or 2 * (Image.MAX_IMAGE_PIXELS or 2**62)  # where Pillow refuses, too
    if count > limit:
        fix = (
            f"If the file is what it should be, raise the limit: {spell('max_pixels', int(count))}."
        )
        raise FileError("large", path, f"{count:,} pixels, and a limit of {limit:,}", fix)


def _read_deep_png(path, raster):
    """Return all 16 bits of a coloured or transparent PNG, of which Pillow keeps 8."""
    import tensorflow as tf

    pixels = tf.io.decode_png(Path(path).read_bytes(), dtype=tf.uint16).numpy()
    return Raster(pixels, pixels.shape[-1] in (2, 4), orientation=raster.orientation)


def _to_bytes(raster, path, white):
    """Return the pixels as uint8, of which `white` becomes 255."""
    pixels = raster.pixels
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == bool:
        return pixels * np.uint8(255)
    if raster.alpha:
        colors = _to_bytes(
            dataclasses.replace(raster, pixels=pixels[..., :-1], alpha=False), path, white
        )
        opaque = 1 if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype).max
        alpha = np.nan_to_num(pixels[..., -1:] / opaque * 255).clip(0, 255).astype("uint8")
        return np.concatenate([colors, alpha], -1)
    low, high = pixels.min(), pixels.max()
    if not np.isfinite([low, high]).all():
        raise FileError("not finite", path, "NaN or infinite pixels")
    if low < 0:
        raise FileError("negative", path, f"pixels down to {low}")
    if white is None and pixels.dtype.kind == "f":
        example = spell(
            "white", next((value for value in (1, 255) if high <= value), math.ceil(high))
        )
        fix = f"Pass the value that becomes 255, as {example}."
        raise FileError("floats", path, f"floats in [{low:g}, {high:g}]", fix)
    if white is None:
        white = raster.white or min(WHITE, np.iinfo(pixels.dtype).max)
    if high > white:
        fix = f"Pass a larger {spell('white')}, as {spell('white', math.ceil(high))}."
        raise FileError("bright", path, f"a pixel of {high:g} and white={white:g}", fix)
    return (pixels.astype("float32") * np.float32(255 / white)).round().astype("uint8")


def _fit(pixels, alpha, channels, path):
    """Return the pixels with the channels that are wanted."""
    from PIL import Image

    bands = pixels.shape[-1]
    if alpha and channels != bands:
        if (pixels[..., -1] < 255).any():
            warnings.warn(TRANSPARENT, stacklevel=1)
        pixels, bands = pixels[..., :-1], bands - 1
    if channels in (None, bands):
        return np.ascontiguousarray(pixels)
    if (bands, channels) == (1, 3):
        return np.repeat(pixels, 3, axis=-1)
    if (bands, channels) == (3, 1):
        return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).convert("L"))[..., None]
    raise FileError("bands", path, f"{bands} bands, where {channels} are wanted")
