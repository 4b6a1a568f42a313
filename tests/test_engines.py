import contextlib
import math
import sys
import threading
import tracemalloc

import keras
import numpy as np
import pytest
from conftest import randomize

from keras_fcn import FCN8s, UNet, fully_convolutional, predict_image
from keras_fcn.inference import engines
from keras_fcn.private import import_openvino

openvino = import_openvino()  # whose makers would else be told of each export, by a process each

SCORES = {"filters": (4, 6), "num_classes": 3, "classifier_activation": None}


def slid_classifier():
    layers = [
        keras.Input((40, 40, 3)),
        keras.layers.Conv2D(4, 3, strides=2),
        keras.layers.Flatten(),
        keras.layers.Dense(3),
    ]
    return fully_convolutional(keras.Sequential(layers))


@pytest.fixture
def image(rng):
    return rng.integers(0, 256, (45, 71, 3), "uint8")


@pytest.fixture(params=["openvino", "onnx"])
def engine(request):
    return request.param


@pytest.mark.slow
@pytest.mark.parametrize(
    "build",
    [
        lambda: UNet(**SCORES),
        lambda: UNet(padding="valid", **SCORES),
        lambda: FCN8s(num_classes=3, fc_filters=4, classifier_activation=None),
        lambda: slid_classifier(),
    ],
    ids=["same", "valid", "fcn8s", "windows of 40 x 40"],
)
def test_engines_give_what_keras_gives(build, engine, image, shallow_vgg16, rng):
    model = build()
    randomize(model, rng)
    expected = predict_image(model, image)
    result = predict_image(model, image, engine=engine)
    assert result.dtype == "float32"
    np.testing.assert_allclose(result, expected, atol=1e-4 * abs(expected).max())
    tiles = predict_image(model, image, engine=engine, tile_size=32)
    np.testing.assert_allclose(tiles, expected, atol=1e-4 * abs(expected).max())


def test_mixed_precision_computes_in_float32_in_an_engine(engine, image, rng):
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = UNet(**SCORES)
    keras.config.set_dtype_policy("float32")
    randomize(model, rng)
    exact = UNet(**SCORES)
    exact.set_weights(model.get_weights())
    expected, rounded = predict_image(exact, image), predict_image(model, image)
    tolerance = 1e-4 * abs(expected).max()
    assert abs(rounded - expected).max() > 5 * tolerance  # Keras does as the model says
    result = predict_image(model, image, engine=engine)
    np.testing.assert_allclose(result, expected, atol=tolerance)
    np.testing.assert_array_equal(predict_image(model, image), rounded)  # and still does
    assert model.get_layer("conv1_1").compute_dtype == "bfloat16"


@pytest.mark.slow
def test_an_engine_is_compiled_once_and_anew_for_other_weights(engine, image, monkeypatch, rng):
    compilations = []
    compile_model = engines._compile

    def count(*arguments):
        compilations.append(arguments[1])
        return compile_model(*arguments)

    monkeypatch.setattr(engines, "_compile", count)
    model = UNet(**SCORES)
    for _ in range(2):
        randomize(model, rng)
        for height in (40, 50):
            predict_image(model, image[:height], engine=engine)
        expected = predict_image(model, image)
        result = predict_image(model, image, engine=engine)
        np.testing.assert_allclose(result, expected, atol=1e-4 * abs(expected).max())
    assert compilations.count(engine) == 2
    assert compilations.count("keras") == 1


def test_weights_are_looked_at_without_a_copy():
    """For each image: those of an FCN-8s are half a gigabyte."""
    model = keras.Sequential([keras.Input((None, None, 64)), keras.layers.Conv2D(512, 5)])
    first, weight = engines._sample(model), model.weights[0]
    tracemalloc.start()
    assert engines._sample(model) == first
    assert tracemalloc.get_traced_memory()[1] < 4 * math.prod(weight.shape) / 10
    tracemalloc.stop()
    weight.assign(weight + 1)
    assert engines._sample(model) != first


@pytest.mark.parametrize("wrong", [lambda x: 1.01 * x, lambda x: x + np.nan, lambda x: x[:, 1:]])
def test_an_engine_that_is_wrong_is_refused(wrong, image, monkeypatch, rng):
    model = UNet(**SCORES)
    randomize(model, rng)
    keras_scores = engines.compiled(model)
    monkeypatch.setattr(engines, "_compile_onnx", lambda model: lambda x: wrong(keras_scores(x)))
    with pytest.raises(ValueError, match=r"should give Keras's scores. Received: scores of 'unet'"):
        predict_image(model, image, engine="onnx")


