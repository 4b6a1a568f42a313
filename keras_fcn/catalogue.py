"""The catalogue: networks with the weights that ship, and models from files, with their classes."""

import os
import warnings
import weakref
from pathlib import Path

import keras

from keras_fcn.cards import find_card, pretrained
from keras_fcn.classes import Classes
from keras_fcn.fcn import FCN8s, FCN8sAtOnce, FCN16s, FCN32s
from keras_fcn.label_maps import count_classes
from keras_fcn.layers import Predictions
from keras_fcn.remedies import choose, remake
from keras_fcn.unet import UNet
from keras_fcn.weights import read_model

FACTORIES = {factory.__name__: factory for factory in (FCN8s, FCN8sAtOnce, FCN16s, FCN32s, UNet)}

# Weights that a factory takes, and that are no network by themselves: how to get one with them.
PARTS = {
    "imagenet": (
        "VGG16's weights, for the first layers of a network to train",
        'keras_fcn.FCN8s(num_classes=..., weights="imagenet")` or `keras_fcn.UNet(num_classes=..., '
        'encoder="vgg16", weights="imagenet")',
    ),
    "pascal_voc": (
        "the FCN authors', for their networks",
        'keras_fcn.FCN8s(weights="pascal_voc", padding="valid")',
    ),
}

_files: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()  # of each model that was read


def load_model(name_or_path: str | os.PathLike) -> keras.Model:
    """Return the model that a name or a file stands for; it knows its classes.

    A `.keras` file may hold any Keras model that makes one map of an image. It is read
    without running anything that is in it: a `Lambda` or a class that is not Keras's, this
    package's or registered by you is refused, as is a file that is damaged, claims to hold
    far more than it does, or has weights that are NaN or infinite.

    Args:
        name_or_path: a name of `keras_fcn.pretrained()`, or the path of a file that
            `model.save("….keras")`, `keras_fcn.training.train` or the command
            `keras-fcn train` wrote.

    Returns:
        `keras.Model`, not compiled. `classes_of` tells its classes.

    Raises:
        ValueError: for an unknown name, a file that is no such model, or a model whose
            output is no map.
        FileNotFoundError: for a missing file.

    Example:

    >>> model = load_model("unet_camvid")
    >>> classes_of(model).names[:2]
    ('sky', 'building')
    """
    text = os.fspath(name_or_path)
    is_name = os.sep not in text and Path(text).suffix not in (".keras", ".h5")
    if is_name and (text in pretrained() or not Path(text).exists()):
        return from_pretrained(text)
    model = read_model(text)
    _check_output(model, text)
    _files[model] = text
    return model


def file_of(model: keras.Model) -> str | None:
    """Return the path that `load_model` has read a model from; None for another model."""
    return _files.get(model)


def from_pretrained(name: str, num_classes: int | None = None) -> keras.Model:
    """Build the model that a card describes, with its weights, verified, and its classes.

    Args:
        name: a name of `keras_fcn.pretrained()`.
        num_classes: classes of the new task. With another number than the card's, the
            layers whose shape depends on it start fresh, a warning names them, and all
            others keep their weights: fine-tune from there. 1 makes one score with a
            sigmoid, for two classes. With the card's own number the score layer is kept,
            and a warning says what its classes are.

    Returns:
        A `keras.Model` from `(batch, height, width, channels)` pixels in
        [0, 255] to `(batch, height, width, num_classes)` probabilities.

    Raises:
        ValueError: for an unknown name, or a file that is not the card's.
        FileNotFoundError: when the weights file is missing.

    Example:

    >>> model = from_pretrained("unet_camvid")
    >>> model.output_shape
    (None, None, None, 11)
    """
    _refuse_part(name)
    card = find_card(name)
    model = FACTORIES[card["factory"]](**card["arguments"], weights=name, name=name)
    if num_classes is None:
        return model
    if num_classes == card["arguments"]["num_classes"]:
        warnings.warn(
            f"{name!r} keeps its score layer, whose {num_classes} classes are "
            f"{', '.join(card['classes'])}. "
            + choose(
                "For other classes call `keras_fcn.set_classes`, and train.",
                "It learns those of the data, which are as many.",
            ),
            stacklevel=2,
        )
        return model
    arguments = {**card["arguments"], "num_classes": num_classes}
    if num_classes == 1:
        arguments["classifier_activation"] = "sigmoid"
    fresh = FACTORIES[card["factory"]](**arguments, name=name)
    _transfer(model, fresh)
    return fresh


