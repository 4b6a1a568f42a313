"""What can be wrong with images and masks together: the rule, and the fix."""

import dataclasses

from keras_fcn.datasets.files import SUFFIXES
from keras_fcn.datasets.problems import PROBLEMS, fix_of
from keras_fcn.remedies import spell

SHOWN = 3  # files of a finding
SWAPPED = 8  # numbers at most that a fix lists
LEVELS = ("error", "warning", "note")

# kind of finding: (level, what it is, the fix, a function where it names an argument); the
# problems of single files are errors
FINDINGS = {
    **{kind: ("error", *entry) for kind, entry in PROBLEMS.items()},
    "image alone": (
        "error",
        "Every image should have a mask.",
        lambda: (
            "Name the masks after the images (`0001.jpg`, `0001.png` or `0001_mask.png`), or pass "
            f"what they have in their names besides, as {spell('mask_suffix', '_manual')}; remove "
            "images that have no mask."
        ),
    ),
    "mask alone": (
        "error",
        "Every mask should have an image.",
        lambda: (
            "Name the masks after the images (`0001.jpg`, `0001.png` or `0001_mask.png`), or pass "
            f"what they have in their names besides, as {spell('mask_suffix', '_manual')}; remove "
            "masks that have no image."
        ),
    ),
    "other kinds": (
        "warning",
        f"Images and masks should be files of the kinds {', '.join(SUFFIXES)}; others are left "
        "out.",
        "If they are of the data, save them as one of these, for example as PNG or `.npy`.",
    ),
    "duplicate": (
        "error",
        "Names in a folder should differ in more than their suffix.",
        "Remove all but one of them; of an image and its mask in one folder, rename the mask, as "
        "`0001_mask.png`.",
    ),
    "no pairs": (
        "error",
        "There should be an image with a mask.",
        "Check the folders, and name the masks after the images, as `0001.png` or `0001_mask.png`.",
    ),
    "swapped": (
        "error",
        "Masks should hold few values and images many; here it is the other way round.",
        "Give the folder of the images as the images, and that of the masks as the masks.",
    ),
    "0 and 255": (
        "error",
        "Masks should hold class numbers; these hold 0 and 255 only, as black-and-white files do.",
        lambda: f"Pass {spell('values', {0: 0, 255: 1})}.",
    ),
    "one class": (
        "error",
        "Masks should show two classes or more besides the void label.",
        "Add masks that show other classes.",
    ),
    "off range": (
        "error",
        "Labels should be in [0, num_classes), or the ignore label.",
        lambda: (
            f"Give the right number of classes, {spell('num_classes')}; if the label marks void "
            f"pixels, pass it as {spell('ignore')}; else map it to a class, as "
            f"{spell('values', {0: 0, 128: 1})}."
        ),
    ),
    "palettes differ": (
        "error",
        "Palette masks should show one class in one colour; here an index has another colour in "
        "another file, as after colour quantisation.",
        lambda: (
            f"Pass the label of each colour, as {spell('colors', {(0, 0, 0): 0, (255, 0, 0): 1})}; "
            "the masks are then read by colour."
        ),
    ),
    "all masks empty": (
        "error",
        "Some mask should show another class than 0.",
        "Check that the masks were exported as class numbers.",
    ),
    "all masks void": (
        "error",
        "Some mask should show another label than the ignore label.",
        "Check that the ignore label is that of void pixels, and not a class; else draw the masks.",
    ),
    "void": (
        "warning",
        "The masks hold the label 255, which marks void pixels in many data sets.",
        lambda: f"If it does here, pass {spell('ignore', 255)}.",
    ),
    "mixed": (
        "warning",
        "Masks should number the classes alike; here 255 comes with 0 alone, as in black-and-white "
        "files, and other masks show other classes.",
        lambda: (
            f"If 255 is class 1, pass {spell('values', {0: 0, 1: 1, 255: 1})}; if it marks void "
            f"pixels, pass {spell('ignore', 255)}."
        ),
    ),
    "from 1": (
        "warning",
        "Classes should count from 0; class 0 never occurs in these masks.",
        lambda: (
            "If the classes are numbered from 1, map them, as "
            f"{spell('values', {1: 0, 2: 1})} for two; if nothing of class 0 was there, nothing is "
            "to mend."
        ),
    ),
    "class missing": (
        "warning",
        "Every class below the largest label should occur in some mask; a class that does not "
        "cannot be learned.",
        lambda: (
            "If the numbers leave gaps, close them, as "
            f"{spell('values', {0: 0, 2: 1})} where 1 is none; if the class is rare, add images "
            "that show it."
        ),
    ),
    "gaps": (
        "warning",
        "Most numbers between the smallest and the largest label do not occur, as where gray "
        "levels stand for classes.",
        lambda: f"If so, map them to class numbers, as {spell('values', {0: 0, 128: 1, 255: 2})}.",
    ),
    "white is 0": (
        "warning",
        "Viewers should show masks as they are stored; in these TIFF files 0 is white, so viewers "
        "show them the other way round.",
        "The numbers are taken as they are stored. If the masks are meant as viewers show them, "
        "save these again with the numbers of the classes, as the others; else nothing is to mend.",
    ),
    "copies": (
        "warning",
        "An image should be in one file. One that is in two splits, or on both sides of a slice of "
        "one, is trained on and validated on, and its score tells nothing of new images.",
        "Remove all files of it but one, with their masks.",
    ),
    "objects": (
        "warning",
        "Labels should be classes; these look like the numbers of objects, as in an instance map: "
        "each is one connected region, and they count from 1 in every mask.",
        lambda: (
            f"If so, pass {spell('instances', 'border')} for background, object and the border "
            f"between objects that touch, or {spell('instances', 'two')} for the first two."
        ),
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
        "16-bit images should use their range, or they are taken for dark ones.",
        lambda: (
            f"Pass the value that becomes 255, for example {spell('white', 4095)} for a camera of "
            "12 bits."
        ),
    ),
    "turned": (
        "warning",
        "An EXIF tag turns the image, and its mask would fit it turned or not; it is taken to "
        "belong to the image as viewers show it, turned.",
        "Look at one of them. If the mask was drawn on the image as stored, remove the tag: "
        "`exiftool -Orientation= FILE`, or save the pixels anew with "
        "`Image.fromarray(numpy.asarray(Image.open(path))).save(path)`.",
    ),
    "palette": (
        "note",
        "The masks are palette files. They are read as indices; many other tools read colours.",
        "Nothing to mend.",
    ),
    "named": (
        "note",
        "The masks are called like their images with something besides.",
        "Nothing to mend if these are the masks.",
    ),
}


