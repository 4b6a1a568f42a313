"""Files of images and masks: found, paired by name, and read without a guess."""

import dataclasses
import re
from pathlib import Path

import numpy as np

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
GRAY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L")
WHITE = 65535
EXIF_ORIENTATION = 0x0112

# kind of problem: (the rule, the fix)
PROBLEMS = {
    "unreadable": (
        "Files should be whole images of a format that Pillow reads.",
        "Fetch or export the file again, as PNG for example.",
    ),
    "frames": (
        "A file should hold one image.",
        "Export each page of the stack as a file of its own.",
    ),
    "depth": (
        "Images should have 8 or 16 bits a channel.",
        "Scale the pixels to [0, 255] and save them as 8-bit PNG.",
    ),
    "bright": (
        "16-bit pixels should be at most `white`, the value that becomes 255.",
        "Pass a larger `white`.",
    ),
    "lossy": (
        "Masks should be stored without loss, or labels appear that nobody drew.",
        "Export the masks again as PNG; renaming or converting the JPEG does not help.",
    ),
    "alpha": (
        "Masks should be opaque.",
        "Remove the transparency and save the masks again.",
    ),
    "rgb": (
        "The pixels of a mask should be class numbers; this one has colours.",
        "Pass the colour table, `colors={(red, green, blue): class, ...}`.",
    ),
    "gray as rgb": (
        "A mask should have one channel; this one has three equal ones.",
        "Save it as gray: `Image.open(path).convert('L').save(path)`; or pass `colors=`.",
    ),
    "fraction": (
        "The pixels of a mask should be integers.",
        "Save the class numbers as 8-bit PNG.",
    ),
    "unknown color": (
        "Every colour of a mask should be in the table `colors`.",
        "Add the colours to the table; soft edges mean that the mask was resized or smoothed: "
        "export it again with nearest-neighbour scaling.",
    ),
    "unknown value": (
        "Every value of a mask should be in the mapping `values`.",
        "Add the values to the mapping.",
    ),
    "size": (
        "A mask should have the size of its image.",
        "Export the mask at the image's size, or resize it with nearest-neighbour scaling.",
    ),
}


class FileError(ValueError):
    """A file that breaks a rule; `kind` is a key of `PROBLEMS`."""

    def __init__(self, kind, path, what):
        rule, fix = PROBLEMS[kind]
        super().__init__(f"{rule} Received: '{path}', {what}. {fix}")
        self.kind, self.path, self.what = kind, Path(path), what


@dataclasses.dataclass(frozen=True)
class Listing:
    """The files of a folder of images and one of masks, by stem, in order of name."""

    pairs: list  # of (image path, mask path)
    images_alone: list
    masks_alone: list
    duplicates: list  # of lists of paths in one folder with one stem


def list_files(images, masks):
    """List the images and masks of two folders, paired by stem.

    Args:
        images: folder of the images.
        masks: folder of the masks; `0001.jpg` belongs to `0001.png`.

    Returns:
        `Listing`. Numbers in names count as numbers: 2 comes before 10.

    Raises:
        NotADirectoryError: when a folder does not exist.
    """
    images, image_duplicates = _by_stem(images)
    masks, mask_duplicates = _by_stem(masks)
    return Listing(
        pairs=[(images[stem], masks[stem]) for stem in images if stem in masks],
        images_alone=[path for stem, path in images.items() if stem not in masks],
        masks_alone=[path for stem, path in masks.items() if stem not in images],
        duplicates=image_duplicates + mask_duplicates,
    )


def read_pair(image_path, mask_path, channels=None, colors=None, values=None, white=WHITE):
    """Read an image and its mask.

    An image whose EXIF tag turns it is turned upright, unless its mask has the
    size of the image as stored and not of the image upright: then the mask was
    drawn on the image as stored.

    Args:
        image_path: file of the image: bilevel, gray, palette, RGB or CMYK, 8 or 16
            bits a channel.
        mask_path: file of the mask; see `read_mask`.
        channels: 1 for gray, 3 for RGB; by default what the file has.
        colors, values: as in `read_mask`.
        white: the value of 16-bit gray pixels that becomes 255, for example 4095
            for a 12-bit camera; smaller values become proportional ones.

    Returns:
        uint8 array `(height, width, channels)` and int32 array `(height, width)`.

    Raises:
        FileError: a `ValueError`, when a file breaks a rule of `PROBLEMS`.
    """
    labels = read_mask(mask_path, colors, values)
    image = read_image(image_path, channels, white, labels.shape)
    if image.shape[:2] != labels.shape:
        raise FileError("size", mask_path, f"{_size(labels)} for an image of {_size(image)}")
    return image, labels


def read_image(path, channels=None, white=WHITE, mask_shape=None):
    """Read an image.

    Args:
        path, channels, white: as in `read_pair`.
        mask_shape: `(height, width)` of its mask, which decides whether an EXIF tag
            is heeded; by default it is.

    Returns:
        uint8 array `(height, width, channels)`.

    Raises:
        FileError: a `ValueError`, when the file breaks a rule of `PROBLEMS`.
    """
    with _open(path) as picture:
        stored = upright = (picture.height, picture.width)
        if picture.getexif().get(EXIF_ORIENTATION, 1) > 4:  # 5 to 8 swap width and height
            upright = stored[::-1]
        turn = upright == mask_shape or stored != mask_shape
        return _pixels(picture, path, channels, white, turn)


