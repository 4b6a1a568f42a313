"""The public names as a user's code calls them, for the type checker; it is not run."""

from pathlib import Path

import numpy as np

import keras_fcn

image: np.ndarray = np.zeros((64, 96, 3), "uint8")
unet = keras_fcn.UNet(num_classes=2, filters=(8, 16), weights=None)
keras_fcn.FCN8s((None, None, 1), 21, weights=Path("vgg16.weights.h5"), fc_filters=64)
probabilities: np.ndarray = keras_fcn.predict_image(unet, image, tile_size=(32, 64))
into: Path = keras_fcn.predict_into(unet, image, "labels.tif", tile_size="auto")
objects: np.ndarray = keras_fcn.predict_objects(unet, image)
names: tuple = tuple(keras_fcn.classes_of(keras_fcn.load_model("unet_camvid")).names)
scores: dict = keras_fcn.evaluate(unet, [(image, np.zeros((64, 96), "uint8"))])
keras_fcn.export(unet, Path("unet.onnx"), "onnx")
keras_fcn.load_vgg16(unet, "vgg16.h5").summary()
kernel: np.ndarray = keras_fcn.dense_to_conv(np.zeros((98, 5)), (7, 7))
print(keras_fcn.compare(unet), keras_fcn.receptive_field(unet).size, keras_fcn.pretrained())
classes: keras_fcn.Classes = keras_fcn.Classes(("background", "cell"), ignore=255)
keras_fcn.set_classes(unet, classes)

# The modules are known without an import of their own, with what is in them.
keras_fcn.architecture.draw_architecture(unet, (64, 96, 3)).savefig("unet.png")
keras_fcn.visualize.overlay(image, objects, ((0, 0, 0),), ["cell"]).save("overlay.png")
found: keras_fcn.inference.FolderResult = keras_fcn.predict_folder(unet, "images", "predictions")
exported: keras_fcn.exports.Exported = keras_fcn.exports.open_export("unet.onnx")
pairs = keras_fcn.datasets.Pairs("data", "all[80%:]", 3)
keras_fcn.losses.WeightedCrossentropy(ignore_class=255)
keras_fcn.metrics.SegmentationMetrics(2, ignore_class=255)
keras_fcn.optimizers.Muon(1e-3)
keras_fcn.layers.Predictions("softmax")
recipe: keras_fcn.training.Recipe = keras_fcn.training.Recipe("data", filters=(8, 16))
search: keras_fcn.tuning.Search = keras_fcn.tuning.Search("data", trials=3)

# What is wrong is seen: were a name anything, mypy would find these comments unused.
keras_fcn.Unet  # type: ignore[attr-defined]
keras_fcn.architecture.draw  # type: ignore[attr-defined]
keras_fcn.datasets.lod  # type: ignore[attr-defined]
keras_fcn.training.Recipes  # type: ignore[attr-defined]
keras_fcn.tuning.tun  # type: ignore[attr-defined]
keras_fcn.visualize.Overlay  # type: ignore[attr-defined]
keras_fcn.training.Recipe("data", epoch=3)  # type: ignore[call-arg]
keras_fcn.export(unet, 3, "onnx")  # type: ignore[arg-type]
keras_fcn.losses.WeightedCrossentropy(ignore_class="void")  # type: ignore[arg-type]
keras_fcn.datasets.load("data", "all", batch_size="8")  # type: ignore[arg-type]
