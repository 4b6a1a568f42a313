"""Metrics of objects: how many of an instance map's were found, and how well."""

import numpy as np

# Of average precision: the IoU above which an object counts as found, 0.5 to 0.95.
THRESHOLDS = np.arange(50, 100, 5) / 100


class ObjectMetrics:
    """F1, precision, recall and average precision of objects, over many images.

    A true and a predicted object match at a threshold t if their IoU is above t. From 0.5
    up an object then has one match at most, and no pairing has to be chosen. With TP the
    matches, FP the predicted and FN the true objects without one, counted over all images,

        object_f1           2 TP / (2 TP + FP + FN)          at IoU 0.5
        object_precision    TP / (TP + FP)                   at IoU 0.5
        object_recall       TP / (TP + FN)                   at IoU 0.5
        average_precision   the mean over t = 0.5, 0.55, ..., 0.95 of TP / (TP + FP + FN)

    A ratio of 0 to 0 is NaN.

    Source: Caicedo et al., Nucleus segmentation across imaging experiments: the 2018 Data
    Science Bowl, Nature Methods 2019 (thresholds and TP / (TP + FP + FN), there averaged
    over images); Schmidt et al., Cell detection with star-convex polygons, MICCAI 2018
    (counts over all images).

    Example:

    >>> metric = ObjectMetrics()
    >>> metric.update_state([[1, 1, 0, 2, 2]], [[7, 7, 0, 0, 0]])
    >>> {name: round(score, 3) for name, score in metric.result().items()}
    {'object_f1': 0.667, 'object_precision': 1.0, 'object_recall': 0.5, 'average_precision': 0.5}
    """

    def __init__(self):
        self.reset_state()

    def reset_state(self) -> None:
        """Forget all images."""
        self.matches = np.zeros(len(THRESHOLDS), "int64")
        self.true_objects = self.predicted_objects = 0

    def update_state(self, truth: np.ndarray, prediction: np.ndarray) -> None:
        """Count the objects of one image.

        Args:
            truth: integer array `(height, width)`: 0 background, else the number of the
                object, any from 1 up.
            prediction: the same of what was found.

        Raises:
            ValueError: when the maps are not of one shape, or not of integers from 0 up.
        """
        truth, prediction = _check_maps(truth, prediction)
        ious = iou_of_objects(truth, prediction)
        self.matches += [np.count_nonzero(ious > threshold) for threshold in THRESHOLDS]
        self.true_objects += _count(truth)
        self.predicted_objects += _count(prediction)

    def result(self) -> dict[str, float]:
        """Return the four scores as floats in [0, 1], or NaN."""
        false = self.true_objects + self.predicted_objects - 2 * self.matches  # FP + FN
        found = self.matches[0]
        return {
            "object_f1": _ratio(2 * found, 2 * found + false[0]),
            "object_precision": _ratio(found, self.predicted_objects),
            "object_recall": _ratio(found, self.true_objects),
            "average_precision": float(
                np.mean([_ratio(m, m + f) for m, f in zip(self.matches, false, strict=True)])
            ),
        }


def iou_of_objects(truth, prediction):
    """Return the IoU of each pair of a true and a predicted object that overlap: float64 (pairs,).

    Args:
        truth, prediction: integer arrays `(height, width)`, 0 background.
    """
    both = (truth > 0) & (prediction > 0)
    pairs, overlaps = np.unique(
        np.stack([truth[both], prediction[both]]), axis=1, return_counts=True
    )
    areas = [dict(zip(*np.unique(m, return_counts=True), strict=True)) for m in (truth, prediction)]
    unions = [areas[0][t] + areas[1][p] for t, p in pairs.T] - overlaps
    return overlaps / unions


def pieces_of_one(instances: np.ndarray) -> int:
    """Return how many connected pieces a map's number has; 0 where it holds several, or none.

    Example:

    >>> pieces_of_one(np.array([[255, 0, 255]]))
    2
    """
    from skimage.measure import label

    several = np.count_nonzero(np.unique(instances)) != 1
    return 0 if several else label(instances, return_num=True)[1]


def _count(instances):
    return len(np.unique(instances[instances > 0]))


def _ratio(part, whole):
    return float(part / whole) if whole else float("nan")


def _check_maps(truth, prediction):
    """Return both as integer arrays of one shape `(height, width)`."""
    maps = [np.asarray(truth), np.asarray(prediction)]
    valid = all(m.ndim == 2 and m.dtype.kind in "iu" and m.min(initial=0) >= 0 for m in maps)
    if not valid or maps[0].shape != maps[1].shape:
        raise ValueError(
            "Instance maps should have one shape (height, width) and integers from 0 up. Received: "
            + " and ".join(f"shape={m.shape}, dtype={m.dtype}" for m in maps)
        )
    return [m.astype("int64") for m in maps]