def read_mask(path, colors=None, values=None):
    """Read a mask as a label map.

    Palette files are read as their indices, never as their colours, unless
    `colors` is given.

    Args:
        path: file of the mask, in a lossless format.
        colors: the colour of each class, for masks that show classes as colours:
            a mapping `{(red, green, blue): label}`, or an array `(num_classes, 3)`.
        values: the label of each value, for example `{0: 0, 255: 1}`.

    Returns:
        int32 array `(height, width)`.

    Raises:
        FileError: a `ValueError`, when the file breaks a rule of `PROBLEMS`.

    Example:

    >>> read_mask("mask.png", values={0: 0, 255: 1})  # doctest: +SKIP
    """
    with _open(path) as picture:
        if picture.format in ("JPEG", "MPO") or _is_lossy_webp(picture):
            raise FileError("lossy", path, f"a {picture.format} file")
        labels = _decode(picture, path, colors)
    if values is not None:
        labels = _look_up(labels, values, path, "unknown value", str)
    return labels.astype("int32")


def check_colors(colors):
    """Return `colors` as a mapping `{(red, green, blue): label}`."""
    table = colors
    if not hasattr(colors, "items"):
        table = {tuple(color): label for label, color in enumerate(np.asarray(colors).tolist())}
    valid = all(
        isinstance(color, tuple)
        and len(color) == 3
        and all(isinstance(value, (int, np.integer)) and 0 <= value <= 255 for value in color)
        for color in table
    )
    if not valid or not table:
        raise ValueError(
            "`colors` should be a mapping {(red, green, blue): label} or an array (num_classes, "
            f"3), of integers in [0, 255]. Received: colors={colors!r}"
        )
    if not hasattr(colors, "items") and len(table) < len(colors):
        raise ValueError(f"Each class should have another colour. Received: colors={colors!r}")
    return {tuple(map(int, color)): int(label) for color, label in table.items()}


def natural_order(path):
    """Return a sort key that puts `2.png` before `10.png`."""
    parts = re.split(r"(\d+)", Path(path).stem)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], Path(path).name


def _by_stem(folder):
    """Return {stem: path} and the lists of paths that share a stem."""
    folder = Path(folder)
    if not folder.is_dir():
        raise NotADirectoryError(f"There is no folder '{folder}'.")
    by_stem = {}
    for path in sorted(folder.iterdir(), key=natural_order):
        if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
            by_stem.setdefault(path.stem, []).append(path)
    duplicates = [paths for paths in by_stem.values() if len(paths) > 1]
    return {stem: paths[0] for stem, paths in by_stem.items()}, duplicates


def _open(path):
    from PIL import Image

    try:
        picture = Image.open(path)
        picture.load()
    except FileNotFoundError:
        raise
    except Exception as error:  # the decoders of Pillow raise errors of many types
        raise FileError("unreadable", path, str(error)) from error
    if getattr(picture, "n_frames", 1) > 1 and picture.format != "MPO":
        raise FileError("frames", path, f"{picture.n_frames} images")
    return picture


def _pixels(picture, path, channels, white, turn):
    """Return the pixels as uint8 (height, width, channels)."""
    from PIL import Image, ImageOps

    if picture.mode == "F":
        raise FileError("depth", path, "pixels of mode 'F'")
    if picture.mode.startswith("I"):
        pixels = np.asarray(picture)
        if pixels.min() < 0 or pixels.max() > white:
            raise FileError("bright", path, f"a pixel of {pixels.max()} and white={white}")
        scaled = (pixels.astype("float32") * (255 / white)).round().astype("uint8")
        exif = picture.getexif()
        picture = Image.fromarray(scaled)
        picture.getexif().update(exif)
    if turn:
        picture = ImageOps.exif_transpose(picture)
    if channels is None:
        channels = 1 if picture.mode in GRAY_MODES else 3
    pixels = np.asarray(picture.convert({1: "L", 3: "RGB"}[channels]))
    return pixels.reshape(*pixels.shape[:2], channels)


def _decode(picture, path, colors):
    """Return the values of a mask, or with `colors` the labels of its colours."""
    picture = _without_alpha(picture, path, keep_palette=colors is None)
    if colors is not None:
        red, green, blue = np.moveaxis(np.asarray(picture.convert("RGB"), "int32"), 2, 0)
        codes = {_code(*color): label for color, label in check_colors(colors).items()}
        return _look_up(_code(red, green, blue), codes, path, "unknown color", _color_name)
    if picture.mode == "F":
        values = np.asarray(picture)
        raise FileError("fraction", path, f"floats in [{values.min()}, {values.max()}]")
    if picture.mode not in (*GRAY_MODES, "P"):
        pixels = np.asarray(picture.convert("RGB"))
        gray = (pixels == pixels[..., :1]).all()
        count = len(np.unique(pixels.reshape(-1, 3), axis=0))
        what = f"a file of mode {picture.mode} with {count} colours"
        raise FileError("gray as rgb" if gray else "rgb", path, what)
    return np.asarray(picture).astype("int64")


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


def _is_lossy_webp(picture):
    """Whether a WebP file holds a VP8 (lossy) rather than a VP8L (lossless) image."""
    if picture.format != "WEBP":
        return False
    with Path(picture.filename).open("rb") as file:
        return b"VP8 " in file.read(64)


def _size(array):
    """Return the size as people write it, width first."""
    return f"{array.shape[1]} x {array.shape[0]}"
