"""Folders of images and masks as a source of `load`."""

import dataclasses
import functools
import re
from pathlib import Path

import numpy as np

from keras_fcn.arguments import check_seed, suggest
from keras_fcn.datasets.files import SUFFIXES, Listing, list_files, natural_order
from keras_fcn.datasets.findings import Finding
from keras_fcn.remedies import choose, given, spell

IMAGES = ("images", "image", "imgs", "img", "JPEGImages")
MASKS = (
    "masks",
    "mask",
    "labels",
    "label",
    "annotations",
    "annotation",
    "SegmentationClass",
    "instances",
)
SLICE = re.compile(r"(?P<name>[\w-]+)(\[(?P<start>-?\d+%?)?:(?P<stop>-?\d+%?)?\])?")

LAYOUTS = """
    images/0001.jpg        masks/0001.png         split "all"; masks/0001_mask.png will do, too
    0001.jpg               0001_mask.png          split "all", in one folder
    images/train/0001.jpg  masks/train/0001.png   a split for each subfolder
    train/images/0001.jpg  train/masks/0001.png   a split for each subfolder
    train/0001.png         trainannot/0001.png    as CamVid: train, val, test
    0001/images/0001.jpg   0001/masks/*.png       split "all"; a mask for each object, as BBBC038"""


