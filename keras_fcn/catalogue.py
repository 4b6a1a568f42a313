"""The catalogue: networks with the weights that ship."""

import os
import warnings
from pathlib import Path

import keras

from keras_fcn.cards import find_card
from keras_fcn.classes import Classes
from keras_fcn.fcn import FCN8s, FCN8sAtOnce, FCN16s, FCN32s
from keras_fcn.label_maps import count_classes
from keras_fcn.layers import Predictions
from keras_fcn.unet import UNet

FACTORIES = {factory.__name__: factory for factory in (FCN8s, FCN8sAtOnce, FCN16s, FCN32s, UNet)}


def from_pretrained(name, num_classes=None):
    """Build the model that a card describes, with its weights, verified.

    Args:
        name: a name of `keras_fcn.pretrained()`.
        num_classes: classes of the new task. With another number than the
            card's, the layers whose shape depends on it start fresh, a warning
            names them, and all others keep their weights: fine-tune from there.

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
    card = find_card(name)
    model = FACTORIES[card["factory"]](**card["arguments"], weights=name, name=name)
    set_classes(model, _classes_on(card))
    if num_classes in (None, card["arguments"]["num_classes"]):
        return model
    arguments = {**card["arguments"], "num_classes": num_classes}
    fresh = FACTORIES[card["factory"]](**arguments, name=name)
    _transfer(model, fresh)
    return fresh


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


def load_model(name_or_path: str | os.PathLike) -> keras.Model:
    """Load a model by the name of its weights, or from a `.keras` file.

    Args:
        name_or_path: a name of `keras_fcn.pretrained()`, or the path of a `.keras` file.

    Returns:
        `keras.Model`.

    Raises:
        ValueError: for an unknown name, or a file that is no such model.
        FileNotFoundError: for a missing file.
    """
    text = os.fspath(name_or_path)
    if Path(text).suffix == ".keras":
        if not Path(text).exists():
            raise FileNotFoundError(f"There is no model file '{text}'.")
        return keras.saving.load_model(text, compile=False)
    if Path(text).exists():
        raise ValueError(
            "A weights file does not say which network it belongs to. Received: "
            f"'{text}'. Save the whole model with `model.save('….keras')` and pass that."
        )
    return from_pretrained(text)


def classes_of(model: keras.Model) -> Classes:
    """Return the classes of a model: those that it was given, or else numbers.

    Args:
        model: Keras model with one output, `(batch, rows, columns, channels)`.

    Returns:
        `keras_fcn.classes.Classes`, as many as the model tells apart: two for one channel.

    Example:

    >>> classes_of(UNet(num_classes=2, filters=(4, 8))).names
    ('class 0', 'class 1')
    """
    count = count_classes(model.output_shape[-1])
    layer = _find_predictions(model)
    if layer is None or layer.classes is None or len(layer.classes) != count:
        return Classes.default(count)
    return layer.classes


def set_classes(model: keras.Model, classes: Classes) -> None:
    """Tell a model what its classes are; they are saved with it.

    Args:
        model: model of this package, or any that ends in `keras_fcn.layers.Predictions`;
            changed in place.
        classes: `keras_fcn.classes.Classes`, as many as the model tells apart.

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
            f"{model.name!r}, which has none. Append one: `keras.Model(model.inputs, "
            "keras_fcn.layers.Predictions(None, classes=classes)(model.output))`."
        )
    count = count_classes(model.output_shape[-1])
    if len(classes) != count:
        raise ValueError(
            f"The model {model.name!r} tells {count} classes apart. Received: {len(classes)} "
            f"classes, {', '.join(classes.names)}."
        )
    layer.classes = classes


def _find_predictions(model):
    """Return the last layer that keeps classes, also of nested models; or None."""
    for layer in reversed(getattr(model, "layers", [])):
        found = layer if isinstance(layer, Predictions) else _find_predictions(layer)
        if found is not None:
            return found
    return None


def _classes_on(card):
    return Classes(
        card["classes"],
        card["palette"],
        ignore=card["ignore_label"],
        data=card["dataset"],
        objects=card.get("objects"),
    )
