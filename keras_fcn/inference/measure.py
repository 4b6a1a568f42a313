"""Numbers of each object: where it is, how large, how sure, how bright."""

from collections.abc import Sequence

import numpy as np

from keras_fcn.inference.objects import ObjectSettings, object_classes


def measure_objects(
    objects: np.ndarray,
    scores: np.ndarray,
    image: np.ndarray,
    names: Sequence[str],
    settings: ObjectSettings,
) -> list[list]:
    """Measure each object.

    Args:
        objects: integer array `(height, width)` of `find_objects`.
        scores: float array `(height, width, channels)`, the probabilities.
        image: array `(height, width, channels)`.
        names: names of the classes.
        settings: as the objects were found.

    Returns:
        For each object a list of its number, class, area in pixels, centroid (row and
        column), box (top, left, bottom, right; the last two excluded), the mean of the
        probability of its class, and of the image over its channels.
    """
    from skimage.measure import regionprops

    if scores.shape[-1] == 1:
        scores = np.concatenate([1 - scores, scores], -1)
    chosen = object_classes(scores.shape[-1], settings)
    intensity = image.mean(-1)
    lines = []
    for region in regionprops(objects):
        inside = (*region.slice, slice(None))
        probabilities = scores[inside][region.image][:, chosen].mean(0)
        label = int(probabilities.argmax())
        lines.append(
            [
                region.label,
                names[chosen[label]],
                int(region.area),
                *(round(float(place), 2) for place in region.centroid),
                *region.bbox,
                round(float(probabilities[label]), 4),
                round(float(intensity[region.slice][region.image].mean()), 2),
            ]
        )
    return lines
