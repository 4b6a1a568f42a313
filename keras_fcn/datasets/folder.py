"""Folders of images and masks as a source of `load`."""

import dataclasses
import re
from pathlib import Path

import numpy as np

from keras_fcn.arguments import suggest
from keras_fcn.datasets.check import check_sample
from keras_fcn.datasets.files import (
    GRAY_MODES,
    SUFFIXES,
    WHITE,
    Listing,
    list_files,
    natural_order,
    read_pair,
)

IMAGES = ("images", "image", "imgs", "img", "JPEGImages")
MASKS = ("masks", "mask", "labels", "label", "annotations", "annotation", "SegmentationClass")
SLICE = re.compile(r"(?P<name>[\w-]+)(\[(?P<start>-?\d+%?)?:(?P<stop>-?\d+%?)?\])?")

LAYOUTS = """
    images/0001.jpg        masks/0001.png         split "all"
    images/train/0001.jpg  masks/train/0001.png   a split for each subfolder
    train/images/0001.jpg  train/masks/0001.png   a split for each subfolder
    train/0001.png         trainannot/0001.png    as CamVid: train, val, test"""


def find_pairs(source, split, split_seed=None):
    """Find the images and masks of a split of a folder.

    Args:
        source: a folder of one of the `LAYOUTS`, where folders may also be named as
            in `IMAGES` and `MASKS`, or a pair of folders (images, masks).
        split: the name of a split, with or without a slice, as "train", "all[:80%]"
            or "all[10:20]"; or a file list: a list of names, or the path of a text
            file with one name a line, which may lie in the folder. Names may have
            folders and suffixes, which do not count.
        split_seed: integer; slices are taken after shuffling with it. By default they
            are taken in order of name, so that neighbours, for example frames of
            one film, stay on one side.

    Returns:
        `Listing` of the files of the split.

    Raises:
        FileNotFoundError: when the folder or a file of the list does not exist.
        ValueError: when the folder has no known layout, the split is unknown, or it
            is empty.
    """
    folders = _find_folders(source)
    if not isinstance(split, str) or split.endswith(".txt"):  # a file list
        return _select_names(_merge(folders), _read_names(source, split))
    match = SLICE.fullmatch(split)
    if match is None:
        raise ValueError(
            '`split` should be a name with or without a slice, as "train" or "all[:80%]", or a '
            f"file list. Received: split={split!r}"
        )
    name = match["name"]
    if name == "all" and "all" not in folders:
        listing = _merge(folders)
    elif name in folders:
        listing = list_files(*folders[name])
    else:
        choices = [*folders, *(["all"] if "all" not in folders else [])]
        raise ValueError(
            f"'{_name(source)}' has the splits {', '.join(map(repr, choices))}. Received: "
            f"split={split!r}.{suggest(name, choices)} A folder without splits is cut with "
            'slices, as "all[:80%]" and "all[80%:]".'
        )
    listing = _cut(listing, match["start"], match["stop"], split_seed)
    if not listing.pairs:
        _raise_empty(source, split, listing)
    return listing


def open_folder(source, split, ignore=None, colors=None, values=None, white=WHITE, split_seed=None):
    """Return the files of a split as a dataset, a function that reads them, and their number.

    Args:
        source, split, split_seed: as in `find_pairs`.
        ignore: the label of void pixels, if it is known.
        colors, values, white: as in `read_pair`.

    Returns:
        `tf.data.Dataset` of (image path, mask path), a function of these tensors
        that gives (image, label map), and an integer.
    """
    import tensorflow as tf

    listing = find_pairs(source, split, split_seed)
    pairs = listing.pairs
    check_sample(listing, ignore=ignore, colors=colors, values=values, white=white)
    channels = _count_channels(pairs)
    images, masks = (list(map(str, paths)) for paths in zip(*pairs, strict=True))

    def read(image_path, mask_path):
        image, labels = tf.numpy_function(
            lambda *paths: _read(*paths, channels, colors, values, white),
            (image_path, mask_path),
            (tf.uint8, tf.int32),
            stateful=False,
        )
        return tf.ensure_shape(image, (None, None, channels)), tf.ensure_shape(labels, (None, None))

    return tf.data.Dataset.from_tensor_slices((images, masks)), read, len(pairs)


def _read(image_path, mask_path, channels, colors, values, white):
    return read_pair(image_path.decode(), mask_path.decode(), channels, colors, values, white)


