"""The catalogue of pretrained weights, and VGG16's weights in our networks."""

import hashlib
import io
import json
import os
import re
import warnings
import zipfile
from collections import Counter
from pathlib import Path

import h5py
import keras
import numpy as np

from keras_fcn.arguments import suggest
from keras_fcn.caffe import load_pascal_voc
from keras_fcn.convolutionize import dense_to_conv
from keras_fcn.vgg16 import BLOCKS

# Arguments of a factory that may differ from the card's: they change no weight.
FREE_ARGUMENTS = {"weights", "name", "classifier_activation", "dropout", "include_preprocessing"}

# What an FCN has beyond the coarser one from which its training goes on.
REFINEMENT = {"upscore2", "score_pool4", "upscore16", "upscore_pool4", "score_pool3", "upscore8"}


def pretrained():
    """Return the cards of the weights that ship with the package, by name.

    Returns:
        Dict of dicts: what the network is, what it was trained on and how, its
        metric, and the file with its sha256.

    Example:

    >>> pretrained()["unet_camvid"]["arguments"]["num_classes"]
    11
    """
    cards = (json.loads(path.read_text()) for path in sorted(_directory().glob("*.json")))
    return {card["name"]: card for card in cards}


def find_card(name):
    """Return the card of the weights of a name.

    Raises:
        ValueError: for an unknown name.
    """
    cards = pretrained()
    if name not in cards:
        raise ValueError(
            f"Pretrained weights go by the names {sorted(cards)}; the `weights` of a factory may "
            "also be None, 'imagenet', 'pascal_voc', or the path of a `.weights.h5` or `.keras` "
            "file. "
            f"Received: {name!r}.{suggest(name, [*cards, 'imagenet', 'pascal_voc'])}"
        )
    return cards[name]


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
    model = _factory(card)(**card["arguments"], weights=name, name=name)
    if num_classes in (None, card["arguments"]["num_classes"]):
        return model
    arguments = {**card["arguments"], "num_classes": num_classes}
    fresh = _factory(card)(**arguments, name=name)
    _transfer(model, fresh)
    return fresh


def load_vgg16(model, vgg16=None):
    """Load VGG16's weights into an FCN or a U-Net with `encoder="vgg16"`.

    The convolutions are copied. For an FCN, fc6 is the dense `fc1` with its
    kernel reshaped to 7x7x512, fc7 is `fc2` as a 1x1 convolution. Where
    `fc_filters` is smaller than 4096, evenly spaced units of both are taken
    (decimation; Chen et al., DeepLab, 2018, section 4.1, do so for speed).

    Where the first convolution has other than 3 channels its kernel is
    adapted, so that a gray image gives what its RGB copy gives: summed for one
    channel, tiled and rescaled for more.

    Args:
        model: model of `FCN32s`, `FCN16s`, `FCN8s` or `UNet(encoder="vgg16")`;
            changed in place.
        vgg16: `keras.applications.VGG16` model; for an FCN with its top
            layers. By default the ImageNet one, downloaded by Keras.

    Returns:
        The model.

    Raises:
        ValueError: when a layer is missing on either side, or does not fit. The
            model is then as it was.

    Example:

    >>> import keras
    >>> vgg16 = keras.applications.VGG16(weights=None, include_top=False)
    >>> unet = UNet(num_classes=3, encoder="vgg16")
    >>> load_vgg16(unet, vgg16) is unet
    True
    """
    names = {layer.name for layer in model.layers}
    needed = {
        f"block{b}_conv{c}": name
        for b, block in enumerate(BLOCKS, start=1)
        for c, name in enumerate(block, start=1)
    }
    is_fcn = {"fc6", "fc7"} <= names
    if is_fcn:
        needed |= {"fc1": "fc6", "fc2": "fc7"}
    if not set(needed.values()) <= names:
        raise ValueError(
            'VGG16 fits FCN32s, FCN16s, FCN8s and UNet(encoder="vgg16"). Received: model '
            f"{model.name!r}, without the layers {sorted(set(needed.values()) - names)}"
        )
    if not all(model.get_layer(name).use_bias for name in needed.values()):
        raise ValueError(
            "VGG16's convolutions have biases and no batch normalisation. Received: model "
            f"{model.name!r}, with `batch_norm=True`. Build it with `batch_norm=False`."
        )
    if vgg16 is None:
        vgg16 = keras.applications.VGG16(weights="imagenet", include_top=is_fcn)
    available = {layer.name: layer for layer in vgg16.layers}
    if missing := sorted(set(needed) - set(available)):
        raise ValueError(
            "`vgg16` should be a `keras.applications.VGG16` model, for an FCN with "
            f"`include_top=True`. Received: {vgg16.name!r}, without the layers {missing}"
        )

    values = {}
    for source, target in needed.items():
        kernel, bias = (np.asarray(w) for w in available[source].get_weights())
        values[target] = _fit_kernel(model.get_layer(target), kernel, bias)
    for target, arrays in values.items():
        model.get_layer(target).set_weights(arrays)
    return model


