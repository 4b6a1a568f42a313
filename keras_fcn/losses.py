"""The losses for label maps that Keras lacks: class weights with void labels, Dice, borders."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_fcn.arguments import as_label
from keras_fcn.label_maps import count_classes, drop_channel, split_labels, weights_per_pixel

# Reductions of Keras that divide by the number of pixels.
MEANS = ("sum_over_batch_size", "mean")

# Labels within the losses: of void pixels, and of pixels whose label is no class.
VOID, UNKNOWN = -1, -2


@keras.saving.register_keras_serializable(package="keras_fcn")
class WeightedCrossentropy(keras.losses.Loss):
    """Cross-entropy of label maps with a weight for each class and a void label.

    Keras's `SparseCategoricalCrossentropy` ignores a label but weighs neither
    classes nor the images of a batch of maps, and the `class_weight` of
    `model.fit` takes no label maps. The loss of a pixel is

        class_weights[label] * sample_weight * -log(probability of the label)

    and the loss of a batch its sum divided by the number of pixels that are not
    void. As with Keras's `sample_weight`, the weights do not enter the divisor.

    Args:
        class_weights: one number from 0 up for each class; by default 1 each.
        ignore_class: the label of void pixels, any integer, inside or outside of
            the classes, for example 255; by default there is none.
        from_logits: whether the model gives scores instead of probabilities.
        reduction: as in `keras.losses.Loss`. `"sum"` gives the loss summed over
            pixels of the FCN paper (section 3), `None` a map of the losses.
            `"mean_with_sample_weight"` divides by the sum of the sample weights.
        name: name of the loss.
        dtype: dtype of the computation; by default Keras's float type.

    Call arguments:
        y_true: integer or float labels `(batch, height, width)`, or
            `(batch, height, width, 1)`, in [0, num_classes) or void. Other labels
            are an error in the data: of arrays on the host an exception, in a
            compiled step, where nothing can raise, a loss of NaN.
        y_pred: tensor `(batch, height, width, num_classes)`: probabilities, or
            scores with `from_logits=True`; of one channel, the probability or the
            score of the second of two classes.
        sample_weight: weights for each image `(batch,)` or pixel `(batch,
            height, width)`, for example of `border_weights`.

    Raises:
        ValueError: when a class weight is negative or not finite, their number is
            not the number of classes, a shape is another, or labels on the host are
            no classes.

    Example:

    >>> import numpy as np
    >>> loss = WeightedCrossentropy(class_weights=[1, 10], ignore_class=255)
    >>> y_true = np.array([[[0, 1, 255]]])
    >>> y_pred = np.full((1, 1, 3, 2), 0.5)
    >>> round(float(loss(y_true, y_pred)), 4)  # (1 + 10) * log(2) / 2
    3.8123
    """

    def __init__(
        self,
        class_weights: Sequence[float] | None = None,
        ignore_class: int | None = None,
        from_logits: bool = False,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: str | None = None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.class_weights = None if class_weights is None else _check_weights(class_weights)
        self.ignore_class = as_label("ignore_class", ignore_class)
        self.from_logits = from_logits

    def __call__(self, y_true, y_pred, sample_weight=None):
        y_pred = self._two_classes(ops.convert_to_tensor(y_pred, self.dtype))
        y_true = drop_channel(y_true if hasattr(y_true, "shape") else np.asarray(y_true), rank=3)
        labels, labelled, known = split_labels(y_true, y_pred.shape[-1], self.ignore_class)
        weights = ops.cast(labelled, self.dtype)
        if sample_weight is not None:
            sample_weight = weights_per_pixel(sample_weight, y_true.shape)
            weights = weights * ops.cast(sample_weight, self.dtype)
        # what does not count is not looked at: a NaN there, times 0, would still be NaN
        neutral = 0.0 if self.from_logits else 1 / y_pred.shape[-1]
        y_pred = ops.where((weights != 0)[..., None], y_pred, neutral)
        # void is from here on a label that no class has
        counts = labelled & (weights != 0)
        labels = ops.where(counts, ops.where(known, labels, UNKNOWN), VOID)
        loss = super().__call__(labels, y_pred, weights)
        if self.reduction in MEANS:
            # Keras has divided by all pixels, the void ones too
            pixels = ops.cast(labelled, self.dtype)
            share = ops.divide_no_nan(ops.sum(pixels), ops.sum(ops.ones_like(pixels)))
            loss = ops.divide_no_nan(loss, share)
        return loss

    def call(self, labels, y_pred):
        classes = _classes(labels)
        losses = ops.sparse_categorical_crossentropy(classes, y_pred, from_logits=self.from_logits)
        # a label that is no class has no loss: NaN is seen, and moves no weight
        losses = ops.where(labels == UNKNOWN, np.nan, losses)
        if self.class_weights is None:
            return losses
        if len(self.class_weights) != y_pred.shape[-1]:
            raise ValueError(
                "`class_weights` should have one number for each class. Received: "
                f"{len(self.class_weights)} weights for {y_pred.shape[-1]} classes"
            )
        weights = ops.convert_to_tensor(self.class_weights, losses.dtype)
        return losses * ops.take(weights, classes)

    def _two_classes(self, y_pred):
        """Return predictions of two classes or more: one channel is the second of two."""
        if len(y_pred.shape) != 4:
            raise ValueError(
                "`y_pred` should have the shape (batch, height, width, num_classes), or (batch, "
                "height, width, 1) of a sigmoid. Received: y_pred.shape="
                f"{tuple(y_pred.shape)}"
            )
        if count_classes(y_pred.shape[-1]) == y_pred.shape[-1]:
            return y_pred
        other = ops.zeros_like(y_pred) if self.from_logits else 1 - y_pred
        return ops.concatenate([other, y_pred], axis=-1)

    def get_config(self):
        return {
            **super().get_config(),
            "class_weights": self.class_weights,
            "ignore_class": self.ignore_class,
            "from_logits": self.from_logits,
        }


@keras.saving.register_keras_serializable(package="keras_fcn")
class DiceCrossentropy(WeightedCrossentropy):
    """Cross-entropy plus Dice loss of label maps, with a void label.

    Cross-entropy judges each pixel, Dice the overlap of each class in an image,
    however small the class. Keras's `Dice` ignores no label. The loss of a pixel
    is its cross-entropy, weighted as in `WeightedCrossentropy`, plus the Dice
    loss of its image: 1 - 2 sum(p t) / (sum(p) + sum(t)) over the labelled
    pixels, p the probability and t the truth of a class, averaged over the
    classes that occur in the truth. The other arguments, and how a batch is
    averaged, are those of `WeightedCrossentropy`; sample weights weigh the loss
    of a pixel, and do not enter the Dice sums.

    Sources: Drozdzal et al., The importance of skip connections in biomedical
    image segmentation, 2016 (this Dice loss); Isensee et al., nnU-Net, 2021,
    Methods (the sum of both).

    Example:

    >>> import numpy as np
    >>> loss = DiceCrossentropy(ignore_class=255)
    >>> y_true = np.array([[[0, 1, 255]]])
    >>> y_pred = np.full((1, 1, 3, 2), 0.5)
    >>> round(float(loss(y_true, y_pred)), 4)  # log(2) + 1/2
    1.1931
    """

    def call(self, labels, y_pred):
        labelled = ops.cast(labels >= 0, self.dtype)
        truth = ops.one_hot(_classes(labels), y_pred.shape[-1], dtype=self.dtype)
        truth = truth * labelled[..., None]
        probabilities = ops.softmax(y_pred) if self.from_logits else y_pred
        pixels = (1, 2)
        dice = keras.losses.dice(truth, probabilities * labelled[..., None], axis=pixels)
        occurs = ops.cast(ops.sum(truth, axis=pixels) > 0, self.dtype)  # (batch, num_classes)
        dice = ops.divide_no_nan(ops.sum(dice * occurs, axis=-1), ops.sum(occurs, axis=-1))
        return super().call(labels, y_pred) + dice[:, None, None]


def _classes(labels):
    """Return labels, which Keras has made float, as int32, 0 where there is no class."""
    return ops.cast(ops.maximum(labels, 0), "int32")


def border_weights(
    labels: np.ndarray,
    w0: float = 10.0,
    sigma: float = 5.0,
    class_weights: Sequence[float] | None = None,
) -> np.ndarray:
    """Return the weight map with which U-Net learns the borders between touching cells.

    The weight of a pixel is w_c + w0 * exp(-(d1 + d2)^2 / (2 sigma^2)), with d1
    and d2 its distances to the border of the nearest and of the second nearest
    cell. It is high where two cells come close and w_c elsewhere. Give it to
    `model.fit` as `sample_weight`.

    A cell is a connected piece (by edges, not corners) of one label other than
    0. So both instance maps, where each cell has its own label, and semantic
    maps, where the cells do not touch, are understood. Its border is its pixels
    next to (by an edge) pixels of other labels; the rim of the image is none.

    Args:
        labels: integer or bool array `(height, width)`; 0 is the background
            between the cells. There is no void label: set void pixels to 0.
        w0: the weight of a border of no width; 10 in the paper.
        sigma: how wide the weight reaches, pixels; 5 in the paper.
        class_weights: `(background, cell)`, the w_c that balance the two
            classes; by default 1 for both.

    Returns:
        float32 array `(height, width)`.

    Raises:
        ValueError: when `labels` is no map of integers from 0 up, or `sigma`,
            `w0` or `class_weights` is not as described.

    Source: Ronneberger et al. 2015, section 3, equation 2.

    Example:

    >>> import numpy as np
    >>> print(border_weights(np.array([[1, 1, 0, 2, 2]])).round(2))
    [[ 8.26 10.23 10.23 10.23  8.26]]
    """
    labels = _check_labels(labels)
    if not (0 < sigma < np.inf and 0 <= w0 < np.inf):
        raise ValueError(
            "`sigma` should be above 0 and `w0` from 0 up, both finite. Received: "
            f"sigma={sigma}, w0={w0}"
        )
    background, cell = (1.0, 1.0) if class_weights is None else _check_weights(class_weights, 2)
    nearest, second = _two_nearest_borders(labels, reach=int(np.ceil(7 * sigma)))
    weights = w0 * np.exp(-((nearest + second) ** 2) / (2 * sigma**2))
    return (weights + np.where(labels > 0, cell, background)).astype("float32")


def _two_nearest_borders(labels, reach):
    """Return each pixel's distances to the nearest two cell borders, inf beyond `reach`.

    Each cell needs a distance transform of its surroundings only: at 7 sigma the
    weight is below the precision of float32, and two maps are kept in all.
    """
    from scipy import ndimage
    from skimage import measure

    nearest = np.full(labels.shape, np.inf)
    second = np.full(labels.shape, np.inf)
    cells = measure.label(labels, connectivity=1)
    for number, box in enumerate(ndimage.find_objects(cells), start=1):
        window = tuple(slice(max(0, side.start - reach), side.stop + reach) for side in box)
        cell = cells[window] == number
        border = cell & ndimage.binary_dilation(~cell)
        if not border.any():  # the cell fills the image
            continue
        distance = ndimage.distance_transform_edt(~border)
        # of the three distances known, the lower two stay
        second[window] = np.minimum(second[window], np.maximum(nearest[window], distance))
        nearest[window] = np.minimum(nearest[window], distance)
    return nearest, second


def _check_labels(labels):
    """Return the labels as an integer array `(height, width)`."""
    labels = np.asarray(labels)
    if labels.ndim != 2 or labels.dtype.kind not in "biu" or labels.min(initial=0) < 0:
        raise ValueError(
            "`labels` should be one map (height, width) of integers from 0 up. Received: "
            f"shape={labels.shape}, dtype={labels.dtype}, least={labels.min(initial=0)}"
        )
    return labels.astype("int64")


def _check_weights(weights, length=None):
    """Return the weights as a list of floats, `length` of them if given."""
    array = np.asarray(weights, "float64") if np.ndim(weights) == 1 else np.array([np.nan])
    if len(array) != (length or len(array)) or not np.all(np.isfinite(array) & (array >= 0)):
        raise ValueError(
            f"`class_weights` should be a list of {length or 'finite'} numbers from 0 up, one for "
            f"each class. Received: class_weights={weights!r}"
        )
    return array.tolist()
