"""The public names as a user's code calls them, for the type checker; it is not run."""

from pathlib import Path

import numpy as np

import keras_fcn

image: np.ndarray = np.zeros((64, 96, 3), "uint8")
unet = keras_fcn.UNet(num_classes=2, filters=(8, 16), weights=None)
keras_fcn.FCN8s((None, None, 1), 21, weights=Path("vgg16.weights.h5"), fc_filters=64)
probabilities: np.ndarray = keras_fcn.predict_image(unet, image, tile_size=(32, 64))
labels: Path = keras_fcn.predict_into(unet, image, "labels.tif", tile_size="auto")
objects: np.ndarray = keras_fcn.predict_objects(unet, image)
names: tuple = tuple(keras_fcn.classes_of(keras_fcn.load_model("unet_camvid")).names)
scores: dict = keras_fcn.evaluate(unet, [(image, np.zeros((64, 96), "uint8"))])
keras_fcn.export(unet, Path("unet.onnx"), "onnx")
keras_fcn.load_vgg16(unet, "vgg16.h5").summary()
kernel: np.ndarray = keras_fcn.dense_to_conv(np.zeros((98, 5)), (7, 7))
print(keras_fcn.compare(unet), keras_fcn.receptive_field(unet).size, keras_fcn.pretrained())