def load_weights(model, factory, arguments):
    """Load what a factory's `weights` argument names: nothing, a catalogue name or a file.

    Args:
        model: the model just built; changed in place.
        factory: name of the factory, such as `"UNet"`.
        arguments: dict of all its arguments.

    Raises:
        ValueError: for an unknown name, a card that does not fit the
            arguments, or a file of another architecture.
        FileNotFoundError: for a missing file.
        OSError: when `"pascal_voc"` can't be downloaded.
    """
    weights = arguments["weights"]
    if weights is None:
        return
    if os.sep in str(weights) or Path(str(weights)).suffix in (".h5", ".keras"):
        load_file(model, weights)
    elif weights == "imagenet":
        load_vgg16(model)
    elif weights == "pascal_voc":
        load_pascal_voc(model)
    else:
        card = find_card(weights)
        _check_card(card, factory, arguments)
        load_file(model, _verified_file(card))


def load_file(model, path):
    """Load a `.weights.h5` or `.keras` file of the same architecture into the model.

    The `.keras` file may also be that of a coarser FCN. The layers that both have then
    take its weights.

    Raises:
        FileNotFoundError: for a missing file.
        ValueError: for a file that is no weights file, or whose arrays differ from
            the model's.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"`weights` should be None, 'imagenet', one of {sorted(pretrained())}, or the path of "
            f"a weights file. Received: {str(path)!r}, and there is no such file."
        )
    received = _shapes_in(path)
    expected = Counter(tuple(weight.shape) for weight in model.weights)
    if received != expected and zipfile.is_zipfile(path) and _go_on_from(path, model):
        return
    try:
        if received != expected:
            raise ValueError(
                f"{(received - expected).total()} of its {received.total()} arrays are not in the "
                f"model, {(expected - received).total()} of the model's {expected.total()} not in "
                "the file."
            )
        model.load_weights(path)
    except ValueError as error:
        raise ValueError(
            f"The weights file should come from a model built with the same arguments as "
            f"{model.name!r}. Received: {str(path)!r}, which does not fit: {error}"
        ) from error


def _go_on_from(path, model):
    """Take the weights of the coarser FCN in a `.keras` file; return False if it is none."""
    ours = {layer.name: layer for layer in model.layers if layer.weights}
    if not REFINEMENT & set(ours):
        return False
    coarser = keras.saving.load_model(path, compile=False)
    theirs = {layer.name: layer.get_weights() for layer in coarser.layers if layer.weights}
    common = [name for name in ours if name in theirs]
    if not set(ours) - set(common) <= REFINEMENT or any(
        [w.shape for w in theirs[name]] != [tuple(w.shape) for w in ours[name].weights]
        for name in common
    ):
        return False
    for name in common:
        ours[name].set_weights(theirs[name])
    return True


def _shapes_in(path):
    """Count the shapes of the layers' arrays in a `.weights.h5` or `.keras` file."""
    shapes = Counter()

    def count(name, item):
        if name.startswith("layers/") and re.search(r"/vars/\d+$", name):
            shapes[item.shape] += 1

    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                path = io.BytesIO(archive.read("model.weights.h5"))
        with h5py.File(path) as file:
            file.visititems(count)
    except (OSError, KeyError) as error:
        raise ValueError(
            "`weights` should be a file written by `model.save_weights` or `model.save`. "
            f"Received: {str(path)!r}, which can't be read: {error}"
        ) from error
    return shapes


