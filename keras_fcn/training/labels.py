"""The data of a run: one pass over it, and the batches made of it."""

import collections
import dataclasses
import math
import re
import warnings

import numpy as np
import scipy.ndimage

from keras_fcn.classes import Classes
from keras_fcn.datasets import add_border_weights, read_classes, resolve_source
from keras_fcn.datasets.catalogue import FILE_OPTIONS, refuse_file_options
from keras_fcn.datasets.findings import FINDINGS, classes_missing, one_class
from keras_fcn.datasets.loading import AHEAD
from keras_fcn.datasets.names import find_class_file
from keras_fcn.datasets.streams import Split, open_split
from keras_fcn.remedies import given, spell
from keras_fcn.weights import classes_with

SAMPLE = 64  # training images of which pixels and objects are looked at
PICTURED = 3  # validation images
RARE = 0.05  # of the pixels: of a class below it there is little to learn from


@dataclasses.dataclass(frozen=True)
class Labels:
    """What the pass over the data finds.

    Args:
        splits: `{"train": Split, "validation": Split}`.
        classes: `Classes`.
        training: labelled pixels of each class in the training images, `(num_classes,)`.
        pictured: places of validation images that show the rarest classes.
        sizes: height and width of each training image, `(images, 2)`.
        to_validate: pixels of all validation images, void ones too.
        upright: share of the pixels that would have to change their class for the upper
            halves of the training images to hold what the lower ones hold, 0 to 1.
        values: smallest and largest pixel of a sample of the training images.
        colored: whether the images are RGB and channels differ in that sample.
        object_size: side of the square as large as the median connected piece of a class,
            in pixels, of that sample; the largest class left out.
    """

    splits: dict[str, Split]
    channels: int
    classes: Classes
    ignore: int
    training: np.ndarray
    pictured: list
    sizes: np.ndarray
    to_validate: int
    upright: float
    values: tuple
    colored: bool
    object_size: float

    num_classes = property(lambda self: len(self.classes))
    images = property(lambda self: {name: split.images for name, split in self.splits.items()})


def open_task(task, split):
    """Return the `Split` of a task's data."""
    source = resolve_source(task.data)
    options = {name: getattr(task, name) for name in ("instances", *FILE_OPTIONS)}
    if isinstance(source, str):
        refuse_file_options(source, options)
    options = {name: value for name, value in options.items() if value is not None}
    with warnings.catch_warnings():
        # of a sample, and of 255 without `ignore`; `read_data` looks at all masks, and knows it
        for kind in ("void", "one class", "from 1", "class missing", "gaps"):
            warnings.filterwarnings("ignore", re.escape(FINDINGS[kind][1]))
        return open_split(task.data, split, task.ignore, **options)


def read_data(task):
    """Read all label maps once: a compiled step could not tell of a label that is no class.

    Args:
        task: `Task` with its splits.

    Returns:
        `Labels`.

    Raises:
        ValueError: when a label is no class, or a split has no labelled pixels.
        FileNotFoundError: when the data does not exist.
    """
    names = {"train": task.split, "validation": task.validation}
    splits = {name: open_task(task, split) for name, split in names.items()}
    _question_overlap(task, splits)
    ignore = splits["train"].ignore
    counted = {name: _Counts(split) for name, split in splits.items()}
    for name, counts in counted.items():
        if not counts.labels:
            raise ValueError(
                f"The split {names[name]!r} should have labelled pixels. Received: "
                f"{splits[name].images} images whose every pixel has the ignore label {ignore}."
            )
    classes, known = _find_classes(task, ignore, max(counted["train"].labels) + 1)
    classes = _go_on_with(task, classes, known)
    for name, counts in counted.items():
        _check_labels(task, counts.labels, len(classes), name, ignore)
    _check_classes(counted["train"].labels, len(classes) if known else None, splits["train"])
    return Labels(
        splits=splits,
        classes=classes,
        ignore=ignore,
        training=counted["train"].total(len(classes)),
        pictured=_rarest(counted["validation"], len(classes)),
        sizes=np.array(counted["train"].sizes),
        to_validate=sum(map(math.prod, counted["validation"].sizes)),
        upright=counted["train"].upright(len(classes)),
        **_look_at(splits["train"]),
    )


def _question_overlap(task, splits):
    """Warn where images are trained on and validated on."""
    source = resolve_source(task.data)
    training, validation = splits["train"].places(), splits["validation"].places()
    whole = re.split(r"[\[+]", task.split)[0] if isinstance(source, str) else "all"
    if shared := len(training & validation):
        warnings.warn(
            "The validation images should be others than those of the training, or their scores "
            f"tell nothing of new ones. Received: {shared} of {len(validation)} that are both, by "
            f"{given('split', task.split)} and {given('validation', task.validation)}. Choose "
            f"others, as {spell('split', f'{whole}[:80%]')} and "
            f"{spell('validation', f'{whole}[80%:]')}.",
            stacklevel=4,
        )


