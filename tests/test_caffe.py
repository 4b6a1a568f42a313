"""Caffe weights: files written here byte by byte, networks compared with OpenCV's importer."""

import functools
import itertools
import struct
import time
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest
from conftest import call, leave_half, narrow_keras_networks
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

import keras_fcn
from keras_fcn import caffe, vgg16

# Filters and convolutions of each block, by the network; of VGGs a 16th of the filters, and of
# the dense units.
BLOCKS = {
    "narrow": ((4, 2), (8, 2), (12, 3), (16, 3), (20, 3)),
    "VGG16": ((4, 2), (8, 2), (16, 3), (32, 3), (32, 3)),
    "VGG19": ((4, 2), (8, 2), (16, 4), (32, 4), (32, 4)),
}


# --- a writer of .caffemodel files ---------------------------------------------------------------


def varint(value):
    """Protobuf's integer: 7 bits a byte, the lowest first."""
    if value < 128:
        return bytes([value])
    return bytes([value & 127 | 128]) + varint(value >> 7)


def integer(number, value):
    return varint(number << 3) + varint(value)


def chunk(number, content):
    """A field of bytes, of text, of packed numbers or of a message."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def numbers(values, encoding):
    """Fields 5 (float) and 8 (double) of BlobProto."""
    values = np.ravel(values)
    single, double = values.astype("<f4"), values.astype("<f8")
    if encoding == "packed":
        return chunk(5, single.tobytes())
    if encoding == "double":
        return chunk(8, double.tobytes())
    if encoding == "pieces":
        return chunk(5, single[:2].tobytes()) + chunk(5, single[2:].tobytes())
    if encoding == "unpacked":
        return b"".join(varint(5 << 3 | 5) + struct.pack("<f", value) for value in single)
    if encoding == "unpacked double":
        return b"".join(varint(8 << 3 | 1) + struct.pack("<d", value) for value in double)
    raise ValueError(encoding)


def blob(values, shape="shape", encoding="packed"):
    if shape == "shape":
        sizes = chunk(7, chunk(1, b"".join(map(varint, values.shape))))
    else:  # four numbers, the first ones 1
        padded = (1,) * (4 - values.ndim) + values.shape
        sizes = b"".join(integer(number, size) for number, size in enumerate(padded, start=1))
    return sizes + numbers(values, encoding)


def caffemodel(blobs, message="layer", **options):
    """Bytes of a file with these blobs: {layer: [array, ...]}; a layer without any comes first."""
    net = [chunk(1, b"a network")]
    for name, arrays in {"data": [], **blobs}.items():
        parts = [blob(array, **options) for array in arrays]
        if message == "layer":
            content = chunk(1, name.encode()) + chunk(2, b"Some type")
            net.append(chunk(100, content + b"".join(chunk(7, part) for part in parts)))
        else:
            content = chunk(2, b"bottom") + chunk(4, name.encode()) + integer(5, 4)
            net.append(chunk(2, content + b"".join(chunk(6, part) for part in parts)))
    return b"".join(net)


def write(path, *args, **options):
    path.write_bytes(caffemodel(*args, **options))
    return path


# --- networks ------------------------------------------------------------------------------------


def tiny(name="tiny"):
    """Every kind of layer: (4, 5, 3) -> (2, 3, 2) -> deconvolution (5, 6, 4) -> 7 -> 3."""
    return keras.Sequential(
        [
            keras.Input((4, 5, 3)),
            layers.Conv2D(2, 3, name="block1_conv1"),
            layers.Rescaling(0.01, name="scale_pool4"),
            layers.Conv2DTranspose(4, (3, 2), strides=2, use_bias=False, name="upscore"),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(7, name="fc1"),
            layers.Dense(3, name="predictions"),
        ],
        name=name,
    )


@pytest.fixture
def blobs(rng):
    shapes = {
        "conv1_1": [(2, 3, 3, 3), (2,)],
        "upscore": [(2, 4, 3, 2)],
        "fc6": [(7, 4 * 5 * 6), (7,)],
        "fc8": [(3, 7), (3,)],
    }
    drawn = {
        name: [rng.normal(size=s).astype("float32") for s in sizes]
        for name, sizes in shapes.items()
    }
    return {**drawn, "scale_pool4": [np.full(2, 0.01, "float32")]}


def fcn_blobs(model, rng):
    """Random blobs for each layer with weights, of the size that keeps the signal's."""
    drawn = {}
    for layer in model.layers:
        if isinstance(layer, layers.Rescaling):
            drawn[layer.name] = [np.full(layer.input.shape[-1], layer.scale, "float32")]
        elif layer.weights:
            height, width, a, b = layer.kernel.shape
            fan_in = np.prod(layer.kernel.shape[:3])
            kernel = rng.normal(0, (2 / fan_in) ** 0.5, (b, a, height, width))
            bias = [rng.normal(size=b)] if layer.use_bias else []
            drawn[layer.name] = [np.asarray(x, "float32") for x in (kernel, *bias)]
    return drawn


