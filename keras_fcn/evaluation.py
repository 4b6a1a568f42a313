"""How well a model segments images: what `keras-fcn evaluate` does."""

import functools
import itertools
import math
import os
import warnings
from collections.abc import Iterable, Iterator

import keras
import numpy as np

from keras_fcn.arguments import as_label
from keras_fcn.catalogue import classes_of
from keras_fcn.classes import unique
from keras_fcn.evaluation_record import Scored, digest_of
from keras_fcn.evaluation_report import open_report, outline_panels, paint_panels
from keras_fcn.inference import ObjectSettings, find_objects
from keras_fcn.inference.batches import in_batches, read_ahead
from keras_fcn.inference.folders import DEFAULTS
from keras_fcn.inference.images import check_model
from keras_fcn.inference.ledger import fingerprint
from keras_fcn.inference.predict import (
    check_options,
    errors_of_an_image,
    network_of,
    predict_images,
)
from keras_fcn.inference.progress import track
from keras_fcn.inference.quantize import fingerprint_of
from keras_fcn.metrics import SegmentationMetrics
from keras_fcn.object_metrics import ObjectMetrics, pieces_of_one
from keras_fcn.remedies import spell

SCATTERED = 3  # pieces of one number, from which on it is hardly one object


def evaluate(
    model: keras.Model,
    data: Iterable,
    *,
    ignore: int | None = None,
    objects: bool = False,
    output: str | os.PathLike | None = None,
    **options,
) -> dict:
    """Predict every image, and score all pixels or objects together.

    An image that can't be read or predicted, or whose label map does not fit, is set aside,
    and the rest goes on. With `output` this folder gets `scores.csv`, the scores of each
    image, `worst.png`, the images of the lowest ones, `errors.csv`, what was set aside,
    and `evaluation.json`, what is returned; and the same call again scores only what is new,
    as after a kill.

    Args:
        model: Keras model that gives probabilities or scores of classes; its own names
            of the classes are in the result.
        data: pairs of an image `(height, width, channels)` and its label map `(height,
            width)` or `(height, width, 1)`, integers, as of `keras_fcn.datasets.load`,
            batched or not; a third element is a name. Of a sequence, as
            `keras_fcn.datasets.Pairs`, an element that can't be read is set aside.
        ignore: the label of void pixels; by default the model's own, if it has one.
        objects: whether the maps number objects, 0 background, and these are scored (see
            `keras_fcn.object_metrics.ObjectMetrics`).
        output: folder to write to, made if need be.
        **options: those of `predict_image`.

    Returns:
        Dict with `mean_iou`, `pixel_accuracy`, `mean_accuracy`, `frequency_weighted_iou`,
        `per_class_iou`, a dict by name, and `images`, their number; NaN for what does not
        occur. With `objects` instead `object_f1`, `object_precision`, `object_recall`,
        `average_precision` and `images`. Where images were set aside also `failed`, a dict
        of their names and errors.

    Raises:
        ValueError: for options that `predict_image` does not take, without any image,
            where all are set aside, for the reason of the first, and for void pixels alone.
        FileExistsError: when `output` holds a file of the same name that no evaluation
            wrote, the scores of other weights or options, or another is at work in it.

    Warns:
        UserWarning: when images were set aside.

    Example:

    >>> from keras_fcn import UNet
    >>> model = UNet(num_classes=2, filters=(8, 16))
    >>> image, labels = np.zeros((9, 9, 3), "uint8"), np.zeros((9, 9), "uint8")
    >>> evaluate(model, [(image, labels)])["images"]
    1
    """
    check_model(model)
    check_options(model, takes="objects" if objects else "labels", **options)
    if isinstance(data, str | os.PathLike):
        raise ValueError(
            f"`data` should be pairs of images and label maps. Received: the path '{data}'. Pass "
            f"`keras_fcn.datasets.Pairs({str(data)!r})`."
        )
    scorer = _Objects(model, options) if objects else _Pixels(model, ignore, options)
    if output is None:
        return _evaluate(scorer, data, None, None)
    run = {"weights": fingerprint(model), "objects": objects, "ignore": scorer.ignore}
    run |= DEFAULTS | {name: value for name, value in options.items() if name in DEFAULTS}
    run["calibration"] = fingerprint_of(run["calibration"])
    with open_report(output) as report:
        return _evaluate(scorer, data, report, Scored(report.folder, run))


