"""FCN and U-Net for Keras, for images of any size.

The names below are imported when they are first asked for.
"""

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what type checkers and editors see of the lazy names
    from keras_fcn import (
        datasets,
        exports,
        inference,
        layers,
        losses,
        metrics,
        optimizers,
        training,
        tuning,
        visualize,
    )
    from keras_fcn.caffe import load_caffemodel
    from keras_fcn.cards import pretrained
    from keras_fcn.catalogue import classes_of, from_pretrained, load_model, set_classes
    from keras_fcn.classes import Classes
    from keras_fcn.convolutionize import compare, dense_to_conv, fully_convolutional, window_of
    from keras_fcn.evaluation import evaluate
    from keras_fcn.exports import export
    from keras_fcn.fcn import FCN8s, FCN8sAtOnce, FCN16s, FCN32s
    from keras_fcn.inference import (
        find_objects,
        predict_folder,
        predict_image,
        predict_into,
        predict_objects,
    )
    from keras_fcn.receptive_fields import receptive_field
    from keras_fcn.tuning import HyperFCN, HyperUNet
    from keras_fcn.unet import UNet
    from keras_fcn.vgg16 import load_vgg16
    from keras_fcn.visualize import architecture

__version__ = "0.1.0"

# Where each public name is: the module of a function or class, or the module itself.
_MODULES = {
    "Classes": "classes",
    "FCN8s": "fcn",
    "FCN8sAtOnce": "fcn",
    "FCN16s": "fcn",
    "FCN32s": "fcn",
    "HyperFCN": "tuning",
    "HyperUNet": "tuning",
    "UNet": "unet",
    "classes_of": "catalogue",
    "compare": "convolutionize",
    "dense_to_conv": "convolutionize",
    "export": "exports",
    "from_pretrained": "catalogue",
    "fully_convolutional": "convolutionize",
    "load_caffemodel": "caffe",
    "load_model": "catalogue",
    "load_vgg16": "vgg16",
    "evaluate": "evaluation",
    "find_objects": "inference",
    "predict_folder": "inference",
    "predict_image": "inference",
    "predict_into": "inference",
    "predict_objects": "inference",
    "pretrained": "cards",
    "receptive_field": "receptive_fields",
    "set_classes": "catalogue",
    "architecture": "visualize.architecture",
    "datasets": "datasets",
    "exports": "exports",
    "inference": "inference",
    "layers": "layers",
    "losses": "losses",
    "metrics": "metrics",
    "optimizers": "optimizers",
    "training": "training",
    "tuning": "tuning",
    "visualize": "visualize",
    "window_of": "convolutionize",
}
# Star import goes without KerasTuner, which may not be installed.
__all__ = [name for name in _MODULES if name not in ("HyperFCN", "HyperUNet", "tuning")]


def _import(name):
    """Import a public name when it is first asked for."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_MODULES[name]}")
    value = getattr(module, name, module)
    globals()[name] = value
    return value


if not TYPE_CHECKING:  # to a type checker, every name would be there
    __getattr__ = _import


def __dir__():
    return sorted({*globals(), *_MODULES})


def _is_command():
    """Whether this is the process of the command line, as a script or as `python -m keras_fcn`."""
    name = Path(*sys.argv[:1]).stem
    return name == "keras-fcn" or (name == "-m" and "keras_fcn" in sys.orig_argv)


# A saved model names our layers, and Keras finds only those that are registered. The command
# line does without until a command runs: help and errors of usage come at once.
if not _is_command():
    from keras_fcn import layers, losses, metrics, optimizers
