"""The data of a run: a pass over its labels, and the batches made of it."""

import collections
import dataclasses
import math
import warnings

import numpy as np

from keras_fcn.datasets import SOURCES, load


@dataclasses.dataclass(frozen=True)
class Labels:
    """What a pass over the data finds."""

    images: dict  # {"train": images, "validation": images}
    channels: int
    classes: list  # names
    ignore: int
    training: np.ndarray  # (num_classes,) labelled pixels of each class

    num_classes = property(lambda self: len(self.classes))


def load_split(task, split, **options):
    if task.data.partition("/")[0] not in SOURCES:
        options |= {"values": task.values, "colors": task.colors}
    with warnings.catch_warnings():
        # without `ignore`, load warns of 255 in the masks; here it is then the ignore label
        warnings.filterwarnings("ignore", "The masks hold the label 255")
        return load(task.data, split, ignore=task.ignore, **options)


def count_labels(task):
    """Read all label maps once: a compiled step could not tell of a label that is no class.

    Args:
        task: `Task`.

    Returns:
        `Labels`.

    Raises:
        ValueError: when a label is no class, or a split has no labelled pixels.
        FileNotFoundError: when the data does not exist.
    """
    source = SOURCES.get(task.data.partition("/")[0])
    ignore = task.ignore
    if ignore is None:
        ignore = 255 if source is None else source.ignore
    images, pixels = {}, {}
    for name, split in (("train", task.split), ("validation", task.validation)):
        dataset = load_split(task, split)
        images[name], pixels[name] = _count(dataset, ignore)
        if not pixels[name]:
            raise ValueError(
                f"The split {split!r} should have labelled pixels. Received: {images[name]} "
                f"images whose every pixel has the ignore label {ignore}."
            )
    classes = _class_names(task, source, max(pixels["train"]) + 1)
    for split in pixels:
        _check_labels(pixels[split], len(classes), split, ignore)
    training = np.array([pixels["train"][label] for label in range(len(classes))])
    return Labels(images, dataset.element_spec[0].shape[-1], classes, ignore, training)


def _count(dataset, ignore):
    """Return the number of images, and {label: pixels} without the void ones."""
    images, pixels = 0, collections.Counter()
    for _, label_map in dataset.as_numpy_iterator():
        labels, counts = np.unique(label_map, return_counts=True)
        pixels.update(dict(zip(labels.tolist(), counts.tolist(), strict=True)))
        images += 1
    del pixels[ignore]
    return images, pixels


def _class_names(task, source, occurring):
    """Return the names of the classes, numbers where none are known."""
    if source is not None:
        names = source.classes
        if isinstance(names, dict):  # by configuration, of which the first is the default
            names = names[task.data.partition("/")[2] or next(iter(names))]
        if task.num_classes in (None, len(names)):
            return list(names)
    # one class alone is nothing to learn
    return [f"class {label}" for label in range(task.num_classes or max(2, occurring))]


def _check_labels(pixels, num_classes, split, ignore):
    wrong = [label for label in sorted(pixels) if not 0 <= label < num_classes]
    if wrong:
        raise ValueError(
            f"The labels should be 0 to {num_classes - 1}, or the ignore label {ignore}. Received: "
            f"{wrong[:8]} in the {split} masks. Give the right number of classes, or, if one of "
            "them marks void pixels, give it as `ignore`."
        )


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


def count_steps(task, labels):
    """Return the batches in an epoch."""
    return task.steps or math.ceil(labels.images["train"] / task.batch_size)


def training_set(task, completed=0):
    """An endless stream of full batches (batch, crop, crop, channels), (batch, crop, crop).

    Args:
        task: `Task`.
        completed: epochs of the run that need no batches any more.
    """
    crops = load_split(
        task,
        task.split,
        crop_size=task.crop_size,
        shuffle=True,
        augment=task.augment,
        seed=task.seed + completed,  # a resumed run does not see the first epochs' crops again
    )
    return crops.repeat().batch(task.batch_size, drop_remainder=True).prefetch(2)


def validation_set(task, ignore, devices=1):
    """Whole images, one for each device: padded together, the last ones filled with void."""
    import tensorflow as tf

    def fill(images, labels):
        missing = devices - tf.shape(labels)[0]
        images = tf.pad(images, [[0, missing], [0, 0], [0, 0], [0, 0]])
        labels = tf.pad(labels, [[0, missing], [0, 0], [0, 0]], constant_values=ignore)
        return images, labels

    dataset = load_split(task, task.validation, batch_size=devices)
    return dataset if devices == 1 else dataset.map(fill)
