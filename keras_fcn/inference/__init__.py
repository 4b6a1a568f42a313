"""Predictions for images of any size."""

from keras_fcn.inference.predict import predict_image

__all__ = ["predict_image"]