def vgg_blobs(network, rng):
    """Random blobs of a VGG for 10 classes whose fc6 sees a map of 2x3."""
    shapes = {}
    channels = 3
    for block, (filters, count) in enumerate(BLOCKS[network], start=1):
        for i in range(1, count + 1):
            shapes[f"conv{block}_{i}"] = (filters, channels, 3, 3)
            channels = filters
    shapes |= {"fc6": (64, channels * 2 * 3), "fc7": (64, 64), "fc8": (10, 64)}
    drawn = {}
    for name, shape in shapes.items():
        kernel, bias = rng.standard_normal(shape, "f4"), rng.standard_normal(shape[0], "f4")
        drawn[name] = [kernel * np.float32(2 / np.prod(shape[1:])) ** 0.5, bias]
    return drawn


def layer_text(kind, name, bottoms, parameters=""):
    bottoms = "".join(f' bottom: "{bottom}"' for bottom in bottoms.split())
    return f'layer {{ name: "{name}" type: "{kind}"{bottoms} top: "{name}" {parameters} }}\n'


class Prototxt:
    """The text of a network, layer after layer."""

    def __init__(self, height, width):
        self.text = f'input: "data" input_shape {{ dim: 1 dim: 3 dim: {height} dim: {width} }}\n'

    def add(self, *args):
        self.text += layer_text(*args)

    def conv_relu(self, name, bottom, filters, size=3, pad=1):
        sizes = f"num_output: {filters} kernel_size: {size} pad: {pad}"
        self.add("Convolution", name, bottom, f"convolution_param {{ {sizes} }}")
        self.add("ReLU", f"{name}_relu", name)
        return f"{name}_relu"

    def trunk(self, network, pad):
        x = "data"
        for block, (filters, count) in enumerate(BLOCKS[network], start=1):
            for i in range(1, count + 1):
                x = self.conv_relu(f"conv{block}_{i}", x, filters, pad=pad if x == "data" else 1)
            pooling = "pooling_param { pool: MAX kernel_size: 2 stride: 2 }"
            self.add("Pooling", f"pool{block}", x, pooling)
            x = f"pool{block}"
        return x

    def score(self, name, bottom, classes):
        sizes = f"num_output: {classes} kernel_size: 1"
        self.add("Convolution", name, bottom, f"convolution_param {{ {sizes} }}")

    def upscore(self, name, bottom, classes, factor):
        sizes = f"num_output: {classes} bias_term: false kernel_size: {2 * factor} stride: {factor}"
        self.add("Deconvolution", name, bottom, f"convolution_param {{ {sizes} }}")

    def crop(self, name, bottoms, offset):
        self.add("Crop", name, bottoms, f"crop_param {{ axis: 2 offset: {offset} }}")

    def fuse(self, pool, x, classes, offset, at_once):
        if at_once:
            self.add("Scale", f"scale_{pool}", pool)
        self.score(f"score_{pool}", f"scale_{pool}" if at_once else pool, classes)
        self.crop(f"score_{pool}c", f"score_{pool} {x}", offset)
        parameters = "eltwise_param { operation: SUM }"
        self.add("Eltwise", f"fuse_{pool}", f"{x} score_{pool}c", parameters)

    def dense(self, name, bottom, units):
        self.add("InnerProduct", name, bottom, f"inner_product_param {{ num_output: {units} }}")


