"""Files of images and masks: found, paired by name, and read as pairs."""

import dataclasses
import re
from pathlib import Path

import numpy as np

from keras_fcn.datasets.images import WHITE, read_image
from keras_fcn.datasets.masks import check_colors, read_labels, read_mask, size_text
from keras_fcn.datasets.problems import PROBLEMS, FileError

__all__ = [
    "PROBLEMS",
    "SUFFIXES",
    "WHITE",
    "FileError",
    "Listing",
    "check_colors",
    "list_files",
    "natural_order",
    "read_image",
    "read_mask",
    "read_pair",
]

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".npy", ".png", ".tif", ".tiff", ".webp")
# of images and arrays that are not read, so that somebody is told
OTHER_SUFFIXES = (
    ".avif", ".dcm", ".exr", ".heic", ".heif", ".jp2", ".mat", ".nii", ".npz", ".pbm", ".pgm",
    ".pnm", ".ppm", ".tga",
)  # fmt: skip
# what a mask may be called besides its image
MASK_SUFFIX = re.compile(
    r"[ ._-]?(masks?|labels?|labelids|seg|segmentation|gt|ground_?truth|annotations?|annot)$|_l$",
    re.IGNORECASE,
)
NUMBER = re.compile(r"[ ._-]?\d+$")  # of one of several masks


@dataclasses.dataclass(frozen=True)
class Listing:
    """The files of a folder of images and one of masks, by stem, in order of name."""

    pairs: list  # of (image path, mask path), or of (image path, paths of its masks)
    images_alone: list
    masks_alone: list
    duplicates: list  # of lists of paths in one folder with one stem
    mask_suffixes: tuple = ()  # that masks have in their names, and their images have not
    others: tuple = ()  # paths of `OTHER_SUFFIXES`
    splits: dict = dataclasses.field(default_factory=dict)  # {image path: its split}, of several


def list_files(images, masks, mask_suffix: str | None = None) -> Listing:
    """List the images and masks of two folders, paired by stem.

    Args:
        images: folder of the images.
        masks: folder of the masks, which may be the same; `0001.png` belongs to
            `0001.jpg`. Where no mask has the name of an image, `0001_mask.png` and the
            like do, as `MASK_SUFFIX` says, and `0001_mask_0.png`, `0001_mask_1.png`
            are the masks of the objects of an image.
        mask_suffix: what the masks have in their names besides those of the images,
            for example "_manual"; by default as above.

    Returns:
        `Listing`. Numbers in names count as numbers: 2 comes before 10.

    Raises:
        NotADirectoryError: when a folder does not exist.
    """
    together = Path(images).resolve() == Path(masks).resolve()
    found = {path for folder in (images, masks) for path in Path(folder).glob("*")}
    images, image_duplicates = _by_stem(images)
    masks, mask_duplicates = (images, []) if together else _by_stem(masks)
    names = _image_names(images, masks, mask_suffix, together)
    if together:
        masks = {stem: masks[stem] for stem in names}
        images = {stem: path for stem, path in images.items() if stem not in names}
    by_image: dict[str, list] = {}
    for stem, name in names.items():
        by_image.setdefault(name, []).append(masks[stem])
    several = any(len(paths) > 1 for paths in by_image.values())
    suffixes = {stem.removeprefix(name) for stem, name in names.items()} - {""}
    return Listing(
        pairs=[
            (images[stem], tuple(by_image[stem]) if several else by_image[stem][0])
            for stem in images
            if stem in by_image
        ],
        images_alone=[path for stem, path in images.items() if stem not in by_image],
        masks_alone=[path for stem, path in masks.items() if stem not in names],
        duplicates=image_duplicates + mask_duplicates,
        mask_suffixes=tuple(sorted(suffixes, key=natural_order)),
        others=tuple(sorted(filter(is_other, found))),
    )


def is_other(path) -> bool:
    """Return whether a file holds an image or an array, and is not read."""
    return path.suffix.lower() in OTHER_SUFFIXES and not path.name.startswith(".")


def read_pair(
    image_path,
    mask_path,
    channels: int | None = None,
    colors=None,
    values=None,
    white: float | None = None,
    instances: str | None = None,
    max_pixels: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Read an image and its mask.

    An image whose EXIF tag turns it is turned upright, unless its mask has the
    size of the image as stored and not of the image upright: then the mask was
    drawn on the image as stored.

    Args:
        image_path, channels, white, max_pixels: as in
            `keras_fcn.datasets.images.read_image`.
        mask_path, colors, values, instances: as in
            `keras_fcn.datasets.masks.read_labels`.

    Returns:
        uint8 array `(height, width, channels)` and int32 array `(height, width)`.

    Raises:
        FileError: a `ValueError`, when a file breaks a rule of `PROBLEMS`.
        FileNotFoundError: when a file does not exist.
    """
    labels = read_labels(mask_path, colors, values, instances, max_pixels)
    image = read_image(image_path, channels, white, labels.shape, max_pixels)
    if image.shape[:2] != labels.shape:
        what = f"{size_text(labels)} for an image of {size_text(image)}"
        raise FileError("size", first_path(mask_path), what)
    return image, labels


def first_path(paths):
    """Return the path of a mask, the first where an image has several."""
    return paths[0] if isinstance(paths, tuple) else paths


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


def _image_names(images, masks, mask_suffix, together):
    """Return {stem of a mask: stem of its image}."""
    if not together and mask_suffix is None and any(stem in images for stem in masks):
        return {stem: stem for stem in masks if stem in images}
    names = {}
    for stem in masks:
        choices = _shortened(stem, mask_suffix, numbers_alone=not together)
        found = [name for name in choices if name in images and name != stem]
        if found:
            names[stem] = found[0]
    return names


def _shortened(stem, mask_suffix, numbers_alone):
    """Return what an image may be called whose mask has this stem, the likeliest first."""

    def without(text):
        if mask_suffix is None:
            return MASK_SUFFIX.sub("", text)
        return text.removesuffix(mask_suffix) if text.endswith(mask_suffix) else ""

    single = NUMBER.sub("", stem)
    return [without(stem), without(single), *([single] if numbers_alone else [])]
