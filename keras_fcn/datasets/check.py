"""The mask doctor: reads images and masks, and says what is wrong and how to mend it."""

import collections
import dataclasses
import os
import warnings
from collections.abc import Mapping

import numpy as np

from keras_fcn.arguments import as_label, check_positive_integer, check_reading
from keras_fcn.datasets.doubts import dark_message
from keras_fcn.datasets.files import FileError, first_path
from keras_fcn.datasets.findings import (
    FINDINGS,
    LEVELS,
    SHOWN,
    Finding,
    classes_missing,
    one_class,
    white_is_0,
)
from keras_fcn.datasets.folder import list_source
from keras_fcn.datasets.images import read_raster, to_image
from keras_fcn.datasets.looks import Copies, Looks, Palette
from keras_fcn.datasets.masks import (
    INSTANCES,
    Mask,
    check_colors,
    check_values,
    examine_mask,
    read_labels,
    size_text,
)
from keras_fcn.datasets.names import find_class_file, read_class_file
from keras_fcn.datasets.problems import PROBLEMS
from keras_fcn.remedies import spell

SAMPLE = 16  # pairs that `load` checks
MIXED = 0.1  # of the masks, from which on it is hardly by chance that they show no class but 0

# what the labels of all masks together show, of which a sample may tell wrongly
OF_ALL = ("0 and 255", "one class", "all masks empty", "all masks void")
# what holds of the sample as a whole, and so is worth a word before a training
WARNED = (
    "other kinds", "void", "mixed", "one class", "from 1", "class missing", "gaps", "white is 0",
    "objects",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Report:
    """What `check_data` found."""

    pairs: int  # images with a mask
    masks: int  # masks that could be read
    pixels: dict  # {label: pixels in all masks}
    occurrences: dict  # {label: masks in which it occurs}
    ignore: int | None
    findings: tuple  # of `Finding`, errors first
    names: tuple = ()  # of the classes, where the data names them

    errors = property(lambda self: tuple(item for item in self.findings if item.level == "error"))


def check_data(
    images: str | os.PathLike,
    masks: str | os.PathLike | None = None,
    num_classes: int | None = None,
    ignore: int | None = None,
    colors: Mapping | None = None,
    values: Mapping | None = None,
    white: float | None = None,
    mask_suffix: str | None = None,
    instances: str | None = None,
    max_pixels: int | None = None,
) -> Report:
    """Check images and masks; every file is read, none written.

    Finds files that are missing, double, truncated or of another size than their
    partner; masks that are JPEG, RGB-coded, transparent, 0/255, out of range, empty
    or void, one-hot or instance maps; palettes that differ; classes that never occur;
    dark images and images turned by a tag; images and masks the wrong way round; images
    that are in several files, as in two splits.

    Args:
        images: folder of the images; or, without `masks`, a folder of images and masks
            as `load` takes it.
        masks: folder of the masks, which may be the same; see
            `keras_fcn.datasets.files.list_files`.
        num_classes: number of classes, 1 for two classes and one sigmoid; by default as
            many as a file `classes.csv` names, else labels are not held against it.
        ignore: the label of void pixels, if there is one.
        mask_suffix: as in `keras_fcn.datasets.files.list_files`.
        colors, values, white, instances, max_pixels: as in
            `keras_fcn.datasets.files.read_pair`.

    Returns:
        `Report`: counts, the pixels of each label, and the findings, each with its
        level ("error", "warning" or "note"), its files and its fix. `load` gives
        what the masks hold if there are no errors.

    Raises:
        NotADirectoryError, FileNotFoundError: when a folder does not exist.
        ValueError: when a folder of images and masks has no known layout.

    Example:

    >>> report = check_data("images", "masks", num_classes=2)  # doctest: +SKIP
    >>> print_report(report)  # doctest: +SKIP
    0
    """
    check_reading(white, max_pixels)
    if num_classes is not None:
        check_positive_integer("num_classes", num_classes)
    ignore = as_label("ignore", ignore)
    _check_tables(colors, values)
    source = images if masks is None else (images, masks)
    reading: dict = {"colors": colors, "values": values, "white": white}
    reading |= {"instances": instances, "max_pixels": max_pixels}
    names = _class_names(source, ignore, instances)
    listing = list_source(source, mask_suffix)
    count = 2 if num_classes == 1 else num_classes  # of one sigmoid
    report = _examine(listing, count, ignore, len(names) or None, **reading)
    return dataclasses.replace(report, names=names)


def check_sample(listing, ignore: int | None = None, training: bool = True, **reading) -> None:
    """Check some pairs of a listing, evenly spaced, and the names of all.

    Args:
        listing: `Listing` of `find_pairs`.
        ignore: the label of void pixels, if it is known.
        training: whether they are to train on. Else a problem of a file is left to who
            reads it, where others of the sample can be read, and a class may be missing.
        **reading: as in `check_data`.

    Raises:
        ValueError: when there are errors; it lists them all.

    Warns:
        UserWarning: for each warning that holds of the sample as a whole.
    """
    check_reading(reading.get("white"), reading.get("max_pixels"))
    _check_tables(reading.get("colors"), reading.get("values"))
    places = np.unique(np.linspace(0, len(listing.pairs) - 1, SAMPLE).round().astype(int))
    sample = dataclasses.replace(listing, pairs=[listing.pairs[i] for i in places], masks_alone=[])
    looks = Looks(ignore)
    report = _examine(sample, None, ignore, looks=looks, **reading)
    if listing.masks_alone:
        alone = Finding("mask alone", tuple(map(str, listing.masks_alone)))
        report = dataclasses.replace(report, findings=(alone, *report.findings))
    whole = len(places) == len(listing.pairs)
    if not whole and any(finding.kind in OF_ALL for finding in report.findings):
        options = {name: value for name, value in reading.items() if name != "white"}
        if _hold_others(listing, report.pixels.keys(), options):
            findings = tuple(item for item in report.findings if item.kind not in OF_ALL)
            report = dataclasses.replace(report, findings=findings)
    told = set(WARNED)
    if not training and report.pixels.keys() == {0, 255}:
        told.discard("one class")  # black and white, whichever of them is said to be void
    if not training and report.masks and looks.images:
        told |= PROBLEMS.keys()
    if errors := [error for error in report.errors if error.kind not in told]:
        raise ValueError("\n".join(map(str, errors)))
    for finding in report.findings:
        # a class that a sample lacks may be rare
        if finding.kind in WARNED and (finding.kind != "class missing" or (whole and training)):
            warnings.warn(str(finding), stacklevel=4)
    if reading.get("white") is None and looks.is_dark():
        warnings.warn(dark_message(max(looks.deep)), stacklevel=4)


def _check_tables(colors, values):
    if colors is not None:
        check_colors(colors)
    if values is not None:
        check_values(values)


def _hold_others(listing, labels, options):
    """Return whether some mask of a listing, read with these options, holds another label."""
    for _, paths in listing.pairs:
        found = _try(Found(list), read_labels, paths, **options)
        if found is not None and not set(np.unique(found).tolist()) <= labels:
            return True
    return False


def print_report(report: Report) -> int:
    """Print a report as tables.

    Args:
        report: `Report` of `check_data`.

    Returns:
        the exit status: 1 if there are errors, else 0.
    """
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    console = Console()
    if report.pixels:
        console.print(_label_table(report))
    if report.findings:
        table = Table("level", Column("finding, files or labels, fix", overflow="fold"))
        table.show_lines = True
        styles = {"error": "bold red", "warning": "yellow", "note": "dim"}
        for finding in report.findings:
            lines = [finding.rule, *(f"  {detail}" for detail in finding.details[:SHOWN])]
            if len(finding.details) > SHOWN:
                lines.append(f"  and {len(finding.details) - SHOWN} more")
            lines.append(f"Fix: {finding.fix}")
            # Text, not str: names of files may look like markup
            table.add_row(Text(finding.level, styles[finding.level]), Text("\n".join(lines)))
        console.print(table)
    count = collections.Counter(finding.level for finding in report.findings)
    console.print(
        f"images with masks: {report.pairs}, errors: {count['error']}, warnings: {count['warning']}"
    )
    return 1 if report.errors else 0


def _class_names(source, ignore, instances):
    """Return the names of the classes, where the data says them."""
    path = find_class_file(source)
    if path is not None:
        return read_class_file(path, 255 if ignore is None else ignore).names
    return INSTANCES.get(instances, ())


def _label_table(report):
    from rich.table import Table
    from rich.text import Text

    total = sum(report.pixels.values())
    columns = ["label", *(["class"] if report.names else []), "pixels", "share", "masks"]
    table = Table(*columns, title=f"{report.masks} masks")
    for label in sorted({*report.pixels, *range(len(report.names))}):
        pixels = report.pixels.get(label, 0)
        row = [f"{label} (ignored)" if label == report.ignore else str(label)]
        if report.names:
            row.append(Text(report.names[label] if 0 <= label < len(report.names) else "-"))
        row += [f"{pixels:,}", f"{pixels / total:.2%}", str(report.occurrences.get(label, 0))]
        table.add_row(*row)
    return table


def _examine(listing, num_classes, ignore, named=None, white=None, looks=None, **reading):
    """Read the files of a listing and return the report; `looks` takes notes, too.

    `named` is the number of the classes that the data names.
    """
    found = Found(list)  # kind: details
    found["image alone"] += map(str, listing.images_alone)
    found["mask alone"] += map(str, listing.masks_alone)
    found["duplicate"] += [", ".join(map(str, paths)) for paths in listing.duplicates]
    found["other kinds"] += map(str, listing.others)
    found["named"] += [f"'{suffix}'" for suffix in listing.mask_suffixes]
    if not listing.pairs:
        found["no pairs"].append("none")
    counts = {}  # mask path: {label: pixels}
    raw = all(reading.get(name) is None for name in ("colors", "values", "instances"))
    looks = Looks(ignore) if looks is None else looks
    palette, copies, inverted = Palette(), Copies(listing.splits), []
    for image_path, mask_paths in [*listing.pairs, *((None, path) for path in listing.masks_alone)]:
        path = first_path(mask_paths)
        mask = _try(found, _examine_mask, mask_paths, **reading)
        labels = None if mask is None else mask.labels
        if mask is not None:
            numbers, pixels = np.unique(labels, return_counts=True)
            counts[path] = dict(zip(numbers.tolist(), pixels.tolist(), strict=True))
            looks.note_mask(labels, counts[path])
            palette.note(found, path, mask.palette)
            inverted += [path] if raw and mask.white_is_zero else []
        if image_path is not None:
            limit = reading.get("max_pixels")
            image = _check_image(found, image_path, path, labels, white, limit, looks)
            if image is not None:
                copies.note(image, image_path)
    if white is None and looks.is_dark():
        found["dark"].append(f"{len(looks.deep)} images of at most {max(looks.deep)}")
    if inverted:
        numbers = set().union(*(counts[path] for path in inverted))
        found.take(white_is_0(inverted, numbers, ignore, len(inverted) == len(counts)))
    copies.tell(found)
    looks.tell(found, raw and num_classes is None and named is None)
    _check_labels(found, counts, num_classes, named, ignore, raw)
    pixels, occurrences = _totals(counts)
    findings = [
        Finding(kind, tuple(found[kind]), found.fixes.get(kind)) for kind in FINDINGS if found[kind]
    ]
    findings.sort(key=lambda finding: LEVELS.index(finding.level))
    return Report(len(listing.pairs), len(counts), pixels, occurrences, ignore, tuple(findings))


def _examine_mask(paths, instances=None, **reading):
    """Return the `Mask` of an image, as `read_labels` reads it."""
    if instances is None and not isinstance(paths, tuple):
        return examine_mask(paths, **reading)
    return Mask(read_labels(paths, instances=instances, **reading))


def _try(found, read, path, *arguments, **named):
    """Return what `read` returns, or note its problem and return None."""
    try:
        return read(path, *arguments, **named)
    except FileError as problem:
        found[problem.kind].append(f"{problem.path}, {problem.what}")
        if problem.fix:  # of several the one with the most colours, or the largest number
            others = found.fixes.get(problem.kind, "")
            found.fixes[problem.kind] = max(others, problem.fix, key=lambda fix: (len(fix), fix))
    return None


class Found(collections.defaultdict):
    """The details of each kind of finding, and fixes for just these files."""

    def __init__(self, factory):
        super().__init__(factory)
        self.fixes = {}

    def take(self, finding):
        """Note a `Finding`."""
        self[finding.kind] += finding.details
        if finding.own_fix:
            self.fixes[finding.kind] = finding.own_fix


def _check_image(found, path, mask_path, labels, white, max_pixels, looks):
    """Note what is wrong with an image, and with it beside its mask; return it or None."""
    raster = _try(found, read_raster, path, max_pixels)
    if raster is None:
        return None
    shape = None if labels is None else labels.shape
    image = _try(found, lambda path: to_image(raster, path, None, white, shape), path)
    if image is None:
        return None
    looks.note_image(image, raster)
    if shape is not None and shape != image.shape[:2]:
        found["size"].append(f"{mask_path}, {size_text(labels)} for an image of {size_text(image)}")
    if raster.orientation in range(2, 9) and shape == raster.pixels.shape[:2] == image.shape[:2]:
        found["turned"].append(f"{path}, EXIF orientation {raster.orientation}")
    return image


def _totals(counts):
    """Return {label: pixels} and {label: masks}."""
    pixels, occurrences = collections.Counter(), collections.Counter()
    for mask in counts.values():
        pixels.update(mask)
        occurrences.update(mask.keys())
    return dict(pixels), dict(occurrences)


def _check_labels(found, counts, num_classes, named, ignore, raw):
    """Note what the labels of all masks together show.

    Args:
        counts: {path: {label: pixels}}.
        num_classes: number of classes, or None.
        named: number of the classes that the data names, or None.
        ignore: the label of void pixels, or None.
        raw: whether the labels are the files' values.
    """
    if not counts:
        return
    labels = set().union(*counts.values())
    if raw and labels == {0, 255} and ignore not in (0, 255):
        found["0 and 255"].append(f"{len(counts)} masks")
        return
    if raw and ignore in labels and len(labels) == 2:
        found.take(one_class(*(labels - {ignore}), ignore, f"{len(counts)} masks"))
    if raw and ignore is None:
        _check_mixed(found, counts)
    classes = labels - {ignore}
    if num_classes is None and 255 in classes and not (named or 0) > 255:
        found["void"].append(f"{sum(255 in mask for mask in counts.values())} masks")
        classes.remove(255)
    off = {label for label in classes if label < 0 or label >= (num_classes or named or np.inf)}
    for label in sorted(off):
        paths = [str(path) for path, mask in counts.items() if label in mask]
        known = "" if named is None else f" with {named} classes in classes.csv"
        known = known if num_classes is None else f" with {spell('num_classes', num_classes)}"
        found["off range"].append(f"label {label}{known} in {len(paths)} masks, as {paths[0]}")
    if not found["objects"]:
        for finding in classes_missing(classes - off, num_classes or named):
            found.take(finding)
    _check_single_masks(found, counts, ignore)


def _check_mixed(found, counts):
    """Note masks of 0 and 255 alone among others: 255 may be a class there, and is void here."""
    white = [path for path, mask in counts.items() if 255 in mask]
    alone = all(counts[path].keys() == {0, 255} for path in white)
    if alone and len(white) >= max(2, MIXED * len(counts)):
        found["mixed"].append(f"{len(white)} of {len(counts)} masks, as {white[0]}")


def _check_single_masks(found, counts, ignore):
    """Note masks that show nothing; where all are so, once."""
    void = 255 if ignore is None else ignore
    for path, mask in counts.items():
        if set(mask) == {0} and ignore != 0:
            found["empty mask"].append(str(path))
        elif set(mask) == {void}:
            found["void mask"].append(str(path))
    for kind, total in (("empty mask", "all masks empty"), ("void mask", "all masks void")):
        if len(found[kind]) == len(counts):
            found[total].append(f"{len(found.pop(kind))} masks")