def _find_folders(source):
    """Return {split: (folder of images, folder of masks)}."""
    if isinstance(source, (tuple, list)):
        if len(source) != 2:
            raise ValueError(
                "A pair of folders should be (images, masks). Received: "
                f"{len(source)} folders, {source!r}"
            )
        return {"all": tuple(map(Path, source))}
    folder = Path(source)
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder '{folder}'.")
    pair = _images_and_masks(folder)
    if pair is not None:
        images, masks = pair
        names = [sub.name for sub in sorted(images.iterdir()) if (masks / sub.name).is_dir()]
        if not names:
            return {"all": pair}
        return {name: (images / name, masks / name) for name in names}
    subfolders = [sub for sub in sorted(folder.iterdir()) if sub.is_dir()]
    folders = {}
    for sub in subfolders:
        annotations = folder / f"{sub.name}annot"
        if annotations.is_dir():
            folders[sub.name] = (sub, annotations)
        elif _images_and_masks(sub) is not None:
            folders[sub.name] = _images_and_masks(sub)
    if not folders:
        raise ValueError(
            f"A folder of images and masks should be laid out as one of:{LAYOUTS}\nReceived: "
            f"'{folder}' with the folders {[sub.name for sub in subfolders]}. Or pass a pair of "
            "folders, (images, masks)."
        )
    return folders


def _images_and_masks(folder):
    images = [folder / name for name in IMAGES if (folder / name).is_dir()]
    masks = [folder / name for name in MASKS if (folder / name).is_dir()]
    return (images[0], masks[0]) if images and masks else None


def _merge(folders):
    """Return one listing of all splits."""
    merged = Listing([], [], [], [])
    for pair in folders.values():
        listing = list_files(*pair)
        merged.pairs.extend(listing.pairs)
        merged.images_alone.extend(listing.images_alone)
        merged.masks_alone.extend(listing.masks_alone)
        merged.duplicates.extend(listing.duplicates)
    return merged


def _cut(listing, start, stop, split_seed):
    """Return the listing with the pairs from `start` to `stop`."""
    pairs = listing.pairs
    if split_seed is not None:
        order = np.random.default_rng(split_seed).permutation(len(pairs))
        pairs = [pairs[i] for i in order]
    start, stop = (_position(text, len(pairs)) for text in (start, stop))
    return dataclasses.replace(listing, pairs=pairs[start:stop])


def _position(text, count):
    """Return a place in a list of `count`, from "10", "-10", "25%" or None."""
    if text is None or not text.endswith("%"):
        return None if text is None else int(text)
    return round(int(text[:-1]) * count / 100)


def _read_names(source, split):
    """Return the stems of a file list."""
    if isinstance(split, (str, Path)):
        path = Path(split)
        if not path.is_file() and not isinstance(source, (tuple, list)):
            path = Path(source) / split
        if not path.is_file():
            raise FileNotFoundError(f"There is no file list '{split}', also not in '{source}'.")
        split = path.read_text().split("\n")
    if not isinstance(split, (list, tuple)):
        raise ValueError(
            "`split` should be the name of a split, a list of names or the path of one. Received: "
            f"split={split!r}"
        )
    names = [str(name).strip() for name in split]
    return [Path(name).stem if _has_suffix(name) else Path(name).name for name in names if name]


def _has_suffix(name):
    return Path(name).suffix.lower() in SUFFIXES


def _select_names(listing, names):
    """Return the listing with the named files only."""
    by_stem = {}
    for image, mask in listing.pairs:
        by_stem.setdefault(image.stem, []).append((image, mask))
    missing = [name for name in names if name not in by_stem]
    if missing or not names:
        raise FileNotFoundError(
            "Every name of a file list should have an image and a mask. Received: "
            f"{len(missing)} of {len(names)} names without, {missing[:5]}"
        )
    if len(set(names)) < len(names):
        repeated = sorted({name for name in names if names.count(name) > 1}, key=natural_order)
        raise ValueError(f"A file list should name each image once. Repeated: {repeated[:5]}")
    for name in names:
        if len(by_stem[name]) > 1:
            raise ValueError(
                "Names of a file list should differ between the splits. Received: "
                f"{' and '.join(repr(str(image)) for image, _ in by_stem[name])}. Pass the folders "
                "of one split as (images, masks)."
            )
    chosen = set(names)
    duplicates = [paths for paths in listing.duplicates if paths[0].stem in chosen]
    return Listing([by_stem[name][0] for name in names], [], [], duplicates)


def _count_channels(pairs):
    """Return 1 where every image is gray, else 3; reads the headers only."""
    from PIL import Image

    for path, _ in pairs:
        with Image.open(path) as picture:
            if picture.mode not in GRAY_MODES:
                return 3
    return 1


def _raise_empty(source, split, listing):
    raise ValueError(
        "A split should have at least one image with its mask. Received: "
        f"'{_name(source)}', split={split!r}, with {len(listing.images_alone)} images and "
        f"{len(listing.masks_alone)} masks that have no partner of the same name. "
        "Name mask `0001.png` after image `0001.jpg`."
    )


def _name(source):
    return ", ".join(map(str, source)) if isinstance(source, (tuple, list)) else source
