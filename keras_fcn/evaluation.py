"""How well a model segments images: what `keras-fcn evaluate` does."""

from collections.abc import Iterable

import keras
import numpy as np

from keras_fcn.catalogue import classes_of
from keras_fcn.inference import predict_image, predict_objects
from keras_fcn.inference.images import check_model
from keras_fcn.inference.progress import track
from keras_fcn.metrics import SegmentationMetrics
from keras_fcn.object_metrics import ObjectMetrics
from keras_fcn.remedies import spell


def evaluate(
    model: keras.Model,
    data: Iterable,
    *,
    ignore: int | None = None,
    objects: bool = False,
    **options,
) -> dict:
    """Predict every image, and score all pixels or objects together.

    Args:
        model: Keras model that gives probabilities or scores of classes; its own names
            of the classes are in the result.
        data: pairs of an image `(height, width, channels)` and its label map `(height,
            width)`, integers, as of `keras_fcn.datasets.load`, batched or not; a third
            element is a name for errors.
        ignore: the label of void pixels; by default the model's own, if it has one.
        objects: whether the maps number objects, 0 background, and these are scored (see
            `keras_fcn.object_metrics.ObjectMetrics`).
        **options: those of `predict_image`.

    Returns:
        Dict with `mean_iou`, `pixel_accuracy`, `mean_accuracy`, `frequency_weighted_iou`,
        `per_class_iou`, a dict by name, and `images`, their number; NaN for what does not
        occur. With `objects` instead `object_f1`, `object_precision`, `object_recall`,
        `average_precision` and `images`.

    Raises:
        ValueError: for a label that is no class, an image or a map that does not fit, or
            no image at all.

    Example:

    >>> from keras_fcn import UNet
    >>> model = UNet(num_classes=2, filters=(8, 16))
    >>> image, labels = np.zeros((9, 9, 3), "uint8"), np.zeros((9, 9), "uint8")
    >>> evaluate(model, [(image, labels)])["images"]
    1
    """
    check_model(model)
    classes = classes_of(model)
    ignore = classes.ignore if ignore is None else ignore
    metric = ObjectMetrics() if objects else SegmentationMetrics(len(classes), ignore)
    count = 0
    for image, truth, name in track(_singles(data), "Evaluating", _length(data)):
        count += 1
        name = name or f"image {count}"
        if objects:
            prediction = predict_objects(model, image, **options)
        else:
            _check_labels(name, truth, len(classes), ignore)
            prediction = predict_image(model, image, output="labels", **options)
        if truth.shape != prediction.shape:
            raise ValueError(
                "A label map should have the size of the prediction. Received: one of "
                f"{truth.shape} for {name}, which the model gives a map of {prediction.shape}."
            )
        metric.update_state(truth, prediction)
    if not count:
        raise ValueError("There should be at least one image to evaluate. Received: none.")
    scores = {key: float(value) for key, value in metric.result().items()}
    if not objects:
        iou = metric.per_class_iou().tolist()
        scores["per_class_iou"] = dict(zip(_unique(classes.names), iou, strict=True))
    return {**scores, "images": count}


def _singles(data):
    """Yield (image, label map, name or None) of pairs, triples and batches."""
    for image, truth, *name in data:
        image, truth = np.asarray(image), np.asarray(truth)
        if image.ndim == 4:
            yield from zip(image, truth, [None] * len(image), strict=True)
        else:
            yield image, truth, name[0] if name else None


def _length(data):
    """Return the number of elements, where it is known."""
    try:
        return len(data)
    except TypeError:
        return None


def _unique(names):
    """Return the names, with the number where one comes twice."""
    names = list(names)
    return [
        f"{name} ({label})" if names.count(name) > 1 else name for label, name in enumerate(names)
    ]


def _check_labels(name, labels, num_classes, ignore):
    """Raise for a label map with labels that the model does not know."""
    if labels.dtype.kind not in "buif" or (labels % 1).any():
        raise ValueError(f"Labels should be integers. Received: {labels.dtype} in {name}.")
    known = (labels >= 0) & (labels < num_classes)
    if ignore is not None:
        known |= labels == ignore
    wrong = np.unique(labels[~known]).tolist()
    if wrong:
        void = "no void label" if ignore is None else f"the void label {ignore}"
        raise ValueError(
            f"The labels should be 0 to {num_classes - 1}, the classes of the model, with {void}. "
            f"Received: {wrong[:8]} in {name}. If {wrong[0]} marks void pixels, pass "
            f"{spell('ignore', int(wrong[0]))}; else map the values of the masks to classes."
        )
