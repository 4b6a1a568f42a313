"""The mask doctor: reads images and masks, and says what is wrong and how to mend it."""

import collections
import dataclasses
import warnings

import numpy as np

from keras_fcn.datasets.files import (
    PROBLEMS,
    WHITE,
    FileError,
    list_files,
    read_image,
    read_mask,
)

SAMPLE = 16  # pairs that `load` checks
DARK = 31  # of 255
SHOWN = 3  # files of a finding

# kind of finding: (level, what it is, the fix); the problems of single files are errors
FINDINGS = {
    **{kind: ("error", rule, fix) for kind, (rule, fix) in PROBLEMS.items()},
    "image alone": (
        "error",
        "Every image should have a mask of the same name.",
        "Name the masks after the images (`0001.jpg`, `0001.png`), or load a file list.",
    ),
    "mask alone": (
        "error",
        "Every mask should have an image of the same name.",
        "Name the masks after the images (`0001.jpg`, `0001.png`), or remove them.",
    ),
    "duplicate": (
        "error",
        "Names in a folder should differ in more than their suffix.",
        "Remove all but one of them.",
    ),
    "no pairs": (
        "error",
        "There should be an image with a mask of the same name.",
        "Check the folders, and name the masks after the images.",
    ),
    "0 and 255": (
        "error",
        "Masks should hold class numbers; these hold 0 and 255 only, as black-and-white files do.",
        "Pass `values={0: 0, 255: 1}`; or, if 255 marks void pixels, `ignore=255`.",
    ),
    "off range": (
        "error",
        "Labels should be in [0, num_classes), or the ignore label.",
        "Give the right number of classes; if the label marks void pixels, pass it as `ignore`; "
        "else map it with `values={...}`.",
    ),
    "palettes differ": (
        "error",
        "Palette masks should show one class in one colour; here an index has another colour in "
        "another file, as after colour quantisation.",
        "Pass `colors={(red, green, blue): class, ...}`; the masks are then read by colour.",
    ),
    "all masks empty": (
        "error",
        "Some mask should show another class than 0.",
        "Check that the masks were exported as class numbers.",
    ),
    "all masks void": (
        "error",
        "Some mask should show another label than the ignore label.",
        "Check that `ignore` is the label of void pixels, and not a class.",
    ),
    "void": (
        "warning",
        "The masks hold the label 255, which marks void pixels in many data sets.",
        "If it does here, pass `ignore=255`.",
    ),
    "gaps": (
        "warning",
        "Most numbers between the smallest and the largest label do not occur, as where gray "
        "levels stand for classes.",
        "If so, map them to class numbers, as `values={0: 0, 128: 1, 255: 2}`.",
    ),
    "empty mask": (
        "warning",
        "The mask shows nothing but class 0.",
        "Nothing to mend if nothing is there; else draw the mask.",
    ),
    "void mask": (
        "warning",
        "The mask shows nothing but the ignore label, so its image trains and counts for nothing.",
        "Remove the pair, or draw the mask.",
    ),
    "class absent": (
        "warning",
        "Every class should occur in some mask; a class that does not cannot be learned.",
        "Check the number of classes, and whether labels count from 0.",
    ),
    "dark": (
        "warning",
        "16-bit images should use their range; these use less than an eighth of it.",
        "Pass `white`, the value that becomes 255, for example `white=4095` for 12 bits.",
    ),
    "palette": (
        "note",
        "The masks are palette files. They are read as indices; many other tools read colours.",
        "Nothing to mend.",
    ),
}
LEVELS = ("error", "warning", "note")


@dataclasses.dataclass(frozen=True)
class Finding:
    """What was found in some files, and the fix."""

    kind: str  # a key of `FINDINGS`
    details: tuple  # texts: files, labels or colours

    level = property(lambda self: FINDINGS[self.kind][0])
    rule = property(lambda self: FINDINGS[self.kind][1])
    fix = property(lambda self: FINDINGS[self.kind][2])

    def __str__(self):
        more = f" and {len(self.details) - SHOWN} more" if len(self.details) > SHOWN else ""
        return f"{self.rule} Received: {'; '.join(self.details[:SHOWN])}{more}. {self.fix}"


