"""Masks as label maps, and the objects that instance maps number."""

import dataclasses
from pathlib import Path

import numpy as np

from keras_fcn.arguments import check_choice, is_integer, is_number
from keras_fcn.datasets.images import (
    NPY,
    PNG,
    count_images,
    open_header,
    open_picture,
    read_raster,
)
from keras_fcn.datasets.orientation import EXIF_ORIENTATION, turned
from keras_fcn.datasets.problems import FileError, check_file, reading
from keras_fcn.datasets.tiffs import TIFF, WHITE_IS_ZERO
from keras_fcn.remedies import given, spell

GRAY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L")
BORDER = 2  # pixels: what of an object is as near to another is border
SAMPLE_FORMAT, SIGNED = 339, 2  # a TIFF tag, and what it says of signed integers
BITS = 258  # of a number
PHOTOMETRIC = 262  # a tag that says which number is white
SHOWN = 8  # colours that a message lists
INSTANCES = {"two": ("background", "object"), "border": ("background", "object", "border")}


@dataclasses.dataclass(frozen=True)
class Mask:
    """A label map, and what its file says of it besides."""

    labels: np.ndarray  # int32 (height, width)
    palette: dict | None = None  # {index: [red, green, blue]} of those in a palette file
    white_is_zero: bool = False  # as in `Raster`


def read_mask(path, colors=None, values=None, max_pixels: int | None = None) -> np.ndarray:
    """Read a mask as a label map.

    Palette files are read as their indices, never as their colours, unless
    `colors` is given. Only GIF, which numbers its colours as it likes, is read as the
    gray levels that it shows. Numbers of gray files are those that are stored, also where
    viewers show other ones: of 2 and 4 bits, and of a TIFF in which 0 is white.

    Args:
        path: file of the mask, in a lossless format.
        colors: the colour of each class, for masks that show classes as colours:
            a mapping `{(red, green, blue): label}`, or an array `(num_classes, 3)`.
        values: the label of each value, for example `{0: 0, 255: 1}`.
        max_pixels: as in `read_image`.

    Returns:
        int32 array `(height, width)`.

    Raises:
        FileError: a `ValueError`, when the file breaks a rule of
            `keras_fcn.datasets.problems.PROBLEMS`.
        FileNotFoundError: when there is no such file.

    Example:

    >>> read_mask("mask.png", values={0: 0, 255: 1})  # doctest: +SKIP
    """
    return examine_mask(path, colors, values, max_pixels).labels


def examine_mask(path, colors=None, values=None, max_pixels: int | None = None) -> Mask:
    """Read a mask as `read_mask` does, and what its file says of it besides."""
    if colors is not None:
        colors = check_colors(colors)
    if values is not None:
        check_values(values)
    check_file(path)
    with reading(path):
        mask = _read_numbers(path, max_pixels) if colors is None else None
        if mask is None:
            picture = _open_lossless(path, max_pixels)
            orientation = picture.getexif().get(EXIF_ORIENTATION, 1)  # of a TIFF Pillow heeds it
            labels = turned(_decode(picture, path, colors), orientation)
            palette = _used(palette_of(picture), labels) if colors is None else None
            mask = Mask(labels, palette, _white_is_zero(picture))
    labels = mask.labels
    if values is not None:
        labels = _look_up(labels, values, path, "unknown value", str)
    low, high = int(labels.min()), int(labels.max())
    if low < np.iinfo("int32").min or high > np.iinfo("int32").max:
        raise FileError("label range", path, f"labels from {low} to {high}")
    return dataclasses.replace(mask, labels=labels.astype("int32"))


def read_labels(
    paths, colors=None, values=None, instances: str | None = None, max_pixels: int | None = None
) -> np.ndarray:
    """Read the label map of an image.

    Args:
        paths: file of the mask; or a tuple of files, of which each shows one object.
        colors, values, max_pixels: as in `read_mask`.
        instances: None where the masks show classes; "two", "border" or "numbers"
            where they number objects; see `label_instances`.

    Returns:
        int32 array `(height, width)`.

    Raises:
        FileError: as `read_mask`; also for several masks without `instances`.
        ValueError: when `instances` is another text, or comes with `colors` or `values`.
    """
    if instances is None:
        if isinstance(paths, tuple):
            raise FileError("several masks", paths[0], f"the first of {len(paths)} masks")
        return read_mask(paths, colors, values, max_pixels)
    check_choice("instances", instances, (*INSTANCES, "numbers"))
    if not (colors is None and values is None):
        raise ValueError(
            f"Masks that number objects have neither colours nor values of classes. Received: "
            f"{spell('instances', instances)} with {spell('colors')} or {spell('values')}. Leave "
            "out one or the other."
        )
    return label_instances(read_instances(paths, max_pixels), instances)


