"""The network of a recipe, with the weights from which it starts."""

import re
import warnings
from pathlib import Path

import keras

from keras_fcn import catalogue
from keras_fcn.arguments import suggest
from keras_fcn.cards import pretrained
from keras_fcn.catalogue import from_pretrained, load_model
from keras_fcn.inference.predict import check_options
from keras_fcn.layers import BatchNormalization, Predictions
from keras_fcn.private import copy_state, flat_layers
from keras_fcn.remedies import given, spell
from keras_fcn.training.recipe import ARCHITECTURE, FACTORIES

ENCODER = re.compile(r"conv\d_\d(_bn)?")  # the convolutions of the contracting path
# Layers that compute in float32 under every policy.
FLOAT32 = re.compile(r"preprocessing|score.*|upscore.*|crop_.*|fuse_.*|predictions")
CLASSES = re.compile(r"score.*|upscore.*")  # layers with a filter for each class


def build(recipe, num_classes, channels):
    """Return the network of a recipe, with the weights from which it starts.

    Args:
        recipe: `Recipe`.
        num_classes: channels of the output; 1 for a sigmoid.
        channels: channels of the images.
    """
    if recipe.is_shipped:
        model = from_pretrained(recipe.weights, num_classes)
        _check_channels(model, recipe, channels)
        return model
    found = {}
    if recipe.has_architecture:
        source = load_model(recipe.weights)
        found = describe(source)
        if recipe.model in (None, found.get("model")):
            _check_channels(source, recipe, channels)
            _check_given(recipe, found)
            if source.layers[-1].name != "predictions":  # which becomes a softmax or a sigmoid
                check_options(source, takes="objects")  # the loss is of probabilities
            if (recipe.num_classes, num_classes, source.output_shape[-1]) == (None, 2, 1):
                num_classes = 1  # two classes told apart by one sigmoid, as before
            return rebuild(source, num_classes, recipe.dropout)
    given = {name: getattr(recipe, name) for name in ARCHITECTURE if name != "model"}
    given = {name: value for name, value in given.items() if value is not None}
    if recipe.network != "unet":  # a finer FCN from a coarser one's file
        shared = {name: found[name] for name in ("fc_filters", "batch_norm") if name in found}
        given = shared | given
    return catalogue.FACTORIES[FACTORIES[recipe.network]](
        input_shape=(None, None, channels),
        num_classes=num_classes,
        classifier_activation="sigmoid" if num_classes == 1 else "softmax",
        weights=recipe.weights,
        **given,
    )


def check_weights(recipe):
    """Raise for weights that are neither a name nor a file, before the data is read."""
    names = ["imagenet", *pretrained()]
    if recipe.weights in (None, "pascal_voc", *names) or Path(recipe.weights).exists():
        return
    raise FileNotFoundError(
        f"{spell('weights')} should be {', '.join(names)}, or the path of a file. Received: "
        f"{str(recipe.weights)!r}, and there is no such name or file."
        f"{suggest(recipe.weights, names)}"
    )


def describe(model):
    """Return the arguments of `Recipe` that a model of this package stands for."""
    layers = {layer.name: layer for layer in model.layers}
    described = {
        "batch_norm": any(
            isinstance(layer, keras.layers.BatchNormalization) for layer in model.layers
        ),
    }
    if "fc6" in layers:
        kinds = {"scale_pool3": "fcn8s_at_once", "fuse_pool3": "fcn8s", "fuse_pool4": "fcn16s"}
        kind = next((kind for layer, kind in kinds.items() if layer in layers), "fcn32s")
        return {**described, "model": kind, "fc_filters": layers["fc6"].filters}
    if "upconv1" in layers:
        encoder = "vgg16" if "norm1" in layers else None
        # with an encoder, the deepest level is its own, whatever `filters` said of it
        first = r"up\d_conv1|conv5_1" if encoder else r"conv\d_1"
        names = sorted((name for name in layers if re.fullmatch(first, name)), key=_level)
        described |= {
            "model": "unet",
            "filters": tuple(layers[name].filters for name in names),
            "encoder": encoder,
            "upsampling": "bilinear" if "upsample1" in layers else "transpose",
        }
    return described


