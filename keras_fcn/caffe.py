"""Weights from Caffe: reads a `.caffemodel` without Caffe.

The format is `caffe.proto` of https://github.com/BVLC/caffe; the networks are those of
https://github.com/shelhamer/fcn.berkeleyvision.org (Long, Shelhamer and Darrell, 2015) and
VGG16 and VGG19 (Simonyan and Zisserman, 2015).
"""

import functools
import itertools
import math
import os
import re
import warnings
from pathlib import Path

import keras
import numpy as np
from keras import layers

from keras_fcn.archives import models_directory
from keras_fcn.atomic import remove_leftovers, replacing
from keras_fcn.private import operation_of

# The part of caffe.proto that holds weights: name, number, label and type of each field. Packed
# floats are bytes on the wire; declared as bytes they cost no Python object each.
SCHEMA = {
    "BlobShape": [("dim", 1, "repeated", "int64")],
    "BlobProto": [
        ("num", 1, "optional", "int32"),
        ("channels", 2, "optional", "int32"),
        ("height", 3, "optional", "int32"),
        ("width", 4, "optional", "int32"),
        ("data", 5, "repeated", "bytes"),
        ("shape", 7, "optional", "BlobShape"),
    ],
    # a BlobProto's numbers as caffe.proto declares them, for all but floats packed in one piece
    "Numbers": [("data", 5, "repeated", "float"), ("double_data", 8, "repeated", "double")],
    "V1LayerParameter": [("name", 4, "optional", "bytes"), ("blobs", 6, "repeated", "BlobProto")],
    "LayerParameter": [("name", 1, "optional", "bytes"), ("blobs", 7, "repeated", "BlobProto")],
    "NetParameter": [
        ("layers", 2, "repeated", "V1LayerParameter"),
        ("layer", 100, "repeated", "LayerParameter"),
    ],
}

# More than any network has; a file of more is none, and would take its time.
MOST_LAYERS = 10_000
MOST_BLOBS = 100

# Dense layers of `keras.applications.VGG16` and `VGG19`, by their names in Caffe.
CAFFE_NAMES = {"fc1": "fc6", "fc2": "fc7", "predictions": "fc8"}

# The authors' PASCAL VOC weights: a layer that only this network has, and the file.
PASCAL_VOC_URL = "http://dl.caffe.berkeleyvision.org/"
PASCAL_VOC_FILES = {
    "scale_pool4": "fcn8s-atonce-pascal.caffemodel",
    "upscore8": "fcn8s-heavy-pascal.caffemodel",
    "upscore16": "fcn16s-heavy-pascal.caffemodel",
    "upscore": "fcn32s-heavy-pascal.caffemodel",
}
PASCAL_VOC_SIZES = {"num_classes": 21, "fc_filters": 4096, "channels": 3}


