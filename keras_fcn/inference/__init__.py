"""Predictions for images of any size, one or many, and the objects in them."""

from keras_fcn.inference.folders import FolderResult, predict_folder
from keras_fcn.inference.into import predict_into
from keras_fcn.inference.objects import (
    ObjectSettings,
    choose_thresholds,
    find_objects,
    predict_objects,
)
from keras_fcn.inference.predict import predict_image
from keras_fcn.inference.quantize import Calibration

__all__ = [
    "Calibration",
    "FolderResult",
    "ObjectSettings",
    "choose_thresholds",
    "find_objects",
    "predict_folder",
    "predict_image",
    "predict_into",
    "predict_objects",
]