def classes_of(model: keras.Model) -> Classes:
    """Return the classes of a model: those that it was given, or else numbers.

    Args:
        model: Keras model with one output, `(batch, rows, columns, channels)`.

    Returns:
        `keras_fcn.Classes`, as many as the model tells apart: two for one channel.

    Example:

    >>> classes_of(UNet(num_classes=2, filters=(4, 8))).names
    ('class 0', 'class 1')
    """
    count = count_classes(model.outputs[0].shape[-1])
    layer = _find_predictions(model)
    if layer is None or layer.classes is None or len(layer.classes) != count:
        return Classes.default(count)
    return layer.classes


def set_classes(model: keras.Model, classes: Classes) -> None:
    """Tell a model what its classes are; they are saved with it.

    Args:
        model: model of this package, or any that ends in `keras_fcn.layers.Predictions`;
            changed in place.
        classes: `keras_fcn.Classes`, as many as the model tells apart.

    Raises:
        ValueError: for another number of classes, or a model without such a layer.

    Example:

    >>> model = UNet(num_classes=2, filters=(4, 8))
    >>> set_classes(model, Classes(("background", "cell"), ignore=255))
    >>> classes_of(model).ignore
    255
    """
    layer = _find_predictions(model)
    if layer is None:
        raise ValueError(
            "A model keeps its classes in a layer `keras_fcn.layers.Predictions`. Received: "
            f"{model.name!r}, which has none. Append one: {_append(file_of(model))}."
        )
    count = count_classes(model.outputs[0].shape[-1])
    if len(classes) != count:
        raise ValueError(
            f"The model {model.name!r} tells {count} classes apart. Received: {len(classes)} "
            f"classes, {', '.join(classes.names)}."
        )
    layer.classes = classes


def _append(path):
    layer = choose("Predictions(None, classes=classes)", "Predictions(None)")
    made = f"keras.Model(model.inputs, keras_fcn.layers.{layer}(model.outputs[0]))"
    return remake(made, path, "classes")


def _find_predictions(model):
    """Return the last layer that keeps classes, also of nested models; or None."""
    for layer in reversed(getattr(model, "layers", [])):
        found = layer if isinstance(layer, Predictions) else _find_predictions(layer)
        if found is not None:
            return found
    return None


def _refuse_part(name):
    if name in PARTS:
        what, call = PARTS[name]
        train = "keras-fcn train --weights imagenet --encoder vgg16 --data DIR --output DIR"
        remedy = choose(f"Build one: `{call}`.", f"Train one: `{train}`.")
        raise ValueError(
            f"A pretrained network goes by one of the names {sorted(pretrained())}. Received: "
            f"{name!r}, which are weights ({what}), not a network with classes. {remedy}"
        )


def _check_output(model, text):
    """Raise `ValueError` unless the model makes one map of an image."""
    if not getattr(model, "inputs", None):
        raise ValueError(
            "A model for predictions should be functional or Sequential. Received: "
            f"{text!r}, a {type(model).__name__}. Save `keras.Model(images, model.call(images))`, "
            "of `images = keras.Input((None, None, channels))`."
        )
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ValueError(
            "A model for predictions should take one image and make one map. Received: "
            f"{text!r} with {len(model.inputs)} inputs and {len(model.outputs)} outputs. Save "
            "the part that you need: "
            f"{remake('keras.Model(model.inputs, model.outputs[0])', text, 'first')}."
        )
    taken, made = model.inputs[0].shape, model.outputs[0].shape
    if len(taken) == 4 and len(made) == 2:
        raise ValueError(
            "A model for predictions should make a map (batch, height, width, classes). "
            f"Received: {text!r}, a classifier with an output of the shape {made}. Let it slide "
            f"over the image: {remake('keras_fcn.fully_convolutional(model)', text, 'slides')}."
        )
    if len(taken) != 4 or len(made) != 4 or None in (taken[-1], made[-1]):
        raise ValueError(
            "A model for predictions should make a map (batch, height, width, classes) of "
            f"images (batch, height, width, channels). Received: {text!r}, from the shape {taken} "
            f"to {made}."
        )


def _transfer(source, target):
    """Copy all layers that fit from one model to another; warn of those that do not."""
    fresh = []
    for layer in target.layers:
        weights = source.get_layer(layer.name).get_weights()
        if [w.shape for w in weights] == [tuple(w.shape) for w in layer.weights]:
            layer.set_weights(weights)
        else:
            fresh.append(layer.name)
    warnings.warn(
        f"These layers of {target.name!r} start fresh, because the number of classes is another "
        f"than that of the pretrained weights: {', '.join(fresh)}",
        stacklevel=3,
    )