def fcn_prototxt(stride, at_once, height, width, classes, filters):
    """The authors' voc-fcn32s, 16s, 8s and 8s-atonce, with fewer filters."""
    net = Prototxt(height, width)
    x = net.conv_relu("fc6", net.trunk("narrow", pad=100), filters, size=7, pad=0)
    x = net.conv_relu("fc7", x, filters, size=1, pad=0)
    net.score("score_fr", x, classes)
    x = "score_fr"
    if stride <= 16:
        net.upscore("upscore2", x, classes, 2)
        net.fuse("pool4", "upscore2", classes, 5, at_once)
        x = "fuse_pool4"
    if stride == 8:
        net.upscore("upscore_pool4", x, classes, 2)
        net.fuse("pool3", "upscore_pool4", classes, 9, at_once)
        x = "fuse_pool3"
    name = "upscore" if stride == 32 else f"upscore{stride}"
    net.upscore(name, x, classes, stride)
    net.crop("score", f"{name} data", {32: 19, 16: 27, 8: 31}[stride])
    return net.text


def opencv_output(prototxt, path, images):
    """The network's output as OpenCV computes it: (1, h, w, 3) -> (1, h, w, classes)."""
    text = path.with_suffix(".prototxt")
    text.write_text(prototxt)
    net = cv2.dnn.readNetFromCaffe(str(text), str(path))
    net.setInput(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    return np.moveaxis(net.forward(), 1, -1)


def assert_close(received, expected):
    assert received.shape == expected.shape
    assert expected.std() > 0
    assert abs(received - expected).max() < 1e-3 * abs(expected).max()


@pytest.fixture
def narrow(monkeypatch):
    """A VGG16 trunk of few filters: the same layers in a small file."""
    blocks = [
        {f"conv{block}_{i}": filters for i in range(1, count + 1)}
        for block, (filters, count) in enumerate(BLOCKS["narrow"], start=1)
    ]
    monkeypatch.setattr(vgg16, "BLOCKS", blocks)


# --- whole networks ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "factory, stride, at_once",
    [
        (keras_fcn.FCN32s, 32, False),
        (keras_fcn.FCN16s, 16, False),
        (keras_fcn.FCN8s, 8, False),
        (keras_fcn.FCN8sAtOnce, 8, True),
    ],
)
def test_fcn_gives_what_opencv_gives(factory, stride, at_once, narrow, tmp_path, rng):
    model = factory(
        num_classes=5,
        classifier_activation=None,
        padding="valid",
        fc_filters=8,
        include_preprocessing=False,
    )
    path = write(tmp_path / "net.caffemodel", fcn_blobs(model, rng))
    caffe.load_caffemodel(model, path)
    for height, width in (37, 53), (65, 34):
        images = rng.normal(0, 60, (1, height, width, 3)).astype("float32")
        prototxt = fcn_prototxt(stride, at_once, height, width, classes=5, filters=8)
        assert_close(call(model, images), opencv_output(prototxt, path, images))


@pytest.mark.parametrize("network, message", [("VGG16", "layers"), ("VGG19", "layer")])
def test_vgg_gives_what_opencv_gives(network, message, tmp_path, rng, monkeypatch):
    narrow_keras_networks(monkeypatch)
    model = getattr(keras.applications, network)(
        input_shape=(64, 96, 3), weights=None, classes=10, classifier_activation=None
    )
    path = write(tmp_path / "vgg.caffemodel", vgg_blobs(network, rng), message=message)
    caffe.load_caffemodel(model, path)

    net = Prototxt(64, 96)
    net.dense("fc6", net.trunk(network, pad=1), 64)
    net.add("ReLU", "fc6_relu", "fc6")
    net.dense("fc7", "fc6_relu", 64)
    net.add("ReLU", "fc7_relu", "fc7")
    net.dense("fc8", "fc7_relu", 10)
    images = rng.normal(0, 60, (1, 64, 96, 3)).astype("float32")
    assert_close(call(model, images), opencv_output(net.text, path, images))


# --- the file's forms ----------------------------------------------------------------------------