def read_instances(paths, max_pixels: int | None = None) -> np.ndarray:
    """Read an instance map, or the masks of an image's objects, of which each shows one.

    Args:
        paths: file of the instance map, or a tuple of files, whose pixels other than 0
            are the object's.
        max_pixels: as in `read_image`.

    Returns:
        int32 array `(height, width)`: 0 background, else the number of the object.

    Raises:
        FileError: as `read_mask`; also when the masks differ in size.
    """
    if not isinstance(paths, tuple):
        return read_mask(paths, max_pixels=max_pixels)
    instance_map = np.zeros_like(read_mask(paths[0], max_pixels=max_pixels), "int32")
    for number, path in enumerate(paths, 1):
        mask = read_mask(path, max_pixels=max_pixels)
        if mask.shape != instance_map.shape:
            sizes = f"{size_text(mask)}, beside a mask of {size_text(instance_map)}"
            raise FileError("size", path, sizes)
        instance_map[mask != 0] = number
    return instance_map


def label_instances(instance_map: np.ndarray, instances: str) -> np.ndarray:
    """Return the label map of an instance map.

    Args:
        instance_map: integer array `(height, width)`: 0 background, else the number of
            the object.
        instances: "two" for 0 background and 1 object; "border" with 2 for what of
            an object is within 2 pixels of another; "numbers" for the numbers as they are.

    Returns:
        int32 array `(height, width)`.

    Example:

    >>> import numpy as np
    >>> label_instances(np.array([[0, 7, 7, 7, 8, 8, 8, 0]]), "border")
    array([[0, 1, 2, 2, 2, 2, 1, 0]], dtype=int32)
    """
    if instances == "numbers":
        return np.asarray(instance_map, "int32")
    labels = (np.asarray(instance_map) > 0).astype("int32")
    if instances == "border":
        # Of objects only: a gap is background, else it would be a false object between two.
        labels[touching(instance_map) & (labels > 0)] = 2
    return labels


def touching(instance_map: np.ndarray, distance: int = BORDER) -> np.ndarray:
    """Find the pixels near two objects at once: where objects touch or nearly do.

    Args:
        instance_map: integer array `(height, width)`: 0 background, else the number
            of the object.
        distance: how near in pixels, from 1 up; a pixel is at distance 0 from its
            own object.

    Returns:
        boolean array `(height, width)`.

    Example:

    >>> import numpy as np
    >>> touching(np.array([[1, 1, 1, 2, 2, 2]]), distance=1).astype(int)
    array([[0, 0, 1, 1, 0, 0]])
    """
    from scipy import ndimage
    from skimage.morphology import disk

    instance_map = np.asarray(instance_map)
    none = int(instance_map.max()) + 1
    window = {"footprint": disk(distance), "mode": "constant"}
    largest = ndimage.maximum_filter(instance_map, **window, cval=0)
    numbers = np.where(instance_map == 0, none, instance_map.astype("int64"))
    smallest = ndimage.minimum_filter(numbers, **window, cval=none)
    return (largest > 0) & (largest != smallest)


def check_colors(colors) -> dict:
    """Return `colors` as a mapping `{(red, green, blue): label}`."""
    table = colors
    if not hasattr(colors, "items"):
        table = {tuple(color): label for label, color in enumerate(np.asarray(colors).tolist())}
    valid = all(
        isinstance(color, tuple)
        and len(color) == 3
        and all(is_integer(value) and 0 <= value <= 255 for value in color)
        for color in table
    )
    if not valid or not table:
        raise ValueError(
            f"{spell('colors')} should be a mapping {{(red, green, blue): label}} or an array "
            f"(num_classes, 3), of integers in [0, 255]. Received: {given('colors', colors)}. "
            f"Write for example {spell('colors', {(0, 0, 0): 0, (255, 0, 0): 1})}."
        )
    if not hasattr(colors, "items") and len(table) < len(colors):
        raise ValueError(f"Each class should have another colour. Received: colors={colors!r}")
    _check_labels("colors", table)
    return {tuple(map(int, color)): int(label) for color, label in table.items()}


