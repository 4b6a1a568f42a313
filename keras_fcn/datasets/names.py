"""The names and colours of the classes of a data set: from `classes.csv`, palettes or TFDS."""

import csv
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from keras_fcn.classes import Classes, voc_palette
from keras_fcn.datasets.catalogue import SOURCES, resolve_source
from keras_fcn.datasets.files import first_path
from keras_fcn.datasets.folder import MASKS, find_pairs
from keras_fcn.datasets.masks import INSTANCES, check_colors, read_palette
from keras_fcn.remedies import spell

FILE = "classes.csv"
COLUMNS = ("label", "name")
COLORS = ("red", "green", "blue")
WHOLE = re.compile(r"\s*-?\d{1,10}\s*")  # of 32 bits; below 0 a void label may be


def read_classes(
    source: str | os.PathLike | tuple,
    num_classes: int | None = None,
    *,
    split: str | Sequence[str] = "all",
    ignore: int | None = None,
    names: Sequence[str] | None = None,
    class_colors: Sequence | None = None,
    colors: Mapping | None = None,
    instances: str | None = None,
    mask_suffix: str | None = None,
) -> Classes | None:
    """Return the classes of a data set: names, colours, void label, and what it is called.

    Of a folder the names and colours are those of a file `classes.csv` in it or
    beside the masks, with the columns `label,name,red,green,blue`, of which the
    colours may be left out. Without them colours are those of the masks, where they
    are palette files or `colors` is given, else PASCAL VOC's.

    Args:
        source: as in `load`.
        num_classes: number of classes; by default as many as `classes.csv`, `names`,
            `colors` or the data set name.
        split: as in `load`; its first mask is looked at.
        ignore: the label of void pixels; by default that of the data set, 255 for
            folders.
        names: a name for each class, instead of those that are found.
        class_colors: a colour `(red, green, blue)` for each class, alike.
        colors, instances, mask_suffix: as in `load`.

    Returns:
        `keras_fcn.Classes`; None where nothing says how many classes there
        are. A class that nothing names is "class N".

    Raises:
        ValueError: when `classes.csv` breaks a rule, or numbers of classes differ.
        FileNotFoundError: when the source does not exist.

    Example:

    >>> read_classes("nuclei").names
    ('background', 'nucleus', 'border')
    """
    source = resolve_source(source)
    if isinstance(source, str):
        found = _of_catalogue(source, ignore, instances)
    else:
        found = _of_folder(source, ignore, split, colors, instances, mask_suffix, num_classes)
    data = source if isinstance(source, str) else _folder_name(source)
    void = found.ignore if found is not None else 255 if ignore is None else ignore
    given = {"classes": num_classes}
    given |= {
        what: None if items is None else len(items)
        for what, items in (("names", names), ("colours", class_colors))
    }
    counts = {what: count for what, count in given.items() if count is not None}
    if len(set(counts.values())) > 1:
        raise ValueError(
            "Each class should have one name and one colour. Received: "
            f"{' and '.join(f'{count} {what}' for what, count in counts.items())}. Give as many "
            f"{spell('class_names')} and {spell('class_colors')} as there are classes."
        )
    count = next(iter(counts.values()), None)
    if found is None:
        if count is None:
            return None
        known = Classes.default(count)
    else:
        known = _resize(found, len(found) if count is None else count)
    return Classes(
        known.names if names is None else names,
        known.colors if class_colors is None else class_colors,
        void,
        data,
    )


def _resize(classes, count):
    """Return so many classes: those that are known, and more by their numbers."""
    more = Classes.default(count)
    known = len(classes)
    return Classes(
        (*classes.names, *more.names[known:])[:count],
        (*classes.colors, *more.colors[known:])[:count],
    )


def find_class_file(source) -> Path | None:
    """Return the `classes.csv` of a folder or of a pair of folders, or None.

    It lies in the folder or among its masks, or in one of the pair or the folder above.
    """
    if isinstance(source, tuple | list):
        images, masks = map(Path, source)
        folders = [masks, images, masks.parent]
    else:
        folders = [Path(source), *(Path(source, name) for name in MASKS)]
    return next((folder / FILE for folder in folders if (folder / FILE).is_file()), None)


