"""A convolution as matrix products gives what the convolution gives."""

import keras
import numpy as np
import pytest
from conftest import randomize

from keras_fcn import FCN8s, fully_convolutional, predict_image
from keras_fcn.inference import products


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (4, 4), (7, 7)])
def test_products_give_the_convolution(size, padding, rng):
    images = rng.normal(size=(2, 9, 11, 3)).astype("float32")
    kernel = rng.normal(size=(*size, 3, 5)).astype("float32")
    expected = keras.ops.conv(images, kernel, padding=padding)
    result = products.convolve(images, kernel, padding)
    assert result.shape == expected.shape
    np.testing.assert_allclose(result, expected, atol=1e-5 * abs(np.asarray(expected)).max())


def sliding():
    layers = [
        keras.Input((20, 24, 3)),
        keras.layers.Conv2D(4, 3, strides=2, activation="relu"),
        keras.layers.Conv2D(4, 3, dilation_rate=2),
        keras.layers.Conv2D(4, 3, groups=2),
        keras.layers.Flatten(),
        keras.layers.Dense(8, activation="relu"),
        keras.layers.Dense(3),
    ]
    return fully_convolutional(keras.Sequential(layers))


@pytest.mark.parametrize(
    ("build", "count"),
    [(sliding, 2), (lambda: FCN8s(num_classes=3, fc_filters=4), 18)],
    ids=["sliding", "fcn8s"],
)
def test_a_model_predicts_by_products(build, count, narrow_vgg16, monkeypatch, rng):
    """All kernels but strided, dilated and grouped ones; and the model is left as it was."""
    model = build()
    randomize(model, rng)
    image = rng.integers(0, 256, (45, 71, 3), "uint8")
    expected = np.asarray(model(image[None].astype("float32"), training=False)[0])
    calls, convolve = [], products.convolve

    def counted(images, kernel, padding):
        calls.append(kernel.shape)
        return convolve(images, kernel, padding)

    monkeypatch.setattr(products, "convolve", counted)
    monkeypatch.setattr(products, "LARGE", 0)
    result = predict_image(model, image)
    np.testing.assert_allclose(result, expected, atol=1e-5 * abs(expected).max())
    assert len(calls) == count
    assert not any("convolution_op" in vars(layer) for layer in model.layers)


def test_half_precision_is_left_to_the_convolution(monkeypatch):
    monkeypatch.setattr(products, "LARGE", 0)
    layer = keras.layers.Conv2D(2, 3, dtype="mixed_bfloat16")
    model = keras.Sequential([keras.Input((None, None, 3)), layer])
    with products.large_kernels_as_products(model):
        assert "convolution_op" not in vars(layer)