@dataclasses.dataclass(frozen=True)
class Report:
    """What `check_data` found."""

    pairs: int  # images with a mask
    masks: int  # masks that could be read
    pixels: dict  # {label: pixels in all masks}
    occurrences: dict  # {label: masks in which it occurs}
    ignore: int | None
    findings: tuple  # of `Finding`, errors first

    errors = property(lambda self: tuple(item for item in self.findings if item.level == "error"))


def check_data(images, masks, num_classes=None, ignore=None, colors=None, values=None, white=WHITE):
    """Check a folder of images and a folder of masks; every file is read, none written.

    Finds files that are missing, double, truncated or of another size than their
    partner; masks that are JPEG, RGB-coded, transparent, 0/255, out of range, empty
    or void; palettes that differ; classes that never occur.

    Args:
        images: folder of the images.
        masks: folder of the masks; `0001.jpg` belongs to `0001.png`.
        num_classes: number of classes; by default labels are not held against it.
        ignore: the label of void pixels, if there is one.
        colors, values, white: as in `keras_fcn.datasets.files.read_pair`.

    Returns:
        `Report`: counts, the pixels of each label, and the findings, each with its
        level ("error", "warning" or "note"), its files and its fix. `load` gives
        what the masks hold if there are no errors.

    Raises:
        NotADirectoryError: when a folder does not exist.

    Example:

    >>> report = check_data("images", "masks", num_classes=2)  # doctest: +SKIP
    >>> print_report(report)  # doctest: +SKIP
    0
    """
    return _examine(list_files(images, masks), num_classes, ignore, colors, values, white)


def check_sample(listing, ignore=None, colors=None, values=None, white=WHITE):
    """Check some pairs of a listing, evenly spaced, and the names of all.

    Raises:
        ValueError: when there are errors; it lists them all.

    Warns:
        UserWarning: for each warning that holds of the sample as a whole.
    """
    places = np.unique(np.linspace(0, len(listing.pairs) - 1, SAMPLE).round().astype(int))
    sample = dataclasses.replace(listing, pairs=[listing.pairs[i] for i in places], masks_alone=[])
    report = _examine(sample, None, ignore, colors, values, white)
    if listing.masks_alone:
        alone = Finding("mask alone", tuple(map(str, listing.masks_alone)))
        report = dataclasses.replace(report, findings=(alone, *report.findings))
    if report.errors:
        raise ValueError("\n".join(map(str, report.errors)))
    for finding in report.findings:
        if finding.kind in ("void", "gaps", "dark"):
            warnings.warn(str(finding), stacklevel=4)


def print_report(report):
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
        total = sum(report.pixels.values())
        table = Table("label", "pixels", "share", "masks", title=f"{report.masks} masks")
        for label in sorted(report.pixels):
            table.add_row(
                f"{label} (ignored)" if label == report.ignore else str(label),
                f"{report.pixels[label]:,}",
                f"{report.pixels[label] / total:.2%}",
                str(report.occurrences[label]),
            )
        console.print(table)
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