def find_pairs(source, split, split_seed: int | None = None, mask_suffix: str | None = None):
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
        mask_suffix: as in `keras_fcn.datasets.files.list_files`.

    Returns:
        `Listing` of the files of the split.

    Raises:
        FileNotFoundError: when the folder or a file of the list does not exist.
        ValueError: when the folder has no known layout, the split is unknown, or it
            is empty.
    """
    split_seed = check_seed("split_seed", split_seed)
    splits = find_splits(source, mask_suffix)
    if not isinstance(split, str) or split.endswith(".txt"):  # a file list
        return _select_names(_merge(splits), _read_names(source, split))
    match = SLICE.fullmatch(split)
    if match is None:
        raise ValueError(
            f"{spell('split')} should be a name with or without a slice, as 'train' or "
            f"'all[:80%]', or a file list, FILE.txt. Received: {given('split', split)}"
        )
    name = match["name"]
    if name == "all" and "all" not in splits:
        listing = _merge(splits)
    elif name in splits:
        listing = splits[name]()
    else:
        choices = [*splits, *(["all"] if "all" not in splits else [])]
        raise ValueError(
            f"'{_name(source)}' has the splits {', '.join(map(repr, choices))}. Received: "
            f"{given('split', split)}.{suggest(name, choices)} A folder without splits is cut with "
            'slices, as "all[:80%]" and "all[80%:]".'
        )
    if not listing.pairs:
        _raise_empty(source, split, listing)
    part = _cut(listing, match["start"], match["stop"], split_seed)
    if not part.pairs:
        raise ValueError(
            f"A split should have at least one image. Received: '{_name(source)}', "
            f"{given('split', split)} of the {len(listing.pairs)} images of {name!r}. Choose a "
            f"larger part, as {name!r}, or add images."
        )
    return part


def list_source(source, mask_suffix: str | None = None) -> Listing:
    """Return the files of all splits of a folder, or of a pair of folders, paired or not.

    Args:
        source, mask_suffix: as in `find_pairs`.

    Raises:
        FileNotFoundError, NotADirectoryError: when a folder does not exist.
        ValueError: when the folder has no known layout.
    """
    return _merge(find_splits(source, mask_suffix))


def find_splits(source, mask_suffix):
    """Return {split: a function that gives its `Listing`} of a folder, or of a pair of folders.

    Args:
        source, mask_suffix: as in `find_pairs`.

    Raises:
        FileNotFoundError, NotADirectoryError: when a folder does not exist.
        ValueError: when the folder has no known layout.
    """

    def pair(images, masks):
        return functools.partial(list_files, images, masks, mask_suffix)

    if isinstance(source, (tuple, list)):
        if len(source) != 2:
            raise ValueError(
                "A pair of folders should be (images, masks). Received: "
                f"{len(source)} folders, {source!r}"
            )
        return {"all": pair(*source)}
    folder = Path(source)
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder '{folder}'.")
    folders = _images_and_masks(folder)
    if folders is not None:
        images, masks = folders
        names = [sub.name for sub in sorted(images.iterdir()) if (masks / sub.name).is_dir()]
        if not names:
            return {"all": pair(*folders)}
        return {name: pair(images / name, masks / name) for name in names}
    subfolders = [sub for sub in sorted(folder.iterdir()) if sub.is_dir()]
    places = {sub.name: _where_a_split_is(sub, mask_suffix) for sub in subfolders}
    splits = {name: pair(*folders) for name, folders in places.items() if folders is not None}
    if _is_folder_for_each_image(folder, splits):
        return {"all": functools.partial(_list_image_folders, folder, list(splits))}
    if not splits and list_files(folder, folder, mask_suffix).pairs:
        return {"all": pair(folder, folder)}
    if not splits:
        raise ValueError(
            f"A folder of images and masks should be laid out as one of:{LAYOUTS}\nReceived: "
            f"'{folder}' with the folders {[sub.name for sub in subfolders]}."
            + choose(" Or pass a pair of folders, (images, masks).", "")
        )
    return splits


def _where_a_split_is(folder, mask_suffix):
    """Return the folders of images and masks of a subfolder, or None for one of other things."""
    annotations = folder.with_name(f"{folder.name}annot")
    if annotations.is_dir():
        return folder, annotations
    if (found := _images_and_masks(folder)) is not None:
        return found
    return (folder, folder) if list_files(folder, folder, mask_suffix).pairs else None


def _is_folder_for_each_image(folder, names):
    """Whether every subfolder holds one image, and some of them other than one mask of its name."""
    pairs = [_images_and_masks(folder / name) for name in names]
    if len(pairs) < 2 or None in pairs:
        return False
    listings = [list_files(*pair) for pair in pairs]
    one = all(len(item.pairs) + len(item.images_alone) == 1 for item in listings)
    return one and any(item.masks_alone for item in listings)


def _list_image_folders(folder, names):
    """Return the listing of a folder for each image, with the masks of its objects."""
    pairs, alone = [], []
    for name in sorted(names, key=natural_order):
        images, masks = _images_and_masks(folder / name)
        (image,) = _files(images)
        objects = tuple(_files(masks))
        if objects:
            pairs.append((image, objects))
        else:
            alone.append(image)
    return Listing(pairs, alone, [], [])


def _files(folder):
    found = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES]
    return sorted((path for path in found if path.name[0] != "."), key=natural_order)


def _images_and_masks(folder):
    images = [folder / name for name in IMAGES if (folder / name).is_dir()]
    masks = [folder / name for name in MASKS if (folder / name).is_dir()]
    return (images[0], masks[0]) if images and masks else None


def _merge(splits):
    """Return one listing of all splits."""
    merged = Listing([], [], [], [])
    suffixes, others = set(), []
    for name, find in splits.items():
        listing = find()
        merged.splits.update({image: name for image, _ in listing.pairs if len(splits) > 1})
        merged.pairs.extend(listing.pairs)
        merged.images_alone.extend(listing.images_alone)
        merged.masks_alone.extend(listing.masks_alone)
        merged.duplicates.extend(listing.duplicates)
        suffixes.update(listing.mask_suffixes)
        others.extend(listing.others)
    suffixes = tuple(sorted(suffixes))
    return dataclasses.replace(merged, mask_suffixes=suffixes, others=tuple(others))


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
    place = round(int(text[:-1]) * count / 100)
    return place if place or text[0] != "-" else count  # nothing from the end, and not all


def _read_names(source, split):
    """Return the stems of a file list."""
    if isinstance(split, (str, Path)):
        path = Path(split)
        if not path.is_file() and not isinstance(source, (tuple, list)):
            path = Path(source) / split
        if not path.is_file():
            raise FileNotFoundError(f"There is no file list '{split}', also not in '{source}'.")
        split = _read_text(path).split("\n")
    if not isinstance(split, (list, tuple)):
        raise ValueError(
            "`split` should be the name of a split, a list of names or the path of one. Received: "
            f"{given('split', split)}"
        )
    names = [str(name).strip() for name in split]
    return [Path(name).stem if _has_suffix(name) else Path(name).name for name in names if name]


def _read_text(path):
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"A file list should be a text in UTF-8. Received: '{path}', with other bytes, the "
            f"first at {error.start}. Save it as UTF-8."
        ) from error


def _has_suffix(name):
    return Path(name).suffix.lower() in SUFFIXES


def _select_names(listing, names):
    """Return the listing with the named files only."""
    if not names:
        raise ValueError("A file list should hold a name in a line. Received: no name.")
    by_stem = {}
    for image, mask in listing.pairs:
        by_stem.setdefault(image.stem, []).append((image, mask))
    missing = [name for name in names if name not in by_stem]
    if missing:
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
                f"{' and '.join(repr(str(image)) for image, _ in by_stem[name])}. Rename one of "
                "them and its mask."
            )
    chosen = set(names)
    duplicates = [paths for paths in listing.duplicates if paths[0].stem in chosen]
    pairs = [by_stem[name][0] for name in names]
    return Listing(pairs, [], [], duplicates, listing.mask_suffixes)


def _raise_empty(source, split, listing):
    if listing.others:
        raise ValueError(str(Finding("other kinds", tuple(map(str, listing.others)))))
    raise ValueError(
        "A split should have at least one image with its mask. Received: "
        f"'{_name(source)}', {given('split', split)}, with {len(listing.images_alone)} images and "
        f"{len(listing.masks_alone)} masks that have no partner. Name mask `0001.png` or "
        f"`0001_mask.png` after image `0001.jpg`, or pass what the masks have in their names "
        f"besides, as {spell('mask_suffix', '_manual')}."
    )


def _name(source):
    return ", ".join(map(str, source)) if isinstance(source, (tuple, list)) else source