def read_pairs(data: Iterable) -> Iterator[tuple]:
    """Yield the name of each image, and its image and label map or the error of reading them.

    Args:
        data: as of `evaluate`.
    """
    count = 0
    for name, element in _elements(data):
        if isinstance(element, Exception):
            count += 1
            yield name or f"image {count}", element
            continue
        image, truth, *rest = _check_element(element)  # a name, or Keras's sample weights
        image, truth = np.asanyarray(image), np.asanyarray(truth)  # with a mask, to be told of
        if truth.ndim == image.ndim > 2 and truth.shape[-1] == 1:
            truth = truth[..., 0]
        name = rest[0] if rest and isinstance(rest[0], str) else name
        singles = zip(image, truth, strict=True) if image.ndim == 4 else [(image, truth)]
        for pair in singles:
            count += 1
            yield name or f"image {count}", pair


def _check_element(element):
    """Return an element of the data; raise unless it is a pair, or more."""
    if isinstance(element, tuple | list) and len(element) > 1:
        return element
    raise ValueError(
        "Each element of `data` should be a pair of an image and a label map. Received: one of "
        f"{type(element).__name__}. Of arrays of images and of label maps pass `zip(images, "
        "label_maps)`; of dicts the two in each, as `((item['image'], item['mask']) for item in "
        "data)`."
    )


def _elements(data):
    """Yield a name or None, and an element; of a sequence one is read ahead, or gives its error."""
    if not hasattr(data, "__getitem__"):
        for element in data:
            yield None, element
        return
    names = getattr(data, "names", [None] * len(data))
    coming = read_ahead(data.__getitem__, range(len(data)), _count_pixels)
    for name, future in zip(names, coming, strict=True):
        try:
            element = future.result()
        except errors_of_an_image() as error:
            element = error
        yield name, element


def _count_pixels(element):
    return math.prod(np.shape(_check_element(element)[0])[:-1])


class _Batch:
    """Images of one shape, which go through the network together when the first is asked for."""

    def __init__(self, scorer, images):
        self.scorer, self.images = scorer, images

    @functools.cached_property
    def _predictions(self):
        scorer = self.scorer
        return predict_images(scorer.model, self.images, scorer.network, **scorer.options)

    def __getitem__(self, number):
        prediction = self._predictions[number]
        if isinstance(prediction, Exception):
            raise prediction
        return prediction


def _predicted(scorer, pairs):
    """Yield the name of each image, its image and label map or the error, and a function of none.

    That predicts it, with the small images of its shape beside it, whether or not these are
    asked for: so an evaluation that goes on gives the scores of an undisturbed one.
    """
    for batch in in_batches(pairs, _shape):
        images = [found[0] for _, found in batch if not isinstance(found, Exception)]
        together = _Batch(scorer, images)
        for number, (name, found) in enumerate(batch):
            yield name, found, functools.partial(together.__getitem__, number)


def _shape(entry):
    _, found = entry
    return None if isinstance(found, Exception) or found[0].ndim < 2 else found[0].shape