@dataclasses.dataclass(frozen=True)
class Finding:
    """What was found in some files, and the fix."""

    kind: str  # a key of `FINDINGS`
    details: tuple  # texts: files, labels or colours
    own_fix: str | None = None  # in place of the kind's, for these files

    level = property(lambda self: FINDINGS[self.kind][0])
    rule = property(lambda self: FINDINGS[self.kind][1])
    fix = property(lambda self: self.own_fix or fix_of(FINDINGS[self.kind]))

    def __str__(self):
        more = f" and {len(self.details) - SHOWN} more" if len(self.details) > SHOWN else ""
        return f"{self.rule} Received: {'; '.join(self.details[:SHOWN])}{more}. {self.fix}"


def one_class(label: int, ignore: int, masks: str) -> Finding:
    """Return what is wrong with masks that show one class, and perhaps void pixels."""
    values = spell("values", {label: 0, ignore: 1})
    return Finding(
        "one class",
        (f"no label but {label} and the void label {ignore} in {masks}",),
        f"If {ignore} is a class too, as in black-and-white files, pass {values} without "
        f"{spell('ignore')}; else add masks that show other classes.",
    )


def white_is_0(paths: list, labels: set, ignore: int | None, alone: bool) -> Finding:
    """Return what to say of TIFF masks that viewers show the other way round.

    Args:
        paths: of these masks.
        labels: the numbers that they hold.
        ignore: the label of void pixels, or None.
        alone: whether there are no others, so that all numbers can be swapped.
    """
    classes = sorted(labels - {ignore}, reverse=True)  # as viewers show them, from black on
    fix = None
    if alone and 2 <= len(classes) <= SWAPPED:
        values = {label: number for number, label in enumerate(classes)}
        values |= {label: label for label in labels & {ignore}}
        fix = (
            "The numbers are taken as they are stored. If the masks are meant as viewers show "
            f"them, swap the numbers, as {spell('values', dict(sorted(values.items())))}; else "
            "nothing is to mend."
        )
    return Finding("white is 0", tuple(map(str, paths)), fix)


def classes_missing(labels: set, num_classes: int | None) -> tuple:
    """Return what to say of classes that never occur in masks.

    Args:
        labels: the labels of all masks, without that of void pixels.
        num_classes: number of classes; None if the largest label alone tells.

    Returns:
        Tuple of `Finding`, empty where every class occurs.
    """
    if num_classes is not None:
        details = tuple(f"class {label}" for label in sorted(set(range(num_classes)) - labels))
        return (Finding("class absent", details),) if details else ()
    if not labels:
        return ()
    largest = max(labels)
    absent = sorted(set(range(largest)) - labels)
    shown = (f"labels {', '.join(map(str, sorted(labels)[:10]))}",)
    if largest > 2 * len(labels) and largest > 20:
        return (Finding("gaps", shown),)
    if 0 in absent:
        return (Finding("from 1", shown),)
    return (Finding("class missing", tuple(f"class {x}" for x in absent)),) if absent else ()