def _examine(listing, num_classes, ignore, colors, values, white):
    """Read the files of a listing and return the report."""
    found = collections.defaultdict(list)  # kind: details
    found["image alone"] += map(str, listing.images_alone)
    found["mask alone"] += map(str, listing.masks_alone)
    found["duplicate"] += [", ".join(map(str, paths)) for paths in listing.duplicates]
    if not listing.pairs:
        found["no pairs"].append("none")
    counts = {}  # mask path: {label: pixels}
    brightness, palette, first_palette = [], {}, {}
    for image_path, mask_path in [*listing.pairs, *((None, path) for path in listing.masks_alone)]:
        labels = _try(found, read_mask, mask_path, colors, values)
        if labels is not None:
            numbers, pixels = np.unique(labels, return_counts=True)
            counts[mask_path] = dict(zip(numbers.tolist(), pixels.tolist(), strict=True))
            if colors is None:
                _check_palette(found, mask_path, counts[mask_path], palette, first_palette)
        if image_path is not None:
            shape = None if labels is None else labels.shape
            image = _try(found, read_image, image_path, None, white, shape)
            if image is not None:
                if _is_deep(image_path):
                    brightness.append(image.max())
                if shape not in (None, image.shape[:2]):
                    sizes = [f"{s[1]} x {s[0]}" for s in (shape, image.shape)]
                    found["size"].append(f"{mask_path}, {sizes[0]} for an image of {sizes[1]}")
    if brightness and max(brightness) <= DARK:
        found["dark"].append(f"{len(brightness)} images")
    _check_labels(found, counts, num_classes, ignore, colors is None and values is None)
    pixels, occurrences = _totals(counts)
    findings = [Finding(kind, tuple(found[kind])) for kind in FINDINGS if found[kind]]
    findings.sort(key=lambda finding: LEVELS.index(finding.level))
    return Report(len(listing.pairs), len(counts), pixels, occurrences, ignore, tuple(findings))


def _try(found, read, path, *arguments):
    """Return what `read` returns, or note its problem and return None."""
    try:
        return read(path, *arguments)
    except FileError as problem:
        found[problem.kind].append(f"{path}, {problem.what}")
    return None


def _check_palette(found, path, counts, palette, first):
    """Note palette files, and indices whose colour changes from file to file."""
    from PIL import Image

    with Image.open(path) as picture:
        if picture.mode != "P":
            return
        colors = np.reshape(picture.getpalette("RGB"), (-1, 3)).tolist()
    found["palette"].append(str(path))
    for label in counts:
        color = colors[label] if 0 <= label < len(colors) else None
        if palette.setdefault(label, color) != color:
            found["palettes differ"].append(
                f"{path}, index {label} is {color}, and {palette[label]} in {first[label]}"
            )
            return
        first.setdefault(label, path)


def _is_deep(path):
    from PIL import Image

    with Image.open(path) as picture:
        return picture.mode.startswith("I")


def _totals(counts):
    """Return {label: pixels} and {label: masks}."""
    pixels, occurrences = collections.Counter(), collections.Counter()
    for mask in counts.values():
        pixels.update(mask)
        occurrences.update(mask.keys())
    return dict(pixels), dict(occurrences)


def _check_labels(found, counts, num_classes, ignore, raw):
    """Note what the labels of all masks together show; `raw` if they are the files' values."""
    if not counts:
        return
    labels = set().union(*counts.values())
    if raw and 255 in labels and labels <= {0, 255} and ignore not in (0, 255):
        found["0 and 255"].append(f"{len(counts)} masks")
        return
    classes = labels - {ignore}
    off = {label for label in classes if label < 0 or label >= (num_classes or np.inf)}
    for label in sorted(off):
        paths = [str(path) for path, mask in counts.items() if label in mask]
        limit = "" if num_classes is None else f" with num_classes={num_classes}"
        found["off range"].append(f"label {label}{limit} in {len(paths)} masks, as {paths[0]}")
    if num_classes is None and 255 in classes:
        found["void"].append(f"{sum(255 in mask for mask in counts.values())} masks")
    _check_gaps(found, classes - off, num_classes)
    for path, mask in counts.items():
        if set(mask) == {0} and ignore != 0:
            found["empty mask"].append(str(path))
        elif set(mask) == {ignore}:
            found["void mask"].append(str(path))
    for kind, total in (("empty mask", "all masks empty"), ("void mask", "all masks void")):
        if len(found[kind]) == len(counts):
            found[total].append(f"{len(found.pop(kind))} masks")


def _check_gaps(found, classes, num_classes):
    """Note classes that never occur."""
    if num_classes is not None:
        absent = sorted(set(range(num_classes)) - classes)
        found["class absent"] += [f"class {label}" for label in absent]
    elif classes:
        classes = classes - {255}
        if classes and max(classes) > 2 * len(classes) and max(classes) > 20:
            found["gaps"].append(f"labels {', '.join(map(str, sorted(classes)[:10]))}")