def check_values(values) -> None:
    """Raise unless `values` is a mapping of values to labels."""
    if not hasattr(values, "items") or not values:
        raise ValueError(
            f"{spell('values')} should be a mapping {{value: label}}. Received: values={values!r}. "
            f"Write for example {spell('values', {0: 0, 255: 1})}."
        )
    wrong = [value for value in values if not (is_number(value) and value == int(value))]
    if wrong:
        raise ValueError(
            f"{spell('values')} are of pixels that are integers. Received: {wrong[0]!r}. Write for "
            f"example {spell('values', {0: 0, 255: 1})}."
        )
    _check_labels("values", values)


def _check_labels(name, table):
    wrong = [label for label in table.values() if not is_integer(label)]
    if wrong:
        raise ValueError(
            f"The labels of {spell(name)} should be integers. Received: {wrong[0]!r}. Number the "
            "classes from 0."
        )


def read_palette(path) -> list | None:
    """Return the colours of a palette file as lists [red, green, blue]; None for other files."""
    from PIL import UnidentifiedImageError

    try:
        with open_header(path, max_pixels=2**62) as picture:
            return palette_of(picture)
    except UnidentifiedImageError:  # of `.npy`, or a TIFF that is nothing for Pillow
        return None


def palette_of(picture) -> list | None:
    """Return the colours of a picture of Pillow, whose pixels are indices; None of others."""
    if picture.mode != "P" or picture.format == "GIF":
        return None
    return np.reshape(picture.getpalette("RGB"), (-1, 3)).tolist()


def _used(palette, labels):
    """Return {index: colour} of the indices that occur; the colour is None beyond the palette."""
    if palette is None:
        return None
    return {n: palette[n] if n < len(palette) else None for n in np.unique(labels).tolist()}


def size_text(array: np.ndarray) -> str:
    """Return the size of an image or mask as people write it, width first."""
    return f"{array.shape[1]} x {array.shape[0]}"


def _read_numbers(path, max_pixels):
    """Return the `Mask` of a `.npy`, or of a TIFF that is nothing for Pillow, else None."""
    from PIL import UnidentifiedImageError

    with Path(path).open("rb") as file:
        head = file.read(len(NPY))
    if head != NPY:
        try:
            with open_header(path, max_pixels) as picture:
                tiff = head.startswith(TIFF)
                if not tiff or _is_for_pillow(picture, path):
                    return None
        except UnidentifiedImageError:
            if not head.startswith(TIFF):
                raise
    try:
        raster = read_raster(path, max_pixels, shown=False)
    except FileError as error:
        raise FileError("one-hot", path, error.what) if error.kind == "bands" else error from None
    pixels = turned(raster.pixels, raster.orientation)
    if pixels.shape[-1] > 1:
        raise FileError("one-hot", path, f"{pixels.shape[-1]} channels")
    if pixels.dtype.kind == "f":
        raise FileError("fraction", path, f"floats in [{pixels.min()}, {pixels.max()}]")
    return Mask(pixels[..., 0], white_is_zero=raster.white_is_zero)


def _white_is_zero(picture):
    """Whether 0 is white in a picture of Pillow: in a TIFF that says so, or does not say."""
    if picture.format != "TIFF":
        return False
    return picture.tag_v2.get(PHOTOMETRIC, WHITE_IS_ZERO) == WHITE_IS_ZERO


def _is_for_pillow(picture, path):
    """Whether Pillow reads the labels of a TIFF; signed ones of 8 bits it takes for unsigned."""
    signed = SIGNED in np.atleast_1d(picture.tag_v2.get(SAMPLE_FORMAT, 1))
    return picture.mode not in ("I", "F") and not signed and count_images(picture, path) == 1


def _open_lossless(path, max_pixels):
    picture = open_picture(path, max_pixels)
    if picture.format in ("JPEG", "MPO") or _is_lossy(picture):
        raise FileError("lossy", path, f"a {picture.format} file")
    if picture.mode in ("RGB", "RGBA"):
        _check_depth(path, max_pixels)
    return picture


def _check_depth(path, max_pixels):
    """Raise for colours of 16 bits that are none of 8, of which Pillow drops the lower half."""
    with Path(path).open("rb") as file:
        head = file.read(len(PNG) + 21)
    if head.startswith(TIFF) or (head.startswith(PNG) and head[24] == 16):
        pixels = read_raster(path, max_pixels).pixels
        if pixels.dtype == np.uint16 and (pixels % 257).any():
            fix = "Save the colours in 8 bits a channel."
            raise FileError("rgb", path, f"colours of 16 bits, up to {pixels.max()}", fix)