@pytest.mark.parametrize("name", ["openvino", "onnx"])
def test_a_missing_package_is_named(name, image, monkeypatch):
    package = {"openvino": "openvino", "onnx": "onnxruntime"}[name]
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=f"pip install {package}"):
        predict_image(UNet(**SCORES), image, engine=name)


def test_bfloat16_needs_the_engine_and_the_processor(image, monkeypatch):
    model = UNet(**SCORES)
    with pytest.raises(ValueError, match=r"is for `engine='openvino'`\. Received"):
        predict_image(model, image, precision="bfloat16")

    class Core:
        def get_property(self, device, name):
            return ["FP32", "INT8"]

    monkeypatch.setattr(openvino, "Core", Core)
    with pytest.raises(ValueError, match=r"float32 only. Leave it out"):
        predict_image(model, image, engine="openvino", precision="bfloat16")


@pytest.mark.slow
def test_bfloat16_is_near(image, rng):
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor has no bfloat16")
    model = UNet(**SCORES)
    randomize(model, rng)
    expected = predict_image(model, image)
    result = predict_image(model, image, engine="openvino", precision="bfloat16")
    assert 0 < abs(result - expected).mean() < 0.02 * abs(expected).max()


def test_augmentation_is_left_out(engine, image, rng):
    """Keras would export it as it is in training."""
    network = UNet(**SCORES)
    randomize(network, rng)
    layers = [keras.Input((None, None, 3)), keras.layers.RandomFlip(), network]
    model = keras.Sequential(layers)
    expected = predict_image(network, image)
    np.testing.assert_array_equal(predict_image(model, image), expected)
    result = predict_image(model, image, engine=engine)
    np.testing.assert_allclose(result, expected, atol=1e-4 * abs(expected).max())


def test_a_layer_that_an_engine_does_not_know_is_told_in_a_line(monkeypatch):
    def refuse(model):
        raise RuntimeError("No Op registered for Tangle\nwith domain_version 15")

    monkeypatch.setattr(engines, "_compile_onnx", refuse)
    with pytest.raises(ValueError, match=r"does not take: No Op registered for Tangle\. Pass"):
        engines.compiled(UNet(**SCORES), "onnx")


@pytest.mark.slow
def test_threads_take_turns(engine, image, rng):
    model = UNet(**SCORES)
    randomize(model, rng)
    images = [image[:, : 40 + 5 * number] for number in range(4)]
    expected = [predict_image(model, image, engine=engine) for image in images]
    results = [[] for _ in images]

    def work(number):
        for _ in range(5):
            results[number].append(predict_image(model, images[number], engine=engine))

    threads = [threading.Thread(target=work, args=[number]) for number in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for received, right in zip(results, expected, strict=True):
        np.testing.assert_array_equal(received, [right] * 5)


def test_a_model_is_compiled_while_another_is(monkeypatch):
    """A thread waits for the model that it wants alone, and finds that one compiled once."""
    slow, quick = UNet(name="slow", **SCORES), UNet(name="quick", **SCORES)
    begun, go_on, compilations = threading.Event(), threading.Event(), []

    def compile_model(model, *options):
        name = model.name
        compilations.append(name)
        if name == "slow":
            begun.set()
            assert go_on.wait(60)
        return lambda images: name

    monkeypatch.setattr(engines, "_compile", compile_model)
    received = []
    threads = [
        threading.Thread(target=lambda: received.append(engines.compiled(slow, "onnx")(None)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    assert begun.wait(60)
    assert engines.compiled(quick, "onnx")(None) == "quick"
    assert not received
    go_on.set()
    for thread in threads:
        thread.join(60)
    assert received == ["slow", "slow"] and compilations == ["slow", "quick"]


def test_translations_of_models_that_share_layers_take_turns(monkeypatch):
    """Else one would find the other's float32, and leave it."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = UNet(**SCORES)
    keras.config.set_dtype_policy("float32")
    other = keras.Model(model.input, model.get_layer("conv1_2").output)
    policies = [layer.dtype_policy.name for layer in model.layers]
    assert "mixed_bfloat16" in policies
    both = threading.Barrier(2)

    def translate(model):
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(1)  # in vain, where one waits for the other

    monkeypatch.setattr(engines, "_compile_onnx", translate)
    monkeypatch.setattr(engines, "_compared", lambda model, function, engine: function)
    threads = [
        threading.Thread(target=engines.compiled, args=[one, "onnx"]) for one in (model, other)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert both.broken
    assert [layer.dtype_policy.name for layer in model.layers] == policies
