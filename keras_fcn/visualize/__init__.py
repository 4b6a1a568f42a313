"""Palettes, label maps as PNG files, overlays, plots, and drawings of architectures.

Every function returns a Pillow image or a Matplotlib figure, and only `write_label_map`
and `write_png` write files.
"""

from keras_fcn.visualize.palettes import PALETTES, VOID_COLOR, voc_palette
from keras_fcn.visualize.pictures import (
    error_map,
    overlay,
    paint,
    write_label_map,
    write_png,
)
from keras_fcn.visualize.plots import (
    comparison,
    entropy_map,
    load_matplotlib,
    probability_map,
    training_curves,
)

__all__ = [
    "PALETTES",
    "VOID_COLOR",
    "comparison",
    "entropy_map",
    "error_map",
    "load_matplotlib",
    "overlay",
    "paint",
    "probability_map",
    "training_curves",
    "voc_palette",
    "write_label_map",
    "write_png",
]