@pytest.mark.parametrize("message", ["layer", "layers"])
@pytest.mark.parametrize("shape", ["shape", "num"])
@pytest.mark.parametrize("encoding", ["packed", "unpacked", "pieces", "double", "unpacked double"])
def test_every_number_arrives(message, shape, encoding, blobs, tmp_path):
    path = write(tmp_path / "a.caffemodel", blobs, message=message, shape=shape, encoding=encoding)
    model = tiny()
    assert caffe.load_caffemodel(model, path) is model

    kernel, bias = model.get_layer("block1_conv1").get_weights()
    for o, i, y, x in np.ndindex(2, 3, 3, 3):
        assert kernel[y, x, i, o] == blobs["conv1_1"][0][o, i, y, x]
    assert np.array_equal(bias, blobs["conv1_1"][1])

    (kernel,) = model.get_layer("upscore").get_weights()
    for i, o, y, x in np.ndindex(2, 4, 3, 2):
        assert kernel[y, x, o, i] == blobs["upscore"][0][i, o, y, x]

    kernel, bias = model.get_layer("fc1").get_weights()
    for o, c, y, x in np.ndindex(7, 4, 5, 6):
        assert kernel[(y * 6 + x) * 4 + c, o] == blobs["fc6"][0][o, (c * 5 + y) * 6 + x]
    assert np.array_equal(bias, blobs["fc6"][1])

    kernel, bias = model.get_layer("predictions").get_weights()
    assert np.array_equal(kernel, blobs["fc8"][0].T)
    assert np.array_equal(bias, blobs["fc8"][1])


def test_a_convolution_takes_an_inner_product_and_the_reverse(rng, tmp_path):
    convolution = rng.normal(size=(7, 4, 5, 6)).astype("float32")
    bias = rng.normal(size=7).astype("float32")
    images = rng.normal(size=(1, 5, 6, 4)).astype("float32")
    outputs = []
    for kernel in convolution, convolution.reshape(7, -1):
        path = write(tmp_path / "a.caffemodel", {"fc6": [kernel, bias]})
        heads = (
            [layers.Conv2D(7, (5, 6), name="fc6"), layers.Flatten()],
            [layers.Flatten(), layers.Dense(7, name="fc1")],
        )
        for head in heads:
            model = keras.Sequential([keras.Input((5, 6, 4)), *head])
            outputs.append(call(caffe.load_caffemodel(model, path), images))
    expected = np.einsum("ocyx,nyxc->no", convolution, images) + bias
    for output in outputs:
        np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-4)


def test_a_dense_layer_after_global_pooling(rng, tmp_path):
    model = keras.Sequential(
        [
            keras.Input((4, 5, 6)),
            layers.GlobalAveragePooling2D(),
            layers.Flatten(),
            layers.Dense(3, name="fc8"),
        ]
    )
    kernel, bias = rng.normal(size=(3, 6)).astype("float32"), np.zeros(3, "float32")
    caffe.load_caffemodel(model, write(tmp_path / "a.caffemodel", {"fc8": [kernel, bias]}))
    assert np.array_equal(model.get_layer("fc8").kernel, kernel.T)


def test_later_layers_of_a_name_override_earlier_ones(blobs, tmp_path):
    path = tmp_path / "a.caffemodel"
    old = caffemodel({name: [0 * a for a in arrays] for name, arrays in blobs.items()})
    path.write_bytes(old + caffemodel(blobs))
    model = caffe.load_caffemodel(tiny(), path)
    assert np.array_equal(model.get_layer("predictions").kernel, blobs["fc8"][0].T)


def test_extra_layers_are_named_in_a_warning(blobs, tmp_path):
    path = write(tmp_path / "a.caffemodel", {**blobs, "fc7": [np.ones((2, 2))], "b": [np.ones(2)]})
    with pytest.warns(UserWarning, match="lacks.*: fc7, b$"):
        caffe.load_caffemodel(tiny(), path)


@pytest.mark.parametrize(("count", "more"), [(10, ""), (13, ", and 3 more")])
def test_of_many_extra_layers_the_first_ten_are_named(count, more, blobs, tmp_path):
    extra = [f"extra{number}" for number in range(count)]
    path = write(tmp_path / "a.caffemodel", {**blobs, **{name: [np.ones(1)] for name in extra}})
    with pytest.warns(UserWarning, match=f": {', '.join(extra[:10])}{more}$") as warned:
        caffe.load_caffemodel(tiny(), path)
    assert warned[0].filename == __file__  # of the caller, not of the package


# --- what does not fit ---------------------------------------------------------------------------


@pytest.fixture
def unchanged():
    """A model that must not change during the test."""
    model = tiny()
    before = model.get_weights()
    yield model
    assert all(map(np.array_equal, before, model.get_weights()))


def png():
    return cv2.imencode(".png", np.arange(48, dtype="uint8").reshape(4, 4, 3))[1].tobytes()


def hdf5(tmp_path):
    tiny().save_weights(tmp_path / "foreign.weights.h5")
    return (tmp_path / "foreign.weights.h5").read_bytes()


