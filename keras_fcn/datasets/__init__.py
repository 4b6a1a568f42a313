"""Images and label maps for training and evaluation, from folders and from TFDS.

TensorFlow and TensorFlow Datasets are imported when a function needs them. The
modules `camvid`, `isbi2012`, `nuclei`, `shapes` and `voc` register their builders with TFDS
when they are imported: `import keras_fcn.datasets.camvid`, then `tfds.load("camvid")`.
"""

from keras_fcn.datasets.augmentation import Augmentation
from keras_fcn.datasets.catalogue import SOURCES, resolve_source
from keras_fcn.datasets.check import check_data, print_report
from keras_fcn.datasets.loading import add_border_weights, load
from keras_fcn.datasets.names import read_classes
from keras_fcn.datasets.pairs import Pairs

__all__ = [
    "SOURCES",
    "Augmentation",
    "Pairs",
    "add_border_weights",
    "check_data",
    "load",
    "print_report",
    "read_classes",
    "resolve_source",
]