def _level(name):
    return int(re.search(r"\d", name)[0])


def _check_given(recipe, found):
    """Raise for arguments that contradict the file's network."""
    for name in ("filters", "encoder", "upsampling", "fc_filters", "batch_norm"):
        wanted, own = getattr(recipe, name), found.get(name)
        if name == "filters" and found.get("encoder") and wanted is not None:
            own = (*own[:-1], *wanted[len(own) - 1 :])
        if wanted is not None and wanted != own:
            raise ValueError(
                f"A .keras file brings its network. Received: {given(name, wanted)} with the "
                f"weights {recipe.weights!r}, whose network has {given(name, own)}. Leave "
                f"{spell(name)} out, or train from scratch, without {spell('weights')}."
            )


def _check_channels(model, recipe, channels):
    if model.input_shape[-1] != channels:
        raise ValueError(
            f"The weights {recipe.weights!r} take images of {model.input_shape[-1]} channels. "
            f"Received: data with {channels}. Train from scratch, without {spell('weights')}."
        )


def rebuild(source, num_classes, dropout=None):
    """Return a network like `source` with its weights, in the current precision.

    Args:
        source: Keras model.
        num_classes: channels of the output. With another number than the source's the
            score layers start fresh, and a warning names them.
        dropout: rate of its dropout layers; by default as it is.
    """
    policy = keras.config.dtype_policy()
    _refuse_quantized(source)

    def clone(layer):
        config, kind = layer.get_config(), type(layer)
        if not FLOAT32.fullmatch(layer.name):
            config["dtype"] = policy
        if CLASSES.fullmatch(layer.name) and "filters" in config:
            config["filters"] = num_classes
        fresh = num_classes != source.output_shape[-1]
        if layer.name == "predictions" and (fresh or config["activation"] == "linear"):
            config["activation"] = "sigmoid" if num_classes == 1 else "softmax"
        if dropout is not None and isinstance(layer, keras.layers.Dropout):
            config["rate"] = dropout
        if layer.name == "predictions":  # of older files a plain activation
            kind = Predictions
        if kind is keras.layers.BatchNormalization:  # of older files, which learns slowly
            kind = BatchNormalization
        return kind.from_config(config)

    model = keras.models.clone_model(source, clone_function=clone)
    if model.output_shape[-1] != num_classes:
        raise ValueError(
            "The layers with a filter for each class should be named score…, as in this package's "
            f"networks. Received: {source.name!r} with {source.output_shape[-1]} classes, for "
            f"{num_classes}. Replace its last layers, and save it again."
        )
    _copy_weights(source, model)
    return model


def _refuse_quantized(model):
    names = [x.name for x in flat_layers(model) if getattr(x, "quantization_mode", None)]
    if names:
        raise ValueError(
            "A network to train should have weights that are floats. Received: "
            f"{model.name!r}, of which {', '.join(names)} hold others, as after `model.quantize`. "
            "Pass the file from before that."
        )


def _copy_weights(source, target):
    """Copy the weights of all layers that fit; warn of those that do not."""
    fresh = []
    for old, new in zip(source.layers, target.layers, strict=True):
        if [w.shape for w in old.weights] == [w.shape for w in new.weights]:
            copy_state(old, new)
        else:
            fresh.append(new.name)
    if fresh:
        warnings.warn(
            f"These layers of {target.name!r} start fresh, because the number of classes is "
            f"another than that of the weights: {', '.join(fresh)}",
            stacklevel=4,
        )


def freeze_encoder(model, frozen):
    """Freeze or thaw the contracting path, with its batch normalisation.

    The optimizer knows all weights from the beginning, so nothing of it is lost; the
    function of a training step is made anew.
    """
    layers = [layer for layer in model.layers if ENCODER.fullmatch(layer.name)]
    for layer in layers:
        layer.trainable = not frozen
    model.make_train_function(force=True)
