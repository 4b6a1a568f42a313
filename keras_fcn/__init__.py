"""FCN and U-Net for Keras, for images of any size."""

from keras_fcn import datasets, losses, metrics, optimizers
from keras_fcn.caffe import load_caffemodel
from keras_fcn.cards import pretrained
from keras_fcn.catalogue import from_pretrained
from keras_fcn.convolutionize import compare, dense_to_conv, fully_convolutional
from keras_fcn.fcn import FCN8s, FCN8sAtOnce, FCN16s, FCN32s
from keras_fcn.inference import predict_image
from keras_fcn.unet import UNet
from keras_fcn.vgg16 import load_vgg16

__version__ = "0.1.0"

__all__ = [
    "FCN8s",
    "FCN8sAtOnce",
    "FCN16s",
    "FCN32s",
    "UNet",
    "compare",
    "datasets",
    "dense_to_conv",
    "from_pretrained",
    "fully_convolutional",
    "load_caffemodel",
    "load_vgg16",
    "losses",
    "metrics",
    "optimizers",
    "predict_image",
    "pretrained",
]


def __getattr__(name):
    """Import the hypermodels, and with them KerasTuner, when they are first asked for."""
    if name in ("HyperFCN", "HyperUNet"):
        from keras_fcn import tuner

        return getattr(tuner, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
