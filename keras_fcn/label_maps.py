"""From scores to labels: one rule for every network, with one channel or many."""

import numpy as np


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
        ValueError: when a score is NaN or infinite.

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
        return (scores[..., 0] > 0.5).astype("int32")
    return scores.argmax(-1).astype("int32")
