"""From scores to labels, and what labels and weights of pixels may be: one rule for all.

Arrays on the host are looked into, and what can't be meant is an error. In a compiled step
nothing can raise: there a mask says which labels are whole numbers of a class.
"""

import keras
import numpy as np
from keras import ops

ROUNDING = 1e-3  # by how much other runtimes may leave [0, 1]


def count_classes(channels: int) -> int:
    """Return how many classes a network of so many output channels has.

    One channel, of a sigmoid, tells two classes apart.
    """
    return 2 if channels == 1 else channels


def to_labels(scores: np.ndarray) -> np.ndarray:
    """Return the label of each pixel.

    Args:
        scores: float array `(..., channels)`: probabilities, or any scores of two
            channels or more. One channel is the probability of class 1, and the label
            is `p > 0.5`; of more channels the highest counts.

    Returns:
        int32 array `(...)`.

    Raises:
        ValueError: when a score is NaN or infinite, or that of one channel is no
            probability.

    Example:

    >>> to_labels(np.array([[0.2], [0.7]])).tolist()
    [0, 1]
    >>> to_labels(np.array([[0.2, 0.8], [0.7, 0.3]])).tolist()
    [1, 0]
    """
    scores = np.asarray(scores)
    wrong = np.count_nonzero(~np.isfinite(scores).all(axis=-1))
    if wrong:
        raise ValueError(
            "A model should give finite scores. Received: NaN or infinite ones at "
            f"{wrong} of {scores[..., 0].size} pixels. Its weights or the image hold such "
            "numbers; train again with a lower learning rate, or mend the image."
        )
    if scores.shape[-1] == 1:
        _check_probabilities(scores)
        return (scores[..., 0] > 0.5).astype("int32")
    return scores.argmax(-1).astype("int32")


def _check_probabilities(scores):
    """Raise for scores before their sigmoid, of which 0 and not 0.5 is the middle."""
    lowest, highest = (scores.min(), scores.max()) if scores.size else (0, 1)
    if lowest < -ROUNDING or highest > 1 + ROUNDING:
        raise ValueError(
            "One channel should be the probability of class 1, in [0, 1]. Received: scores from "
            f"{lowest:.3g} to {highest:.3g}, as without a sigmoid. Let the model end in one: "
            '`keras.Sequential([model, keras.layers.Activation("sigmoid")])`.'
        )


def split_labels(y_true, num_classes, ignore_class=None, name="y_true"):
    """Return what a loss or a metric needs of true labels.

    Args:
        y_true: integer or float labels, a tensor or an array of any shape.
        num_classes: number of classes.
        ignore_class: the label of void pixels, any integer, or None.
        name: what an error calls the labels.

    Returns:
        int32 labels, 0 where there is no class; bool, whether a pixel is not void; and
        bool, whether it is void or its label is a whole number of a class.

    Raises:
        ValueError: when an array on the host holds a label that is neither.
    """
    if not ops.is_tensor(y_true):
        return _split_on_the_host(np.asarray(y_true), num_classes, ignore_class, name)
    labels = y_true
    dtype = keras.backend.standardize_dtype(labels.dtype)
    if dtype == "bool" or dtype.endswith(("int8", "int16")):
        labels = ops.cast(labels, "int32")  # or an ignore_class beyond the dtype would wrap
    beyond = ignore_class is not None and "int64" not in dtype and abs(ignore_class) >= 2**31
    if ignore_class is None or beyond:  # no label of this dtype can be void
        labelled = ops.ones_like(labels, dtype="bool")
    else:
        labelled = ops.not_equal(labels, ignore_class)
    known = (labels >= 0) & (labels < num_classes)
    if "float" in dtype:
        known = known & ops.equal(labels, ops.floor(labels))
    labels = ops.cast(ops.where(known & labelled, labels, ops.zeros_like(labels)), "int32")
    return labels, labelled, known | ~labelled


def _split_on_the_host(labels, num_classes, ignore_class, name):
    """Split a NumPy array, whose labels may be beyond the integers of a backend."""
    _check_labels(labels, num_classes, ignore_class, name)
    labelled = np.ones(labels.shape, bool) if ignore_class is None else labels != ignore_class
    labels = np.where(labelled, labels, 0).astype("int32")
    known = np.ones(labels.shape, bool)
    return tuple(ops.convert_to_tensor(array) for array in (labels, labelled, known))


def drop_channel(y_true, rank):
    """Return labels of `rank` dimensions, of those or of `(..., height, width, 1)`.

    Raises:
        ValueError: for another shape, such as that of one-hot masks.
    """
    shape = tuple(y_true.shape)
    if len(shape) == rank:
        return y_true
    if len(shape) == rank + 1 and shape[-1] == 1:
        return y_true[..., 0]
    raise ValueError(
        "`y_true` should hold one label a pixel, as (batch, height, width) or (batch, height, "
        f"width, 1). Received: y_true.shape={shape}. Of one-hot masks take `y_true.argmax(-1)`; "
        "predicted labels should be integers."
    )


def weights_per_pixel(sample_weight, shape):
    """Return sample weights of images or pixels with as many dimensions as the labels.

    Args:
        sample_weight: array or tensor `(batch,)`, `(batch, height, width)` or `(batch,
            height, width, 1)`.
        shape: of the labels, `(batch, height, width)`, None for what is free.

    Raises:
        ValueError: for another shape.
    """
    weights = ops.convert_to_tensor(sample_weight)
    given = tuple(weights.shape)
    if len(weights.shape) == len(shape) + 1 and weights.shape[-1] == 1:
        weights = weights[..., 0]
    received = tuple(weights.shape)
    of_images = all(size == 1 for size in received[1:])
    fits = all(a is None or b is None or a in (1, b) for a, b in zip(received, shape, strict=False))
    if not (
        1 <= len(received) <= len(shape) and fits and (of_images or len(received) == len(shape))
    ):
        raise ValueError(
            "`sample_weight` should be one number an image, (batch,), or a pixel, the shape of "
            f"the labels. Received: sample_weight.shape={given} for labels of "
            f"the shape {tuple(shape)}"
        )
    return ops.reshape(weights, (-1, *[1] * (len(shape) - 1))) if of_images else weights


def _check_labels(labels, num_classes, ignore_class, name):
    """Raise for labels, as a NumPy array, that are neither a class nor void."""
    if labels.dtype.kind not in "buif":
        raise ValueError(f"Labels should be integers. Received: {labels.dtype} in {name}.")
    if ignore_class is not None:
        labels = labels[labels != ignore_class]
    known = (labels >= 0) & (labels < num_classes) & (labels == np.floor(labels))
    wrong = np.unique(labels[~known])
    if wrong.size:
        raise ValueError(
            f"The labels should be whole numbers from 0 to {num_classes - 1}, or `ignore_class` in "
            f"the truth. Received: {wrong[:8].tolist()} in {name}, with num_classes={num_classes}, "
            f"ignore_class={ignore_class}"
        )