class _Counts:
    """The pixels of each label, in each half of each image of a split."""

    def __init__(self, split):
        self.halves = []  # ({label: pixels} above, {label: pixels} below) of each image
        self.sizes = []
        for label_map in split.labels().as_numpy_iterator():
            middle = len(label_map) // 2
            halves = label_map[:middle], label_map[middle:]
            self.halves.append([_count(half, split.ignore) for half in halves])
            self.sizes.append(label_map.shape)
        self.labels = {label for halves in self.halves for half in halves for label in half}

    def total(self, num_classes):
        """Return the pixels of each class, (num_classes,)."""
        return self.by_image(num_classes).sum((0, 1))

    def by_image(self, num_classes):
        """Return the pixels by image, half and class, (images, 2, num_classes)."""
        return np.array(
            [[[half[c] for c in range(num_classes)] for half in halves] for halves in self.halves]
        )

    def upright(self, num_classes):
        """Return the difference of the classes' shares above and below, from 0 to 1."""
        above, below = self.by_image(num_classes).sum(0)
        if not (above.sum() and below.sum()):
            return 0.0
        return float(abs(above / above.sum() - below / below.sum()).sum() / 2)


def _count(label_map, ignore):
    labels, counts = np.unique(label_map, return_counts=True)
    pixels = collections.Counter(dict(zip(labels.tolist(), counts.tolist(), strict=True)))
    del pixels[ignore]
    return pixels


def _look_at(split):
    """Return what `Labels` tells of a sample of the training images, spread over the split."""
    places = np.unique(np.linspace(0, split.images - 1, SAMPLE).astype(int)).tolist()
    values, pixels = set(), collections.Counter()
    areas, colored = collections.defaultdict(list), False
    for image, labels in split.pick(places):
        values |= {int(image.min()), int(image.max())}
        colored |= image.shape[-1] == 3 and bool((image != image[..., :1]).any())
        counts = _count(labels, split.ignore)
        pixels += counts
        for label in counts:
            areas[label].append(np.bincount(scipy.ndimage.label(labels == label)[0].ravel())[1:])
    areas.pop(max(pixels, key=pixels.get, default=None), None)
    areas = [pieces for of_class in areas.values() for pieces in of_class]
    return {
        "channels": image.shape[-1],
        "values": (min(values), max(values)),
        "colored": colored,
        "object_size": float(np.sqrt(np.median(np.concatenate(areas)))) if areas else 0.0,
    }


def _rarest(counts, num_classes):
    """Return the places of the images to look at: each with most of the rarest class not shown."""
    pixels = counts.by_image(num_classes).sum(1)  # (images, classes)
    shown, places = np.zeros(num_classes, bool), []
    while len(places) < min(PICTURED, len(pixels)):
        rest = np.setdiff1d(np.arange(len(pixels)), places)
        found = pixels[rest].sum(0)
        classes = np.flatnonzero(~shown & (found > 0))
        if len(classes):
            rarest = classes[np.argmin(pixels.sum(0)[classes])]
            place = rest[np.argmax(pixels[rest, rarest])]
        else:
            place = rest[0]
        shown |= pixels[place] > 0
        places.append(int(place))
    return sorted(places)


def _find_classes(task, ignore, occurring):
    """Return the `Classes`, and whether their number is known but by the largest label."""
    options = {
        "split": task.split,
        "ignore": ignore,
        "names": task.class_names,
        "class_colors": task.class_colors,
        "colors": task.colors,
        "instances": task.instances,
        "mask_suffix": task.mask_suffix,
    }
    count = 2 if task.num_classes == 1 else task.num_classes
    known = read_classes(task.data, count, **options)
    return known or read_classes(task.data, occurring, **options), known is not None


def _go_on_with(task, classes, known):
    """Return the classes of the data, by the names and colours of the weights where it says none.

    Warns:
        UserWarning: of names that are kept, and of a label that is void where the weights were
            trained and a class here.
    """
    theirs = _classes_of_weights(task)
    if theirs is None:
        return classes
    if not known and len(theirs) == theirs.ignore == len(classes) - 1:
        warnings.warn(
            "A label should mean to the weights what it means in the data. Received: "
            f"{theirs.ignore}, the last of {len(classes)} classes here, and void pixels for "
            f"{str(task.weights)!r}. If they are void here too, pass "
            f"{spell('ignore', theirs.ignore)}.",
            stacklevel=4,
        )
    if len(theirs) != len(classes):
        return classes
    numbers = Classes.default(len(classes))
    names, colors = classes.names, classes.colors
    unnamed = task.class_names is None and names == numbers.names != theirs.names
    if unnamed:
        names = theirs.names
        warnings.warn(
            "Classes that the data does not name keep the names that they have with the weights. "
            f"Received: {str(task.weights)!r} with {', '.join(names)}. If they are others, pass "
            f"{spell('class_names')}.",
            stacklevel=4,
        )
    if task.class_colors is None and colors == numbers.colors and names == theirs.names:
        colors = theirs.colors
    return dataclasses.replace(classes, names=names, colors=colors)