def _decode(picture, path, colors):
    """Return the values of a mask, or with `colors` the labels of its colours."""
    is_gif = picture.format == "GIF"
    is_inverted, bits = _white_is_zero(picture), _count_bits(picture, path)
    picture = _without_alpha(picture, path, keep_palette=colors is None and not is_gif)
    if is_gif and picture.mode != "L":
        pixels = np.asarray(picture.convert("RGB"))
        picture = picture.convert("L" if (pixels == pixels[..., :1]).all() else "RGB")
    if colors is not None:
        red, green, blue = np.moveaxis(np.asarray(picture.convert("RGB"), "int32"), 2, 0)
        codes = {_code(*color): label for color, label in colors.items()}
        return _look_up(_code(red, green, blue), codes, path, "unknown color", _color_name)
    if picture.mode not in (*GRAY_MODES, "P"):
        _raise_colored(picture, path)
    pixels = np.asarray(picture).astype("int64")
    if picture.mode not in ("1", "L"):  # of others Pillow gives the numbers
        return pixels
    largest = 1 if picture.mode == "1" else 255
    pixels = largest - pixels if is_inverted else pixels  # which Pillow has turned around
    return pixels * (2**bits - 1) // largest


def _count_bits(picture, path):
    """Return the bits of a gray file's numbers, which Pillow spreads over 0 to 255."""
    if picture.format == "TIFF":
        return int(np.max(picture.tag_v2.get(BITS, 1)))
    if picture.format == "PNG":
        with Path(path).open("rb") as file:
            return file.read(len(PNG) + 21)[24]
    return 1 if picture.mode == "1" else 8


def _raise_colored(picture, path):
    pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    colors = np.unique(pixels, axis=0).tolist()
    what = f"a file of mode {picture.mode} with {len(colors)} colours"
    if (pixels == pixels[:, :1]).all():
        fix = None
        if picture.format == "WEBP":
            fix = (
                "WebP has no gray: save it as PNG, `Image.open(path).convert('L')"
                ".save(path.with_suffix('.png'))`, and remove this file; or pass the label of each "
                f"colour, as {spell('colors', {(0, 0, 0): 0, (255, 255, 255): 1})}."
            )
        raise FileError("gray as rgb", path, what, fix)
    if np.max(colors) == 1:
        raise FileError("one-hot", path, f"{what}, of 0 and 1")
    fix = None
    if len(colors) <= SHOWN:
        table = spell("colors", {tuple(color): label for label, color in enumerate(colors)})
        fix = f"Pass the label of each colour, in the order of your classes, as {table}."
    raise FileError("rgb", path, what, fix)


def _without_alpha(picture, path, keep_palette):
    """Return an opaque picture without its alpha channel."""
    if picture.mode == "P" and keep_palette:
        return picture  # indices: what is transparent has a class all the same
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")
    if picture.mode in ("LA", "La", "RGBA", "RGBa", "PA"):
        if picture.getchannel("A" if picture.mode[-1] == "A" else "a").getextrema()[0] < 255:
            raise FileError("alpha", path, "a file with transparent pixels")
        return picture.convert("L" if picture.mode.startswith("L") else "RGB")
    return picture


def _look_up(values, table, path, kind, name):
    """Replace values by their labels in the table."""
    found, positions = np.unique(values, return_inverse=True)
    unknown = [value for value in found.tolist() if value not in table]
    if unknown:
        names = ", ".join(map(name, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
        raise FileError(kind, path, f"with {names} besides")
    return np.array([table[value] for value in found.tolist()])[positions].reshape(values.shape)


def _code(red, green, blue):
    return (red << 16) + (green << 8) + blue


def _color_name(code):
    return f"({code >> 16}, {code >> 8 & 255}, {code & 255})"


def _is_lossy(picture):
    """Whether a file of a format with and without loss is one with loss."""
    if picture.format == "TIFF":
        return "jpeg" in str(picture.info.get("compression"))
    if picture.format not in ("WEBP", "JPEG2000"):
        return False
    data = Path(picture.filename).read_bytes()
    if picture.format == "WEBP":
        return b"VP8 " in data[:64]  # VP8L is lossless
    style = data.find(b"\xff\x52")  # of the coding, with the wavelets at its end
    return style >= 0 and data[style + 13 : style + 14] == b"\0"  # 9-7, which round
