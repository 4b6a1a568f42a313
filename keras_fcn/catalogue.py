"""The catalogue: networks with the weights that ship."""

import warnings
from pathlib import Path

import keras

from keras_fcn.cards import find_card
from keras_fcn.classes import Classes
from keras_fcn.fcn import FCN8s, FCN8sAtOnce, FCN16s, FCN32s
from keras_fcn.label_maps import count_classes
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


def load_model(name):
    """Load a model that knows its classes, by a name or from a file.

    Args:
        name: a name of `keras_fcn.pretrained()`, or the path of a `.keras` file.

    Returns:
        A `keras.Model`; `classes_of` tells its classes.

    Raises:
        ValueError: for an unknown name, or a file that holds no model.
        FileNotFoundError: for a missing file.

    Example:

    >>> load_model("unet_camvid").output_shape
    (None, None, None, 11)
    """
    path = Path(name)
    if path.suffix == ".keras":
        if not path.is_file():
            raise FileNotFoundError(f"There is no model file '{path}'.")
        return keras.saving.load_model(path, compile=False)
    if path.exists():
        raise ValueError(
            "A weights file does not say which network it belongs to. Received: "
            f"'{path}'. Save the whole model with `model.save('….keras')` and pass that."
        )
    model, card = from_pretrained(name), find_card(name)
    model.layers[-1].classes = Classes(
        card["classes"], card["palette"], card.get("ignore_label"), card["dataset"]
    )
    return model


def classes_of(model):
    """Return the `keras_fcn.classes.Classes` of a model: its own, else numbers.

    Example:

    >>> classes_of(load_model("unet_camvid")).names[0]
    'sky'
    """
    known = getattr(model.layers[-1], "classes", None)
    return known or Classes.default(count_classes(model.output_shape[-1]))