def load_caffemodel(model: keras.Model, path: str | os.PathLike) -> keras.Model:
    """Load the weights of a `.caffemodel` file into a Keras model.

    Layers are matched by their names in Caffe. Kernels change from Caffe's
    (out, in, height, width) to Keras's (height, width, in, out), those of
    deconvolutions from (in, out, height, width) to (height, width, out, in).
    fc6 may be a convolution or an inner product on either side: a dense kernel
    is brought from Caffe's (channels, height, width) order to Keras's (height,
    width, channels). The scales of `FCN8sAtOnce` are compared with the file's.

    Channels stay BGR, as the Caffe networks take them. Our `VGGPreprocessing`
    and `keras.applications.vgg16.preprocess_input` give BGR too.

    Args:
        model: model of `FCN32s`, `FCN16s`, `FCN8s` or `FCN8sAtOnce`
            (`padding="valid"` is the published network; `"same"` has the same
            weights), or of `keras.applications.VGG16` or `VGG19`; changed in
            place.
        path: file in Caffe's binary format, float32 or float64, written with
            the old `layers` message or the new `layer`.

    Returns:
        The model. A warning names the layers of the file that it lacks.

    Raises:
        FileNotFoundError: for a missing file.
        ValueError: for a truncated or foreign file, and for a layer of the model
            that the file lacks or that does not fit. The model is then as it was.

    Example:

    >>> model = FCN8s(padding="valid")  # doctest: +SKIP
    >>> load_caffemodel(model, "fcn8s-heavy-pascal.caffemodel") is model  # doctest: +SKIP
    True
    """
    stored = _read_blobs(path)
    needed = {_caffe_name(layer): layer for layer in model.layers if _is_stored(layer)}
    if missing := [name for name in needed if name not in stored]:
        raise ValueError(
            f"The file should hold every layer of the model {model.name!r}. Received: "
            f"{str(path)!r} without [{_some(missing)}]; it has [{_some(stored)}]. Build the "
            "network that the file belongs to, or fetch the file again if it may be truncated."
        )
    if not needed:
        raise ValueError(
            f"`model` should have layers with weights. Received: {model.name!r}, which has none. "
            "Build it first, by calling it or with an `Input`."
        )
    values = {name: _fit(layer, stored[name], path) for name, layer in needed.items()}
    if extra := [name for name in stored if name not in needed]:
        warnings.warn(
            f"{str(path)!r} has layers that {model.name!r} lacks, and they were left out: "
            f"{_some(extra, str)}",
            stacklevel=2,
        )
    for name, layer in needed.items():
        layer.set_weights([np.array(value, "float32") for value in values[name]])
    return model


def load_pascal_voc(model: keras.Model) -> keras.Model:
    """Load the FCN authors' published PASCAL VOC weights, downloaded once.

    The file is fetched with `keras.utils.get_file` from the authors' server into
    `models` in Keras's cache directory (`$KERAS_HOME`, by default `~/.keras`),
    converted to a Keras weights file beside it, and from then on read from there;
    the 540 MB `.caffemodel` may then be deleted. The authors published no
    checksum, so what the server sends is checked for its layers and shapes only.

    Args:
        model: model of `FCN32s`, `FCN16s`, `FCN8s` or `FCN8sAtOnce`, which decides
            on the file, with 21 classes, 3 channels and `fc_filters=4096`; changed
            in place.

    Returns:
        The model.

    Raises:
        ValueError: for another model, or a file that does not fit. After a
            `.caffemodel` that does not fit the model is as it was.
        OSError: when the download fails; it says where to put a file fetched by
            hand.

    Example:

    >>> model = FCN8s(padding="valid")  # doctest: +SKIP
    >>> load_pascal_voc(model) is model  # doctest: +SKIP
    True
    """
    name = _pascal_voc_file(model)
    converted = models_directory() / Path(name).with_suffix(".weights.h5")
    if converted.is_file():
        _load_converted(model, converted)
    else:
        remove_leftovers(converted.parent)
        load_caffemodel(model, _download(name))
        with replacing(converted) as beside:
            model.save_weights(beside)
    return model


