"""Pictures from the browser, within limits, and the samples that come with other packages."""

import base64
import binascii
import importlib.util
import io
from pathlib import Path

from PIL import Image

from keras_fcn.atomic import temporary_folder
from keras_fcn.datasets.doubts import TRANSPARENT, dark_question, is_see_through
from keras_fcn.datasets.images import (
    read_raster,
    to_image,
)

# name on the page: (package, file inside it); these need no download
SAMPLES = {
    "palace (scikit-learn)": ("sklearn", "datasets/images/china.jpg"),
    "flower (scikit-learn)": ("sklearn", "datasets/images/flower.jpg"),
    "astronaut (scikit-image)": ("skimage", "data/astronaut.png"),
    "cat (scikit-image)": ("skimage", "data/chelsea.png"),
    "coffee (scikit-image)": ("skimage", "data/coffee.png"),
    "rocket (scikit-image)": ("skimage", "data/rocket.jpg"),
    "cell (scikit-image)": ("skimage", "data/cell.png"),
    "stained cells (scikit-image)": ("skimage", "data/ihc.png"),
    "retina (scikit-image)": ("skimage", "data/retina.jpg"),
    "coins (scikit-image)": ("skimage", "data/coins.png"),
}
JPEG_SIDE = 65_500  # pixels that a JPEG file can have
JPEG = {"format": "JPEG", "quality": 95, "subsampling": 0}
PNG = {"format": "PNG"}


def read_picture(picture, limits, channels=3):
    """Decode a picture.

    Args:
        picture: as of `open_picture`, and `white`, the value that becomes 255 in a picture
            of more than 8 bits; None for what the file says.
        limits: `Limits`.
        channels: 1 for gray, 3 for RGB.

    Returns:
        uint8 array `(height, width, channels)`, upright.

    Raises:
        ValueError: without a picture, for one beyond the limits, or a file that is no
            image; it says what came, and what to do.
    """
    return image_of(picture, open_picture(picture, limits, channels), channels)


def image_of(picture, raster, channels=3):
    """Return what `read_picture` does of a raster that `open_picture` gave."""
    return to_image(raster, _name(picture), channels, picture.get("white"))


def remarks(picture, raster):
    """Return what the reader should know of a picture: a list of messages."""
    dark = dark_question(raster) if picture.get("white") is None else None
    return [*filter(None, [dark]), *([TRANSPARENT] if is_see_through(raster) else [])]


def is_deep(raster):
    """Return whether a picture has more than 8 bits, so that it matters what is white."""
    return raster.pixels.dtype.itemsize > 1


def open_picture(picture, limits, channels=3):
    """Read a picture's pixels, after a check of its bytes and of the pixels its header tells.

    Args:
        picture: dict of `name`, `size` in bytes, and `data`, the file in base64; None when
            the file was too large to be sent.
        limits: `Limits`.
        channels: 1 for gray, 3 for RGB.

    Returns:
        `keras_fcn.datasets.rasters.Raster`.

    Raises:
        ValueError: as `read_picture`.
    """
    if not picture:
        raise ValueError("There is no picture yet. Drop one, or choose a sample.")
    name = _name(picture)
    data = picture.get("data") or ""
    limits.check_bytes(name, max(int(picture.get("size") or 0), len(data) * 3 // 4 - 2))
    try:
        content = base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise ValueError(
            f"A picture should be sent as base64. Received: {name}: {error}."
        ) from error
    try:
        with Image.open(io.BytesIO(content)) as header:  # reads no pixels
            width, height = header.size
    except Image.DecompressionBombError as error:
        raise limits.too_many_pixels(name, f"more than Pillow opens: {error}") from error
    except Exception as error:  # Pillow's decoders raise errors of many types
        raise ValueError(
            f"The file should be a picture, such as JPEG, PNG, TIFF or WebP. Received: {name}, "
            f"with {len(content):,} bytes, which Pillow does not recognise. Open it in "
            "a picture viewer and export it as PNG."
        ) from error
    if width * height > limits.pixels:
        raise limits.too_many_pixels(name, f"{width} x {height} = {width * height:,}")
    if max(width, height) > JPEG_SIDE:
        raise ValueError(
            f"A picture should be at most {JPEG_SIDE} pixels long, which a JPEG file can be. "
            f"Received: {name}, with {width} x {height} pixels. Cut a part out of it."
        )
    return _decode(content, name, limits, channels)


def _name(picture):
    return Path(str(picture.get("name", ""))).name or "picture"


def _decode(content, name, limits, channels):
    """Read the pixels by way of a file that is gone before this returns."""
    with temporary_folder() as folder:
        path = folder / name
        path.write_bytes(content)
        try:
            return read_raster(path, limits.pixels, channels)
        except ValueError as error:
            raise ValueError(str(error).replace(str(path), name)) from error


def samples():
    """Return {name: path} of the sample pictures whose packages are installed."""
    found = {}
    for name, (package, file) in SAMPLES.items():
        spec = importlib.util.find_spec(package)
        if spec and (path := Path(spec.submodule_search_locations[0], file)).is_file():
            found[name] = path
    return found


def sample_picture(name):
    """Return a sample as the browser would send it."""
    path = samples()[name]
    content = path.read_bytes()
    return {
        "name": path.name,
        "size": len(content),
        "data": base64.b64encode(content).decode(),
    }


def with_white(picture, white):
    """Return a picture as the browser sent it, with the value that is white in it."""
    return None if picture is None else {**picture, "white": white or None}


def data_url(picture, form=JPEG):
    """Return a Pillow image, or an array `(height, width, 1 or 3)`, as a `data:` URL."""
    if not isinstance(picture, Image.Image):
        picture = Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture)
    buffer = io.BytesIO()
    picture.save(buffer, **form)
    kind = form["format"].lower()
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