def test_a_missing_file(unchanged, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        caffe.load_caffemodel(unchanged, tmp_path / "none.caffemodel")


@pytest.mark.parametrize("kind", ["empty", "png", "hdf5", "html", "prototxt", "no blobs"])
def test_a_foreign_file(kind, unchanged, tmp_path):
    content = {
        "empty": b"",
        "png": png(),
        "hdf5": hdf5(tmp_path),
        "html": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "prototxt": fcn_prototxt(8, False, 9, 9, 5, 8).encode(),
        "no blobs": caffemodel({}),
    }[kind]
    path = tmp_path / "foreign.caffemodel"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"whole .caffemodel file.*Received.*Fetch the file again"):
        caffe.load_caffemodel(unchanged, path)


@pytest.mark.parametrize("message", ["layer", "layers"])
def test_every_truncation_raises(message, blobs, unchanged, tmp_path):
    content = caffemodel(blobs, message=message)
    path = tmp_path / "truncated.caffemodel"
    for size in itertools.chain(range(0, len(content), 17), range(len(content) - 40, len(content))):
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match=r"etch the file again"):
            caffe.load_caffemodel(unchanged, path)


def test_damaged_bytes_load_or_raise_value_error(blobs, rng, tmp_path):
    content = np.frombuffer(caffemodel(blobs), "uint8")
    path = tmp_path / "damaged.caffemodel"
    model = tiny()
    raised = 0
    for _ in range(300):
        damaged = content.copy()
        damaged[rng.integers(content.size, size=20)] = rng.integers(256, size=20)
        path.write_bytes(damaged.tobytes())
        before = model.get_weights()
        try:
            caffe.load_caffemodel(model, path)
        except ValueError:
            raised += 1
            for old, new in zip(before, model.get_weights(), strict=True):
                np.testing.assert_array_equal(old, new)
    assert 0 < raised < 300


def deeply(content, depth):
    """A field that holds itself, many times over."""
    for _ in range(depth):
        content = chunk(2, content)
    return content