def _read_blobs(path):
    """Return the blobs of each layer that has any: lists of messages, by name."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"`path` should be the path of a .caffemodel file. Received: {str(path)!r}, and there "
            "is no such file."
        )
    net = _parse("NetParameter", path.read_bytes(), path)
    if (count := len(net.layers) + len(net.layer)) > MOST_LAYERS:
        raise _foreign(path, f"it has {count:,} layers")
    stored = {}
    for layer in itertools.chain(net.layers, net.layer):
        if (count := len(layer.blobs)) > MOST_BLOBS:
            raise _foreign(path, f"a layer of it has {count:,} blobs")
        if count:
            stored[layer.name.decode(errors="replace")] = list(layer.blobs)
    if not stored:
        raise _foreign(path, "it has no layer with weights")
    return stored


def _some(items, form=repr):
    """Return names or shapes as text, of many the first ones."""
    texts = [text if len(text) <= 60 else f"{text[:60]}…" for text in map(form, items)]
    more = [f"and {len(texts) - 10:,} more"] if len(texts) > 10 else []
    return ", ".join(texts[:10] + more)


def _parse(message, data, path):
    from google.protobuf.message import DecodeError

    try:
        return _messages()[message].FromString(data)
    except DecodeError as error:
        raise _foreign(path, f"protobuf cannot read it ({error})") from error


@functools.cache
def _messages():
    """Return the protobuf classes of `SCHEMA`, by name.

    Their pool is their own, so they get along with any `caffe_pb2` in the process.
    """
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    field_type = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe", syntax="proto2")
    for message, fields in SCHEMA.items():
        descriptor = file.message_type.add(name=message)
        for name, number, label, kind in fields:
            field = descriptor.field.add(name=name, number=number)
            field.label = field_type.Label.Value(f"LABEL_{label.upper()}")
            if kind in SCHEMA:
                field.type_name = f".caffe.{kind}"
            else:
                field.type = field_type.Type.Value(f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        message: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"caffe.{message}"))
        for message in SCHEMA
    }


def _foreign(path, reason):
    return ValueError(
        f"`path` should be a whole .caffemodel file in Caffe's binary format. Received: "
        f"{str(path)!r}, but {reason}. Fetch the file again."
    )


def _is_stored(layer):
    """Whether Caffe stores blobs for the layer; its Scale is our weightless Rescaling."""
    return bool(layer.weights) or isinstance(layer, layers.Rescaling)


def _caffe_name(layer):
    """Name of the layer in Caffe: block1_conv2 is conv1_2, fc1 is fc6."""
    name = CAFFE_NAMES.get(layer.name, layer.name)
    return re.sub(r"^block(\d)_conv(\d)$", r"conv\1_\2", name)


def _fit(layer, blobs, path):
    """Return a layer's weights as its blobs give them; raise unless they fit."""
    if isinstance(layer, layers.Rescaling):
        return _check_scale(layer, blobs, path)
    shapes = _caffe_shapes(layer)
    received = [_shape(blob) for blob in blobs]
    if len(shapes) != len(received) or not all(map(_same_shape, received, shapes)):
        raise ValueError(
            f"The layer {layer.name!r} of the model needs blobs of the shapes {shapes}. Received: "
            f"[{_some(received)}] in {str(path)!r}. Build the model with the file's sizes "
            "(classes, `fc_filters`, channels)."
        )
    kernel, *bias = (
        _numbers(layer, blob, path).reshape(shape)
        for blob, shape in zip(blobs, shapes, strict=True)
    )
    # (out, in, h, w) -> (h, w, in, out); of a dense layer -> (h * w * in, out)
    return [kernel.transpose(2, 3, 1, 0).reshape(layer.kernel.shape), *bias]


def _check_scale(layer, blobs, path):
    """Raise unless Caffe's Scale layer multiplies by the scale of our Rescaling layer."""
    values = np.concatenate([_numbers(layer, blob, path) for blob in blobs])
    if not np.allclose(values, layer.scale, rtol=1e-6, atol=0):
        raise ValueError(
            f"The layer {layer.name!r} of the model multiplies by {layer.scale}. Received: scales "
            f"from {values.min()} to {values.max()} in {str(path)!r}. The file belongs to another "
            "network."
        )
    return []


def _caffe_shapes(layer):
    """Shapes of the blobs that Caffe would store for a layer: kernel, and bias if any."""
    if isinstance(layer, layers.Dense):
        shape = (*_map_before(layer), layer.units)
    elif isinstance(layer, (layers.Conv2D, layers.Conv2DTranspose)):
        shape = layer.kernel.shape
    else:
        raise ValueError(
            "The layers with weights should be Conv2D, Conv2DTranspose or Dense. Received: the "
            f"{type(layer).__name__} {layer.name!r}. Load such a model with `model.load_weights`."
        )
    height, width, inputs, outputs = shape
    kernel = (outputs, inputs, height, width)
    return [kernel, tuple(layer.bias.shape)] if layer.use_bias else [kernel]