def _classes_of_weights(task):
    """Return the classes that the weights of a task bring, or None."""
    weights = getattr(task, "weights", None)  # a search has none that bring classes
    try:
        return None if weights is None else classes_with(weights)
    except (OSError, ValueError):  # what is wrong with the file is said where it is loaded
        return None


def _check_classes(labels, num_classes, split):
    """Raise for a class alone in the training masks, and warn of those that never occur."""
    masks = f"{split.images} training masks"
    if len(labels) == 1:
        raise ValueError(str(one_class(*labels, split.ignore, masks)))
    for finding in classes_missing(labels, num_classes):
        warnings.warn(f"{finding} (In {masks}.)", stacklevel=4)


def _check_labels(task, labels, num_classes, split, ignore):
    wrong = [label for label in sorted(labels) if not 0 <= label < num_classes]
    if wrong:
        raise ValueError(
            f"The labels should be 0 to {num_classes - 1}, or the ignore label {ignore}. Received: "
            f"{wrong[:8]} in the {split} masks. {_how_many(task)}, or, if one of them marks void "
            f"pixels, give it as {spell('ignore')}."
        )


def _how_many(task):
    """Return how to say of so many classes, in the way in which it was said."""
    for name in ("num_classes", "class_names", "class_colors"):
        if getattr(task, name) is not None:
            what = "the right number of classes" if name == "num_classes" else "one for each class"
            return f"Give {what}, {spell(name)}"
    source = resolve_source(task.data)
    path = None if isinstance(source, str) else find_class_file(source)
    if path is not None:
        return f"Give each class its line in '{path}'"
    return f"Give the right number of classes, {spell('num_classes')}"


def choose_class_weights(pixels):
    """Return "log" where a class that occurs is rare, else "none": weights cost the others.

    With a rarest class of 0.3% (CamVid) they cost nothing, with one of 23% (ISBI 2012) 1 to 3
    points of mean IoU, see weights/RECIPES.md.

    Args:
        pixels: array or list of `(num_classes,)`, labelled pixels of each class.

    Example:

    >>> choose_class_weights([900, 80, 20]), choose_class_weights([900, 100])
    ('log', 'none')
    """
    return "log" if rarest_share(pixels) < RARE else "none"


def rarest_share(pixels):
    """Return the share of the pixels that the rarest of the classes has that occur; 1 of none."""
    pixels = np.asarray(pixels)
    return float((pixels[pixels > 0] / pixels.sum()).min(initial=1))


def log_class_weights(pixels):
    """Weigh rare classes up by the logarithm of their share; 1 on average over the pixels.

    Args:
        pixels: array or list of `(num_classes,)`, labelled pixels of each class.

    Returns:
        A list of one weight a class, proportional to 1 / log(1.1 + its share).

    Example:

    >>> [round(weight, 2) for weight in log_class_weights([90, 10])]
    [0.78, 2.97]
    """
    pixels = np.asarray(pixels)
    weights = 1 / np.log(1.1 + pixels / pixels.sum())
    return (weights * pixels.sum() / (weights * pixels).sum()).tolist()


def count_steps(images, batch_size):
    """Return the batches that give each image once."""
    return math.ceil(images / batch_size)


def training_set(task, split, step=0, border_weights=False, class_weights=None):
    """An endless stream of full batches (batch, crop, crop, channels), (batch, crop, crop).

    Args:
        task: `Task` whose every argument is planned.
        split: `Split` of the training images.
        step: how many batches of the stream to leave out.
        border_weights: whether to add weights (batch, crop, crop) for the loss: the
            U-Net paper's, w_c + w0 exp(...).
        class_weights: list of the w_c, by default 1 each.
    """
    crops = split.crops(task.crop_size, task.augment, task.seed, step * task.batch_size)
    batches = crops.batch(task.batch_size, drop_remainder=True)
    if border_weights:
        batches = _weigh_borders(batches, split.ignore, class_weights)
    return batches.prefetch(AHEAD)


def _weigh_borders(batches, ignore, class_weights):
    """Add w_c + w0 exp(...) of the U-Net paper as sample weights, for any number of classes."""
    import tensorflow as tf

    weighted = add_border_weights(batches, ignore)  # 1 + w0 exp(...), and 0 where void
    if class_weights is None:
        return weighted
    more = tf.constant(class_weights, "float32") - 1

    def add(images, labels, weights):
        labelled = labels != ignore
        own = tf.gather(more, tf.where(labelled, labels, 0))
        return images, labels, tf.where(labelled, weights + own, 0.0)

    return weighted.map(add)


def validation_set(split, devices=1):
    """Whole images, one for each device: padded together, the last ones filled with void."""
    import tensorflow as tf

    def fill(images, labels):
        missing = devices - tf.shape(labels)[0]
        images = tf.pad(images, [[0, missing], [0, 0], [0, 0], [0, 0]])
        labels = tf.pad(labels, [[0, missing], [0, 0], [0, 0]], constant_values=split.ignore)
        return images, labels

    batches = split.batches(devices)
    return batches if devices == 1 else batches.map(fill)