HOSTILE = {
    "many layers": lambda: b"".join(
        chunk(100, chunk(1, b"layer %d" % number) + chunk(7, b"")) for number in range(200_000)
    ),
    "many names": lambda: caffemodel({f"layer {n}": [np.ones(1)] for n in range(5_000)}),
    "many blobs": lambda: chunk(100, chunk(1, b"conv1_1") + chunk(7, b"") * 10**6),
    "empty layers": lambda: chunk(100, b"") * 10**6,
    "long name": lambda: caffemodel({"x" * 10**6: [np.ones(1)]}),
    "long shape": lambda: chunk(
        100, chunk(1, b"conv1_1") + chunk(7, chunk(7, chunk(1, b"\1" * 10**6))) * 2
    ),
    "negative shape": lambda: chunk(
        100, chunk(1, b"conv1_1") + chunk(7, chunk(7, chunk(1, varint(2**64 - 3) * 4))) * 2
    ),
    "huge shape": lambda: chunk(
        100, chunk(1, b"conv1_1") + chunk(7, chunk(7, chunk(1, varint(2**62) * 4))) * 2
    ),
    "two gigabytes": lambda: varint(100 << 3 | 2) + varint(2**31 - 1) + b"x" * 1000,
    "length past the end": lambda: varint(100 << 3 | 2) + varint(2**63) + b"x" * 1000,
    "deep": lambda: deeply(b"", 1000),
    "deep groups": lambda: varint(100 << 3 | 3) * 10**6,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files_are_refused_at_once_and_in_few_words(kind, unchanged, tmp_path):
    path = tmp_path / "hostile.caffemodel"
    path.write_bytes(HOSTILE[kind]())
    caffe._messages()  # built once a process
    started = time.perf_counter()
    with pytest.raises(ValueError, match=r"hostile.caffemodel") as caught:
        caffe.load_caffemodel(unchanged, path)
    assert time.perf_counter() - started < 1
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_none_are_refused(bad, blobs, unchanged, tmp_path):
    blobs["fc6"][0][1, 2] = bad
    path = write(tmp_path / "bad.caffemodel", blobs)
    with pytest.raises(ValueError, match="'fc1' should have finite numbers"):
        caffe.load_caffemodel(unchanged, path)


def test_half_a_number_is_refused(blobs, unchanged, tmp_path):
    """Floats in one piece of some bytes too many, around which all lengths are right."""
    shape = chunk(7, chunk(1, b"".join(map(varint, blobs["conv1_1"][1].shape))))
    bias = shape + chunk(5, blobs["conv1_1"][1].astype("<f4").tobytes() + b"ab")
    layer = chunk(1, b"conv1_1") + chunk(7, blob(blobs["conv1_1"][0])) + chunk(7, bias)
    path = tmp_path / "a.caffemodel"
    path.write_bytes(caffemodel(blobs) + chunk(100, layer))
    with pytest.raises(ValueError, match=r"protobuf cannot read it.*Fetch the file again"):
        caffe.load_caffemodel(unchanged, path)


@functools.cache
def tiny_once():
    return tiny()


FIELDS = st.recursive(
    st.binary(max_size=20),
    lambda inner: st.lists(
        st.tuples(st.sampled_from([1, 2, 4, 5, 6, 7, 8, 100]), inner).map(lambda f: chunk(*f)),
        max_size=4,
    ).map(b"".join),
    max_leaves=12,
)


@settings(max_examples=200, deadline=1000, derandomize=True)
@given(content=FIELDS)
def test_any_bytes_raise_value_error(content, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "drawn.caffemodel"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"drawn.caffemodel"):
        caffe.load_caffemodel(tiny_once(), path)


@pytest.mark.parametrize("name", ["conv1_1", "upscore", "fc6", "fc8", "scale_pool4"])
def test_a_missing_layer(name, blobs, unchanged, tmp_path):
    del blobs[name]
    path = write(tmp_path / "a.caffemodel", blobs)
    with pytest.raises(ValueError, match=rf"every layer of the model.*without \['{name}'\]"):
        caffe.load_caffemodel(unchanged, path)


@pytest.mark.parametrize(
    "name, shapes",
    [
        ("conv1_1", [(2, 3, 3, 3)]),  # no bias
        ("conv1_1", [(2, 1, 3, 3), (2,)]),
        ("conv1_1", [(3, 2, 3, 3), (2,)]),
        ("conv1_1", [(2, 3, 3, 3), (3,)]),
        ("upscore", [(4, 2, 3, 2)]),
        ("upscore", [(2, 4, 3, 2), (4,)]),
        ("upscore", [(2, 4, 2, 3)]),
        ("fc8", [(7, 3), (3,)]),
        ("fc8", [(4, 7), (4,)]),
        ("fc6", [(7, 4, 6, 5), (7,)]),
    ],
)
def test_a_layer_of_another_shape(name, shapes, blobs, unchanged, tmp_path):
    blobs[name] = [np.ones(shape, "float32") for shape in shapes]
    path = write(tmp_path / "a.caffemodel", blobs)
    with pytest.raises(ValueError, match=r"needs blobs of the shapes.*Received.*Build the model"):
        caffe.load_caffemodel(unchanged, path)


@pytest.mark.parametrize("numbers", [53, 55, 0])
def test_more_or_fewer_numbers_than_the_shape_says(numbers, blobs, unchanged, tmp_path):
    wrong = chunk(7, chunk(1, bytes([2, 3, 3, 3]))) + chunk(5, bytes(4 * numbers))
    layer = chunk(1, b"conv1_1") + chunk(7, wrong) + chunk(7, blob(blobs["conv1_1"][1]))
    path = tmp_path / "a.caffemodel"
    path.write_bytes(caffemodel(blobs) + chunk(100, layer))
    with pytest.raises(ValueError, match=f"as many numbers as its shape.*Received: {numbers}"):
        caffe.load_caffemodel(unchanged, path)


def test_another_scale(blobs, unchanged, tmp_path):
    blobs["scale_pool4"] = [np.full(2, 0.0001, "float32")]
    path = write(tmp_path / "a.caffemodel", blobs)
    with pytest.raises(ValueError, match=r"'scale_pool4' of the model multiplies by 0.01"):
        caffe.load_caffemodel(unchanged, path)


def test_a_layer_that_caffe_does_not_have(tmp_path):
    model = keras.Sequential([keras.Input((2, 2, 1)), layers.BatchNormalization(name="bn")])
    path = write(tmp_path / "a.caffemodel", {"bn": [np.ones(1)]})
    with pytest.raises(ValueError, match="Received: the BatchNormalization 'bn'"):
        caffe.load_caffemodel(model, path)


def test_a_model_without_weights(blobs, tmp_path):
    path = write(tmp_path / "a.caffemodel", blobs)
    with pytest.raises(ValueError, match="Build it first"):
        caffe.load_caffemodel(keras.Sequential([layers.Dense(2)]), path)


# --- the published weights -----------------------------------------------------------------------


@pytest.fixture
def cache(narrow, tmp_path, monkeypatch):
    """An empty Keras cache; the published networks are small ones."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setitem(caffe.PASCAL_VOC_SIZES, "fc_filters", 8)
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def fcn(factory=keras_fcn.FCN32s, **arguments):
    return factory(**{"fc_filters": 8, "padding": "valid", **arguments})


@pytest.mark.parametrize(
    "factory, file",
    [
        (keras_fcn.FCN32s, "fcn32s-heavy-pascal.caffemodel"),
        (keras_fcn.FCN16s, "fcn16s-heavy-pascal.caffemodel"),
        (keras_fcn.FCN8s, "fcn8s-heavy-pascal.caffemodel"),
        (keras_fcn.FCN8sAtOnce, "fcn8s-atonce-pascal.caffemodel"),
    ],
)
def test_download_convert_and_read_from_the_cache(factory, file, cache, rng, monkeypatch):
    model = fcn(factory)
    drawn = fcn_blobs(model, rng)
    urls = []

    def get_file(fname, origin, cache_subdir, cache_dir):
        urls.append(origin)
        return str(write(Path(cache_dir, cache_subdir, fname), drawn))

    monkeypatch.setattr(keras.utils, "get_file", get_file)
    leave_half(cache, file)  # of a process that was killed
    assert caffe.load_pascal_voc(model) is model
    assert urls == [f"http://dl.caffe.berkeleyvision.org/{file}"]
    converted = file.replace(".caffemodel", ".weights.h5")
    assert sorted(p.name for p in cache.iterdir()) == sorted([file, converted])

    (cache / file).unlink()
    again = caffe.load_pascal_voc(fcn(factory, padding="same"))
    assert len(urls) == 1
    for name, arrays in drawn.items():
        if not name.startswith("scale"):
            kernel = np.transpose(arrays[0], (2, 3, 1, 0))
            assert np.array_equal(again.get_layer(name).kernel, kernel)


def test_a_failed_download_says_where_to_put_the_file(cache, rng, monkeypatch):
    def get_file(*args, **kwargs):
        raise Exception("URL fetch failure on http://...: None -- no route to host")

    model = fcn()
    by_hand = cache / "fcn32s-heavy-pascal.caffemodel"
    with monkeypatch.context() as patch:
        patch.setattr(keras.utils, "get_file", get_file)
        with pytest.raises(OSError, match="no route to host") as error:
            caffe.load_pascal_voc(model)
    assert str(by_hand) in str(error.value)

    drawn = fcn_blobs(model, rng)
    write(by_hand, drawn)  # where the message says
    caffe.load_pascal_voc(model)
    assert np.array_equal(model.get_layer("fc7").bias, drawn["fc7"][1])


def test_a_truncated_download_is_not_converted(cache):
    (cache / "fcn32s-heavy-pascal.caffemodel").write_bytes(caffemodel({"fc7": [np.ones(4)]})[:-3])
    with pytest.raises(ValueError, match=str(cache)):
        caffe.load_pascal_voc(fcn())
    assert [p.suffix for p in cache.iterdir()] == [".caffemodel"]


def test_a_damaged_conversion(cache):
    (cache / "fcn32s-heavy-pascal.weights.h5").write_bytes(b"\x89HDF")
    with pytest.raises(ValueError, match="Delete it"):
        caffe.load_pascal_voc(fcn())


@pytest.mark.parametrize(
    "arguments, received",
    [
        ({"num_classes": 11}, "num_classes=11, fc_filters=8, channels=3"),
        ({"fc_filters": 16}, "num_classes=21, fc_filters=16, channels=3"),
        (
            {"input_shape": (None, None, 4), "include_preprocessing": False},
            "num_classes=21, fc_filters=8, channels=4",
        ),
    ],
)
def test_the_published_sizes(arguments, received, cache):
    with pytest.raises(ValueError, match=f"num_classes=21, fc_filters=8, chan.*: {received}"):
        caffe.load_pascal_voc(fcn(**arguments))


def test_other_networks_have_no_published_weights(cache):
    with pytest.raises(ValueError, match="those of FCN32s, FCN16s, FCN8s and FCN8sAtOnce"):
        caffe.load_pascal_voc(tiny())