def _map_before(dense):
    """Shape (height, width, channels) of the map that is flattened for a dense layer."""
    source = operation_of(dense.input)
    while isinstance(source, layers.Dropout):
        source = operation_of(source.input)
    if isinstance(source, layers.Flatten) and len(source.input.shape) == 4:
        return source.input.shape[1:]
    return (1, 1, dense.kernel.shape[0])


def _shape(blob):
    """Shape of a blob; the four old numbers come before `shape`, as in Caffe."""
    old = ("num", "channels", "height", "width")
    if any(map(blob.HasField, old)):
        return tuple(getattr(blob, size) for size in old)
    return tuple(blob.shape.dim)


def _same_shape(received, expected):
    """Whether a blob's shape is the expected one, or that of a dense layer of the same numbers.

    Old blobs have four axes, of which the first ones may be 1.
    """
    dense = (expected[0], math.prod(expected[1:]))
    return _drop_ones(received) in (_drop_ones(expected), _drop_ones(dense))


def _drop_ones(shape):
    return tuple(itertools.dropwhile(lambda size: size == 1, shape))


def _numbers(layer, blob, path):
    """Return a blob's numbers as a float32 vector."""
    packed = list(blob.data)
    if len(packed) == 1 and len(packed[0]) % 4 == 0:
        numbers = np.frombuffer(packed[0], "<f4")
    else:
        plain = _parse("Numbers", blob.SerializeToString(), path)
        plain = plain.double_data or plain.data
        numbers = np.fromiter(plain, "float32", len(plain))
    if not np.isfinite(numbers).all():
        raise ValueError(
            f"The layer {layer.name!r} should have finite numbers. Received: NaN or infinite ones "
            f"in {str(path)!r}. The file is damaged; fetch it again."
        )
    if numbers.size != math.prod(shape := _shape(blob)):
        raise ValueError(
            f"The layer {layer.name!r} should have as many numbers as its shape {shape} says. "
            f"Received: {numbers.size} in {str(path)!r}. The file is damaged; fetch it again."
        )
    return numbers


def _pascal_voc_file(model):
    """Name of the published file for a model; raise if there is none."""
    named = {layer.name: layer for layer in model.layers}
    file = next((file for layer, file in PASCAL_VOC_FILES.items() if layer in named), None)
    if file is None or not {"conv1_1", "fc6", "score_fr"} <= named.keys():
        raise ValueError(
            "The PASCAL VOC weights are those of FCN32s, FCN16s, FCN8s and FCN8sAtOnce. "
            f"Received: {model.name!r}."
        )
    sizes = {
        "num_classes": named["score_fr"].filters,
        "fc_filters": named["fc6"].filters,
        "channels": named["conv1_1"].kernel.shape[2],
    }
    if sizes != PASCAL_VOC_SIZES:
        raise ValueError(
            f"The PASCAL VOC weights belong to {_as_text(PASCAL_VOC_SIZES)}. Received: "
            f"{_as_text(sizes)}. Pass the same, or `weights='imagenet'` and train."
        )
    return file


def _as_text(sizes):
    return ", ".join(f"{name}={size}" for name, size in sizes.items())


def _download(name):
    """Return the path of a published file in the cache; download it if it is not there."""
    directory = models_directory()
    directory.mkdir(parents=True, exist_ok=True)
    path, url = directory / name, PASCAL_VOC_URL + name
    if path.is_file():
        return path
    try:
        with replacing(path) as beside:  # a download that is killed leaves nothing at `path`
            cache = {"cache_subdir": beside.parent.name, "cache_dir": str(directory)}
            keras.utils.get_file(name, url, **cache)
        return path
    except Exception as error:  # what get_file raises
        raise OSError(
            f"The download of {url} failed: {error}. Fetch {name} by hand, on another machine or "
            f"from a mirror, and put it there as {str(directory / name)!r}."
        ) from error


def _load_converted(model, converted):
    try:
        model.load_weights(converted)
    except (ValueError, OSError, KeyError) as error:
        raise ValueError(
            f"{str(converted)!r} should hold the PASCAL VOC weights as this version of Keras reads "
            f"them. Received: a file that does not load: {error}. Delete it, and it is converted "
            "again."
        ) from error