def _evaluate(scorer, data, report, scored):
    """Return the scores of the data, and report them."""
    total, failed, count = scorer.metric(), {}, 0
    pairs = track(read_pairs(data), "Evaluating", _length(data))
    for name, found, predict in _predicted(scorer, pairs):
        try:
            if isinstance(found, Exception):
                raise found
            own, panels, digest = _score(scorer, name, *found, predict, report, scored)
        except errors_of_an_image() as error:
            failed[_another(name, failed)] = error
            continue
        count += 1
        scorer.add(total, scorer.counts(own))
        if report is not None:
            report.add(name, _flatten(scorer.scores(own)), scorer.rank, panels)
            if (name, digest) not in scored.counts:
                scored.add(name, digest, scorer.counts(own))
    scores = {**scorer.scores(total), "images": count}
    if failed:
        scores["failed"] = {name: str(error) for name, error in failed.items()}
    if report is not None:
        report.write(scores, scorer.legend)
    _tell(count, failed)
    if math.isnan(scores.get("pixel_accuracy", 0)):
        raise ValueError(
            "Some label map should show another label than that of void pixels. Received: "
            f"{count} maps of {scorer.ignore} alone. Check that {spell('ignore')} is the label of "
            "void pixels, and not a class."
        )
    return scores


def _another(name, names):
    """Return a name, with a number where others have it already."""
    numbered = (f"{name} ({number})" for number in itertools.count(2))
    return name if name not in names else next(other for other in numbered if other not in names)


def _score(scorer, name, image, truth, predict, report, scored):
    """Return the metric of one image, the pictures of it if it may be among the worst, its digest.

    What an earlier evaluation has scored is not predicted again.
    """
    own, digest = scorer.metric(), None
    if report is not None:
        digest = digest_of(image, truth)
        counts = scored.counts.get((name, digest))
        if counts is not None:
            scorer.add(own, counts)
            if not report.takes(scorer.scores(own)[scorer.rank]):
                return own, None, digest
            panels = scored.panels(digest)
            if panels is not None:
                return own, panels, digest
            own = scorer.metric()  # the pictures are drawn again
    prediction = scorer.predict(name, truth, predict)
    own.update_state(truth, prediction)
    panels = None
    if report is not None and report.takes(scorer.scores(own)[scorer.rank]):
        panels = scorer.panels(image, truth, prediction)
        scored.keep(digest, panels)
    return own, panels, digest


def _tell(count, failed):
    """Raise without a score, and warn of one that is not of all images."""
    if not count and not failed:
        raise ValueError("There should be at least one image to evaluate. Received: none.")
    if not count:
        raise next(iter(failed.values()))
    if failed:
        name, error = next(iter(failed.items()))
        warnings.warn(
            f"The scores are those of {count} images; {len(failed)} of {count + len(failed)} were "
            f"set aside, the first '{name}': {error}",
            stacklevel=4,
        )


class _Scorer:
    """What is predicted of an image, counted and drawn; subclasses say which.

    Attributes:
        rank: the score of which the lowest are the worst.
        legend: of the picture of the worst images: {name: colour}.
    """

    def predict(self, name, truth, predict):
        """Return the prediction, of the size of the truth, by what predicts one image."""
        if np.ma.is_masked(truth):
            raise ValueError(
                "A label map should have no masked pixels, as their labels would count. Received: "
                f"one of '{name}'. If they are void, pass `label_map.filled(255)` and `ignore=255`."
            )
        self.check(name, truth)
        prediction = self.finish(predict())
        if truth.shape != prediction.shape:
            one_hot = truth.ndim == 3 and truth.shape[:2] == prediction.shape
            remedy = " Of one-hot masks take `label_map.argmax(-1)`." if one_hot else ""
            raise ValueError(
                "A label map should have the size of the prediction. Received: one of "
                f"{truth.shape} for '{name}', which the model gives a map of {prediction.shape}."
                f"{remedy}"
            )
        return prediction


