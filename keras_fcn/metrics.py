"""The metrics that Keras lacks: an exact confusion matrix, boundary F1, the ISBI 2012 scores."""

import keras
import numpy as np
from keras import ops

from keras_fcn.arguments import as_label, check_positive_integer, is_number
from keras_fcn.label_maps import (
    ROUNDING,
    count_classes,
    drop_channel,
    split_labels,
    to_labels,
    weights_per_pixel,
)
from keras_fcn.object_metrics import ObjectMetrics

__all__ = ["ObjectMetrics", "SegmentationMetrics", "boundary_f1", "rand_information_scores"]

# The low word of a count stays below this, see SegmentationMetrics.
WORD = 2**20

NAME = "segmentation_metrics"  # of a metric whose scores go by their own names


@keras.saving.register_keras_serializable(package="keras_fcn")
class SegmentationMetrics(keras.metrics.Metric):
    """Mean IoU and accuracies of label maps, from one exact confusion matrix.

    With n_ij the pixels of class i that are predicted as j, and t_i the pixels of
    class i, the FCN paper (Long et al. 2015, section 5) defines

        pixel_accuracy            sum_i n_ii / sum_i t_i
        mean_accuracy             mean_i n_ii / t_i
        mean_iou                  mean_i n_ii / (t_i + sum_j n_ji - n_ii)
        frequency_weighted_iou    sum_i t_i IoU_i / sum_i t_i

    A class that occurs neither in the truth nor in the prediction has no IoU,
    and one that does not occur in the truth has no accuracy: they are left out
    of the means, as in the authors' `score.py`. Without any labelled pixel the
    scores are NaN.

    In `compile(metrics=[...])` Keras shows the four under these names, and as
    `val_mean_iou` and so on; for callbacks say `monitor="val_mean_iou",
    mode="max"`. Of a metric with another `name` they begin with it, so that two
    go side by side. Where a prediction that counts is NaN or infinite, or that of one
    channel no probability, all four are NaN: such a model has no score. On the host call
    `update_state` with NumPy arrays. The counts are integers, exact up to 2^51 pixels on
    every backend, so the scores do not depend on the size of the batches; `tf.distribute`
    adds them up over replicas.

    Args:
        num_classes: number of classes; the labels are 0 to `num_classes - 1`. 1 is
            that of a network with one channel and a sigmoid, and counts two.
        ignore_class: the label of void pixels in the truth, any integer, inside or
            outside of the classes, for example 255; by default there is none.
        name: name of the metric.

    Raises:
        ValueError: when `num_classes` is no integer from 1 up.

    Example:

    >>> import numpy as np
    >>> metric = SegmentationMetrics(num_classes=3, ignore_class=255)
    >>> metric.update_state(np.array([[0, 0, 1, 255]]), np.array([[0, 1, 1, 1]]))
    >>> {name: round(float(value), 3) for name, value in metric.result().items()}
    {'mean_iou': 0.5, 'pixel_accuracy': 0.667, 'mean_accuracy': 0.75, 'frequency_weighted_iou': 0.5}
    >>> metric.per_class_iou().tolist()
    [0.5, 0.5, nan]
    """

    def __init__(self, num_classes: int, ignore_class: int | None = None, name: str = NAME):
        super().__init__(name=name)
        check_positive_integer("num_classes", num_classes)
        self.num_classes = count_classes(int(num_classes))
        self.ignore_class = as_label("ignore_class", ignore_class)
        # JAX has no int64, so a count is high * WORD + low, in two int32. The low word
        # stays small, so that 2^11 replicas can add theirs up, and a batch of 2^30 pixels.
        shape = (self.num_classes, self.num_classes)
        self.low = self.add_variable(shape, "zeros", dtype="int", name="low")
        self.high = self.add_variable(shape, "zeros", dtype="int", name="high")
        self.unscored = self.add_variable((), "zeros", dtype="int", name="unscored")

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Count the pixels of a batch.

        Args:
            y_true: integer or float labels `(..., height, width)`, or
                `(..., height, width, 1)`.
            y_pred: probabilities or scores `(..., height, width, num_classes)`, of
                which the highest counts; or the probability of the second of two
                classes `(..., height, width, 1)`, which is it above 0.5; or integer
                labels shaped as those of `y_true`.
            sample_weight: for each image or pixel. Where it is 0 the pixels are
                left out; others count once, for a count has no fractions.

        Raises:
            ValueError: when the shapes do not fit, or when arrays on the host
                hold NaN, or labels outside of the classes that are not void.
                Tensors are not looked into, as in a compiled step nothing can
                raise: pixels of other labels are left out.
        """
        y_true, prediction, finite = self._as_labels(y_true, y_pred)
        truth, labelled, known = split_labels(y_true, self.num_classes, self.ignore_class)
        if sample_weight is not None:
            sample_weight = weights_per_pixel(sample_weight, truth.shape)
            labelled = labelled & ops.not_equal(sample_weight, 0)
        unscored = ops.any(labelled & known & ~finite)
        self.unscored.assign(ops.maximum(self.unscored, ops.cast(unscored, self.unscored.dtype)))
        predicted, _, is_class = split_labels(prediction, self.num_classes, name="y_pred")
        self._add(truth, predicted, labelled & known & finite & is_class)

    def result(self):
        """Return a dict of four scalars, see the class."""
        counts = ops.cast(self.high, "float32") * WORD + ops.cast(self.low, "float32")
        correct = ops.diagonal(counts)
        truth = ops.sum(counts, axis=1)
        union = truth + ops.sum(counts, axis=0) - correct
        iou = ops.divide_no_nan(correct, union)
        accuracy = ops.divide_no_nan(correct, truth)
        pixels = ops.sum(truth)
        scores = {
            "mean_iou": _mean(iou, union > 0),
            "pixel_accuracy": ops.sum(correct) / pixels,
            "mean_accuracy": _mean(accuracy, truth > 0),
            "frequency_weighted_iou": ops.sum(truth * iou) / pixels,
        }
        prefix = "" if self.name == NAME else f"{self.name}_"
        return {
            f"{prefix}{name}": ops.where(self.unscored > 0, np.nan, score)
            for name, score in scores.items()
        }

    def add_counts(self, counts):
        """Add the pixels of another confusion matrix, as of another metric.

        Args:
            counts: integers `(num_classes, num_classes)`, as `confusion_matrix`.
        """
        total = self.confusion_matrix + np.asarray(counts, "int64")
        self.high.assign((total // WORD).astype("int32"))
        self.low.assign((total % WORD).astype("int32"))

    @property
    def confusion_matrix(self):
        """int64 array `(num_classes, num_classes)`: pixels by true and by predicted class."""
        low, high = (ops.convert_to_numpy(ops.copy(word)) for word in (self.low, self.high))
        return high.astype("int64") * WORD + low

    def per_class_iou(self):
        """Return a float64 array `(num_classes,)`, NaN for classes that occur nowhere.

        Where a prediction that counts was NaN or infinite all are NaN.
        """
        if int(ops.convert_to_numpy(self.unscored)):
            return np.full(self.num_classes, np.nan)
        counts = self.confusion_matrix
        correct = np.diagonal(counts)
        union = counts.sum(axis=1) + counts.sum(axis=0) - correct
        return np.divide(correct, union, out=np.full(len(union), np.nan), where=union > 0)

    def _as_labels(self, y_true, y_pred):
        """Return true and predicted labels of one shape, and where a prediction is finite."""
        y_true, y_pred = (
            array if hasattr(array, "shape") else np.asarray(array) for array in (y_true, y_pred)
        )
        is_float = "float" in keras.backend.standardize_dtype(y_pred.dtype)
        rank = len(y_pred.shape) - 1 if is_float else min(len(y_true.shape), len(y_pred.shape))
        truth = drop_channel(y_true, rank)
        if is_float:
            fits = count_classes(y_pred.shape[-1]) == self.num_classes
            prediction, finite = _highest(y_pred)
        else:
            fits, prediction = True, drop_channel(y_pred, rank)
            finite = ops.ones(ops.shape(prediction), "bool")
        if not (fits and _same_shape(truth.shape, prediction.shape)):
            raise ValueError(
                f"`y_pred` should have the shape (..., height, width, {self.num_classes}), or be "
                "integer labels of the shape of `y_true`. Received: "
                f"y_true.shape={tuple(y_true.shape)}, y_pred.shape={tuple(y_pred.shape)}, "
                f"y_pred.dtype={keras.backend.standardize_dtype(y_pred.dtype)}"
            )
        return truth, prediction, finite

    def _add(self, truth, prediction, counted):
        """Add the pixels to the confusion matrix."""
        bins = self.num_classes**2
        # pixels that do not count go to a bin after the last
        index = ops.where(counted, truth * self.num_classes + prediction, bins)
        ones = ops.ones_like(index, dtype=self.low.dtype)
        counts = ops.segment_sum(ops.ravel(ones), ops.ravel(index), num_segments=bins + 1)
        low = self.low + ops.reshape(counts[:bins], self.low.shape)
        self.high.assign_add(low // WORD)
        self.low.assign(low % WORD)

    def get_config(self):
        return {
            "num_classes": self.num_classes,
            "ignore_class": self.ignore_class,
            "name": self.name,
        }


def _highest(y_pred):
    """Return the labels of scores (..., channels), and where these tell them."""
    if not ops.is_tensor(y_pred):
        labels = to_labels(y_pred)  # raises where one is not finite
        return labels, ops.ones(labels.shape, "bool")
    finite = ops.all(ops.isfinite(y_pred), axis=-1)
    if y_pred.shape[-1] == 1:
        probability = y_pred[..., 0]
        known = (probability >= -ROUNDING) & (probability <= 1 + ROUNDING)  # not before a sigmoid
        return ops.cast(probability > 0.5, "int32"), finite & known
    return ops.argmax(y_pred, axis=-1), finite


def boundary_f1(
    truth: np.ndarray,
    prediction: np.ndarray,
    num_classes: int,
    tolerance: float | None = None,
    ignore_class: int | None = None,
) -> np.ndarray:
    """Return how well the outlines of each class are met in one image.

    The boundary of a class is its pixels next to (by an edge) pixels of other
    classes; the rim of the image and of void regions is none. Precision is the
    share of the predicted boundary within `tolerance` of the true one, recall
    the share of the true boundary within `tolerance` of the predicted one, and
    the score their harmonic mean. The score of a data set is the mean over its
    images of `numpy.nanmean(scores)`.

    Args:
        truth: integer array `(height, width)`.
        prediction: integer array `(height, width)`, labels 0 to `num_classes - 1`.
        num_classes: number of classes.
        tolerance: distance in pixels; by default 0.75% of the image's diagonal,
            as in the paper.
        ignore_class: the label of void pixels in the truth; by default none.

    Returns:
        float64 array `(num_classes,)` in [0, 1]: 0 for a class with a boundary in
        one map only, NaN for one without a boundary in either.

    Raises:
        ValueError: when the maps are not of one shape `(height, width)`, or
            `tolerance` is negative.

    Source: the boundary measure (BF) of Csurka et al., What is a good evaluation
    measure for semantic segmentation?, BMVC 2013.

    Example:

    >>> import numpy as np
    >>> truth = np.repeat([[0, 0, 0, 0, 1, 1, 1, 1]], 8, axis=0)
    >>> boundary_f1(truth, np.roll(truth, 1, axis=1), num_classes=2, tolerance=1).tolist()
    [0.6666666666666666, 0.6666666666666666]
    """
    truth, prediction = _check_maps(truth, prediction)
    check_positive_integer("num_classes", num_classes)
    num_classes = count_classes(int(num_classes))
    ignore_class = as_label("ignore_class", ignore_class)
    split_labels(truth, num_classes, ignore_class, "truth")  # raises for what is no class
    split_labels(prediction, num_classes, name="prediction")
    if tolerance is None:
        tolerance = 0.0075 * np.hypot(*truth.shape)
    if not (is_number(tolerance) and tolerance >= 0):
        raise ValueError(f"`tolerance` should be from 0 up. Received: tolerance={tolerance}")
    labelled = np.full(truth.shape, True) if ignore_class is None else truth != ignore_class
    return np.array(
        [
            _boundary_f1(
                _boundary(truth == label, labelled),
                _boundary(prediction == label, labelled),
                tolerance,
            )
            for label in range(num_classes)
        ]
    )


def _boundary(mask, labelled):
    """Return the labelled pixels of a mask next to labelled pixels outside of it."""
    from scipy import ndimage

    return mask & labelled & ndimage.binary_dilation(~mask & labelled)


def _boundary_f1(truth, prediction, tolerance):
    """Return the harmonic mean of precision and recall of two boundaries, bool arrays."""
    from scipy import ndimage

    if not (truth.any() and prediction.any()):
        return 0.0 if truth.any() or prediction.any() else np.nan
    near_truth = ndimage.distance_transform_edt(~truth) <= tolerance
    near_prediction = ndimage.distance_transform_edt(~prediction) <= tolerance
    precision, recall = near_truth[prediction].mean(), near_prediction[truth].mean()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def rand_information_scores(
    truth: np.ndarray, prediction: np.ndarray, threshold: float = 0.5
) -> dict[str, float]:
    """Return the foreground-restricted Rand and information scores after thinning (ISBI 2012).

    The scores tell whether the cells of an image are told apart, not where
    exactly their borders run: a gap of one pixel in a membrane merges two cells
    and costs much, a membrane too wide costs nothing. The challenge averages
    over the slices, and takes the best threshold of 0, 0.1, ..., 1 for each score.

    The prediction is cut at `threshold`, and its membranes are thinned to lines of
    one pixel: a watershed grows the cells until they meet. The segments T of the
    truth and S of the prediction are the pieces connected by edges. Only pixels
    that are cell in the truth count; those on a predicted line are a segment each,
    as in the challenge's script. With p_ij the share of pixels in segment i of S
    and j of T, s_i and t_j its sums, H the entropy and I the mutual information,

        rand          sum p_ij^2 / (sum s_i^2 / 2 + sum t_j^2 / 2)
        information   I(S; T) / (H(S) / 2 + H(T) / 2)

    Args:
        truth: integer or bool array `(height, width)`: 0 membrane, 1 cell; or 0
            and a number for each cell.
        prediction: array `(height, width)`: probabilities of cell in [0, 1], or
            labels, 0 membrane and 1 cell.
        threshold: pixels above it are cell.

    Returns:
        Dict with `rand` and `information`, floats in [0, 1], 1 the best.

    Raises:
        ValueError: when the maps are not of one shape `(height, width)`, the
            prediction leaves [0, 1], or the truth has no cell.

    Source: Arganda-Carreras et al., Crowdsourcing the creation of image
    segmentation algorithms for connectomics, Frontiers in Neuroanatomy 9:142,
    2015; the evaluation script "Segmentation evaluation after border thinning" of
    Fiji.

    Example:

    >>> import numpy as np
    >>> truth = np.array([[1, 1, 1, 0, 1, 1, 1]])
    >>> rand_information_scores(truth, np.array([[0.9, 0.8, 0.3, 0.1, 0.2, 0.8, 0.9]]))
    {'rand': 1.0, 'information': 1.0}
    >>> merged = rand_information_scores(truth, np.full((1, 7), 0.9))
    >>> round(merged["rand"], 3), merged["information"]
    (0.667, 0.0)
    """
    from skimage import measure

    truth, prediction = _check_maps(truth, prediction)
    if not (prediction.min() >= 0 and prediction.max() <= 1):
        raise ValueError(
            "`prediction` should be the probability of cell, in [0, 1]. Received: values in "
            f"[{prediction.min()}, {prediction.max()}]. Divide 8-bit values by 255."
        )
    if not (truth >= 0).all() or (truth != np.floor(truth)).any():
        raise ValueError(
            "`truth` should hold whole numbers from 0 up, 0 for membrane. Received: values in "
            f"[{truth.min()}, {truth.max()}], dtype={truth.dtype}"
        )
    cells = measure.label(truth, connectivity=1)
    if not cells.any():
        raise ValueError("`truth` should have cells, labels above 0. Received: only label 0")
    segments = _thinned_segments(prediction > threshold)
    return _agreement(segments[cells > 0], cells[cells > 0])


def _thinned_segments(cells):
    """Number the connected cells of a bool array, grown until one-pixel lines, 0, part them.

    Skeletonizing the membranes would do the same, were it not that skeletons
    shrink from the rim of the image, and so open its cells to each other.
    """
    from skimage import measure, segmentation

    seeds = measure.label(cells, connectivity=1)
    return segmentation.watershed(~cells, seeds, connectivity=1, watershed_line=True)


def _agreement(segments, cells):
    """Return the scores of two segmentations, integer arrays `(pixels,)`."""
    lines = segments == 0
    segments = np.where(lines, segments.max() + np.cumsum(lines), segments)
    s, t = _shares(segments), _shares(cells)
    joint = _shares(segments.astype("int64") * (cells.max() + 1) + cells)
    entropies = _entropy(s) + _entropy(t)
    information = 2 * (entropies - _entropy(joint)) / entropies if entropies else 1.0
    return {
        "rand": float(2 * np.sum(joint**2) / (np.sum(s**2) + np.sum(t**2))),
        "information": float(np.clip(information, 0, 1)),  # rounding may leave the range
    }


def _shares(labels):
    """Return the share of the pixels that each label has."""
    counts = np.unique(labels, return_counts=True)[1]
    return counts / labels.size


def _entropy(shares):
    return -np.sum(shares * np.log(shares))


def _check_maps(truth, prediction):
    """Return both as arrays of one shape `(height, width)`."""
    truth, prediction = np.asarray(truth), np.asarray(prediction)
    if truth.ndim != 2 or truth.shape != prediction.shape or truth.size == 0:
        raise ValueError(
            "`truth` and `prediction` should be maps of one shape (height, width). Received: "
            f"truth.shape={truth.shape}, prediction.shape={prediction.shape}"
        )
    return truth, prediction


def _mean(values, mask):
    """Return the mean of the values where the mask holds; NaN where it holds nowhere."""
    return ops.sum(ops.where(mask, values, 0.0)) / ops.sum(ops.cast(mask, values.dtype))


def _same_shape(first, second):
    """Whether two shapes may be the same; None stands for any size."""
    return len(first) == len(second) and all(
        a == b or a is None or b is None for a, b in zip(first, second, strict=True)
    )
