"""Print how well borders of some widths part touching nuclei, were every label right.

    python tools/compare_borders.py

The labels of `keras_fcn.datasets.nuclei` are taken for probabilities, the border is cut out, and
objects grow back from what is left. It is the choice of `BORDER`, and the most that a network can
reach with it, on the validation images. The data set should be prepared, see `unet_nuclei` in
weights/RECIPES.md.
"""

import numpy as np
from rich.console import Console
from rich.progress import track

from keras_fcn import datasets
from keras_fcn.datasets.masks import touching
from keras_fcn.inference.objects import ObjectSettings, find_objects
from keras_fcn.metrics import ObjectMetrics

WIDTHS = range(5)
SETTINGS = ObjectSettings(border=2)


def score(instance_maps, width):
    """Return F1 at IoU 0.5 of what is found in perfect labels with a border of this width."""
    metric = ObjectMetrics()
    for truth in instance_maps:
        labels = (truth > 0).astype(int)
        if width:
            labels[touching(truth, width) & (truth > 0)] = 2
        metric.update_state(truth, find_objects(np.eye(3)[labels], SETTINGS))
    return metric.result()["object_f1"]


def main():
    pairs = datasets.load("nuclei", "val", instances="numbers").as_numpy_iterator()
    instance_maps = [truth for _, truth in pairs]
    print("| border, pixels | object F1 |\n| --- | --- |")
    for width in track(WIDTHS, "Growing objects", console=Console(stderr=True)):
        print(f"| {width} | {score(instance_maps, width):.3f} |")


if __name__ == "__main__":
    main()