class _Objects(_Scorer):
    """Instance maps: 0 background, else the number of the object."""

    rank, metric = "object_f1", ObjectMetrics

    def __init__(self, model, options):
        self.model, self.options, self.legend, self.ignore = model, options, {}, None
        self.network, self.settings = network_of(model, **options), ObjectSettings.of(model)
        self.questioned = False

    def finish(self, prediction):
        """Return the objects in the probabilities."""
        return find_objects(prediction, self.settings)

    def check(self, name, truth):
        """Raise for what numbers no objects."""
        if truth.dtype.kind not in "iu" or truth.min(initial=0) < 0:
            raise ValueError(
                "Maps of objects should hold integers from 0 up. Received: "
                f"{truth.dtype} from {truth.min()} in the map of '{name}'."
            )
        if not self.questioned and (pieces := pieces_of_one(truth)) >= SCATTERED:
            self.questioned = True
            warnings.warn(
                "Maps of objects should number each; of a mask of classes all count as one. "
                f"Received: the number {truth.max()} alone for {pieces} pieces in the map of "
                f"'{name}'. If they are objects, number them, as `skimage.measure.label(mask)` "
                f"does; if not, leave out {spell('objects', True)}.",
                stacklevel=6,
            )

    def counts(self, metric):
        """Return what a metric has counted, as JSON stores it."""
        return [metric.matches.tolist(), metric.true_objects, metric.predicted_objects]

    def add(self, metric, counts):
        """Count what another metric has counted, too."""
        matches, true_objects, predicted_objects = counts
        metric.matches += matches
        metric.true_objects += true_objects
        metric.predicted_objects += predicted_objects

    def scores(self, metric):
        """Return the scores, by name."""
        return metric.result()

    def panels(self, image, truth, prediction):
        """Return pictures of the image and of the outlines in it."""
        return outline_panels(image, truth, prediction)


class _Pixels(_Scorer):
    """Label maps: a class for each pixel, or void."""

    rank = "mean_iou"

    def __init__(self, model, ignore, options):
        self.classes = classes_of(model)
        self.ignore = self.classes.ignore if ignore is None else as_label("ignore", ignore)
        self.model, self.options = model, {"output": "labels", **options}
        self.network = network_of(model, **options)
        self.names = unique(self.classes.names)
        self.legend = dict(zip(self.names, self.classes.palette.tolist(), strict=True))

    def finish(self, prediction):
        """Return the labels, as they are predicted."""
        return prediction

    def metric(self):
        """Return a metric that has seen nothing."""
        return SegmentationMetrics(len(self.classes), self.ignore)

    def check(self, name, truth):
        """Raise for labels that the model does not know."""
        _check_labels(name, truth, len(self.classes), self.ignore)

    def counts(self, metric):
        """Return what a metric has counted, as JSON stores it."""
        return metric.confusion_matrix.tolist()

    def add(self, metric, counts):
        """Count what another metric has counted, too."""
        metric.add_counts(counts)

    def scores(self, metric):
        """Return the scores, by name, and those of the classes in a dict of their own."""
        scores = {key: float(value) for key, value in metric.result().items()}
        iou = metric.per_class_iou().tolist()
        return {**scores, "per_class_iou": dict(zip(self.names, iou, strict=True))}

    def panels(self, image, truth, prediction):
        """Return pictures of the image, the truth, the prediction and what is wrong in it."""
        return paint_panels(image, truth, prediction, self.classes.palette, self.ignore)


def _flatten(scores):
    """Return the scores without a dict in them."""
    per_class = scores.pop("per_class_iou", {})
    return {**scores, **{f"iou {name}": value for name, value in per_class.items()}}


def _length(data):
    """Return the number of elements, where it is known."""
    try:
        return len(data)
    except TypeError:
        return None


def _check_labels(name, labels, num_classes, ignore):
    """Raise for a label map with labels that the model does not know."""
    if labels.dtype.kind not in "buif" or (labels % 1).any():
        raise ValueError(
            f"Labels should be integers. Received: {labels.dtype} in the map of '{name}'."
        )
    known = (labels >= 0) & (labels < num_classes)
    if ignore is not None:
        known |= labels == ignore
    wrong = np.unique(labels[~known]).tolist()
    if wrong:
        void = "no void label" if ignore is None else f"the void label {ignore}"
        raise ValueError(
            f"The labels should be 0 to {num_classes - 1}, the classes of the model, with {void}. "
            f"Received: {wrong[:8]} in the map of '{name}'. If {wrong[0]} marks void pixels, pass "
            f"{spell('ignore', int(wrong[0]))}; else map the values of the masks to classes."
        )