def read_class_file(path, ignore: int | None = None) -> Classes:
    """Read the names and colours of classes from a file `classes.csv`.

    Args:
        path: a file of comma-separated values, whose first line is
            `label,name,red,green,blue` or `label,name`, with a line for each class, and
            if you like one for the ignore label.
        ignore: the label of void pixels, which is no class.

    Raises:
        ValueError: when it breaks a rule; the message says which.
    """
    try:
        rows = list(csv.DictReader(_read_text(path).splitlines()))
    except csv.Error as error:  # a quote without its other takes the rest of a long file
        _refuse(path, f"a line that is none: {error}")
    head = set(rows[0]) if rows else set()
    if head not in (set(COLUMNS), {*COLUMNS, *COLORS}):  # a colour in another column would be lost
        _refuse(path, f"the columns {', '.join(map(str, head)) or 'of no line'}")
    table = {}
    for row in rows:
        numbers = [row["label"], *(row[name] for name in COLORS if name in row)]
        more = row.pop(None, [])  # what has no column: a comma in a name
        whole = all(WHOLE.fullmatch(text or "") for text in numbers)
        if more or not whole or not row["name"]:
            _refuse(path, f"the line {','.join([*map(str, row.values()), *more])}")
        label, *color = map(int, numbers)
        if label in table or any(not 0 <= value <= 255 for value in color):
            _refuse(path, f"the line {','.join(map(str, row.values()))}")
        table[label] = (row["name"].strip(), tuple(color))
    if ignore is not None:
        table.pop(ignore, None)
    if not table or sorted(table) != list(range(len(table))):
        _refuse(path, f"the labels {', '.join(map(str, sorted(table)))}")
    names, colors = zip(*(table[label] for label in range(len(table))), strict=True)
    return Classes(names, colors if colors[0] else None, ignore)


def _read_text(path):
    data = Path(path).read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:  # also UTF-16 without its mark
        _refuse(path, "other text than UTF-8; save it as UTF-8")
    return text


def _refuse(path, what):
    raise ValueError(
        "A file of classes should have the columns label,name or label,name,red,green,blue, and a "
        "line for each class, numbered from 0, with colours in [0, 255]; a void label besides is "
        f"named as the ignore label. Received: '{path}' with {what}."
    )


def _of_catalogue(name, ignore, instances):
    from keras_fcn.visualize.palettes import PALETTES

    name, _, configuration = name.partition("/")
    entry = SOURCES[name]
    names = entry.classes
    if isinstance(names, dict):
        names = names[configuration or next(iter(names))]
    if instances in INSTANCES and entry.instances:
        names = INSTANCES[instances]
    colors = PALETTES.get(name)
    if colors is not None and len(colors) != len(names):
        colors = None
    return Classes(names, colors, entry.ignore if ignore is None else ignore)


def _of_folder(source, ignore, split, colors, instances, mask_suffix, num_classes):
    void = 255 if ignore is None else ignore
    path = find_class_file(source)
    if path is not None:
        return read_class_file(path, void)
    if instances in INSTANCES:
        return Classes(INSTANCES[instances], None, void)
    if colors is not None:
        by_label = {label: color for color, label in check_colors(colors).items() if label != void}
        return _numbered(by_label, max(by_label, default=-1) + 1, void)
    palette = None if num_classes is None else _palette_of_masks(source, split, mask_suffix)
    if palette is None:
        return None
    return _numbered(dict(enumerate(palette[:num_classes])), num_classes, void)


def _numbered(by_label, count, ignore):
    """Return classes with colours of their own where they are known."""
    if not count:
        return None
    palette = [
        by_label.get(label, color) for label, color in enumerate(voc_palette(count).tolist())
    ]
    return Classes(Classes.default(count).names, np.array(palette), ignore)


def _palette_of_masks(source, split, mask_suffix):
    """Return the colours of the first mask, where it is a palette file, else None."""
    listing = find_pairs(source, split, mask_suffix=mask_suffix)
    return read_palette(first_path(listing.pairs[0][1]))


def _folder_name(source):
    return str(source[0].parent if isinstance(source, tuple) else source)