def save_half_precision(model, path):
    """Save the kernels as float16 in a `.weights.h5` file, which plain Keras loads.

    Biases and the vectors of batch normalisation stay float32: they are few, and a
    variance can be larger than float16 holds, 65504. The file is written beside `path`
    and then renamed, so `path` never holds half of it.

    Args:
        model: Keras model.
        path: file to write; its name ends in `.weights.h5`.
    """
    path = Path(path)
    full = path.with_name(f".full-{path.name}")
    half = path.with_name(f".half-{path.name}")
    model.save_weights(full)
    with h5py.File(full) as source, h5py.File(half, "w") as target:

        def copy(name, item):
            if name.startswith("optimizer"):  # of a compiled model
                return
            if isinstance(item, h5py.Dataset):
                many = {"dtype": "float16", "compression": "gzip"} if item.ndim > 1 else {}
                new = target.create_dataset(name, data=item[()], **many)
            else:
                new = target.require_group(name)
            new.attrs.update(item.attrs)

        source.visititems(copy)
        target.attrs.update(source.attrs)
    full.unlink()
    half.replace(path)


def fingerprint(model):
    """Return what a model predicts for a generated image, by which its weights are known again.

    Args:
        model: Keras model on pixels in [0, 255].

    Returns:
        List of lists of lists `(2, 3, num_classes)`: the predictions at six places of
        an image of 64x96 pixels, rounded to 4 decimals.
    """
    rows, columns, channels = np.mgrid[:64, :96, : model.input_shape[-1]]
    image = 127.5 * (1 + np.sin(rows / (3 + channels)) * np.cos(columns / (5 + 2 * channels)))
    predictions = model(image[None].astype("float32"), training=False)
    places = keras.ops.convert_to_numpy(predictions)[0, 16::32, 16::32]
    return places.round(4).tolist()


def sha256(path):
    """Return the sha256 of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _directory():
    """The weights: inside the installed package, or at the top of a checkout."""
    package = Path(__file__).parent
    installed = package / "pretrained_weights"
    return installed if installed.is_dir() else package.parent / "weights"


def _factory(card):
    import keras_fcn  # the factories import this module

    return getattr(keras_fcn, card["factory"])


def _verified_file(card):
    path = _directory() / card["file"]
    if not path.is_file():
        raise FileNotFoundError(
            f"The weights {card['name']!r} should be in {str(path)!r}, and there is no such file. "
            "Reinstall the package."
        )
    if (received := sha256(path)) != card["sha256"]:
        raise ValueError(
            f"The file {str(path)!r} should have the sha256 {card['sha256']}. "
            f"Received: {received}. It is damaged or changed; reinstall the package."
        )
    return path


def _check_card(card, factory, arguments):
    """Raise unless the card's network is the one that the arguments describe."""
    expected = {"factory": card["factory"], **card["arguments"]}
    received = {"factory": factory, **arguments}
    for name in [name for name in expected if name not in FREE_ARGUMENTS]:
        ours, theirs = expected[name], received.get(name)
        if name == "input_shape":  # any height and width
            ours, theirs = ours[-1], theirs[-1]
        if ours != (list(theirs) if isinstance(theirs, tuple) else theirs):
            raise ValueError(
                f"The weights {card['name']!r} belong to {name}={expected[name]!r}. Received: "
                f"{name}={received.get(name)!r}. Pass the same, or call "
                f"`keras_fcn.from_pretrained({card['name']!r}, num_classes=...)`, which builds "
                "the network of the card."
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


def _fit_kernel(layer, kernel, bias):
    """Bring the kernel and bias of a VGG16 layer into the shape of ours."""
    height, width, channels, filters = layer.kernel.shape
    if layer.name == "conv1_1":
        kernel = _adapt_channels(kernel, channels)
    elif layer.name in ("fc6", "fc7"):
        kernel = dense_to_conv(kernel, (height, width))
        units = _evenly_spaced(filters, kernel.shape[3])
        kernel, bias = kernel[..., units], bias[units]
        if layer.name == "fc7":
            kernel = kernel[:, :, units]
    if kernel.shape != tuple(layer.kernel.shape):
        raise ValueError(
            f"The layer {layer.name!r} should have a kernel of shape {tuple(layer.kernel.shape)}. "
            f"Received from VGG16: {kernel.shape}"
        )
    return [kernel, bias]


def _evenly_spaced(count, total):
    """Return `count` indices spread evenly over `range(total)`."""
    if count > total:
        raise ValueError(
            f"`fc_filters` should be at most {total}, the units of VGG16's dense layers. "
            f"Received: fc_filters={count}"
        )
    return np.arange(count) * total // count


def _adapt_channels(kernel, channels):
    """Make a kernel for 3 channels one for any number, of the same sum over the channels."""
    if channels < 3:
        return np.repeat(kernel.sum(axis=2, keepdims=True) / channels, channels, axis=2)
    tiled = np.arange(channels) % 3
    return kernel[:, :, tiled] / np.bincount(tiled)[tiled][:, None]
