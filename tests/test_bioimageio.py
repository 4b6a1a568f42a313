"""A package for the BioImage Model Zoo passes the zoo's tests, and describes its network."""

import zipfile

import keras
import numpy as np
import pytest
from conftest import randomize

import keras_fcn
from keras_fcn.catalogue import classes_of
from keras_fcn.exports import bioimageio, open_export

# name: (factory, arguments, minimum, step, halo, offset)
NETWORKS = {
    "unet": ("UNet", {"filters": (4, 8, 8), "num_classes": 3}, 64, 4, 24, 0),
    "gray": ("UNet", {"filters": (4, 8), "input_shape": (None, None, 1)}, 64, 2, 10, 0),
    "valid": ("UNet", {"filters": (4, 8), "padding": "valid"}, 64, 2, None, -16),
}


@pytest.fixture
def package(rng, tmp_path):
    """Export a network of the table; return the model and the path."""

    def export(name):
        factory, arguments, *_ = NETWORKS[name]
        model = getattr(keras_fcn, factory)(**arguments)
        randomize(model, rng, scale=0.2)
        assert keras_fcn.export(model, tmp_path / "model.zip", "bioimageio") < 1e-5
        return model, tmp_path / "model.zip"

    return export


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_the_zoo_passes_it_in_every_weight_format(name, package, tmp_path, monkeypatch):
    from bioimageio.core import load_model_description, test_description

    monkeypatch.chdir(tmp_path)  # the zoo unpacks there
    model, path = package(name)
    summary = test_description(path)
    assert summary.status == "passed", summary.format()
    described = load_model_description(path)
    assert described.weights.onnx and described.weights.tensorflow_saved_model_bundle
    *_, minimum, step, halo, offset = NETWORKS[name]
    size, axis = described.inputs[0].axes[1].size, described.outputs[0].axes[1]
    assert (size.min, size.step, axis.size.offset) == (minimum, step, offset)
    assert getattr(axis, "halo", None) == halo
    assert open_export(path).classes == classes_of(model)
    with zipfile.ZipFile(path) as parts:
        assert parts.read("README.md").decode() == bioimageio._readme(model, classes_of(model))
        assert np.load(parts.open("test_input.npy")).shape[-1] == model.input_shape[-1]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_sizes_are_those_of_the_network(name):
    factory, arguments, minimum, step, halo, offset = NETWORKS[name]
    model = getattr(keras_fcn, factory)(**arguments)
    size = bioimageio.Size.of(model)
    assert (size.minimum, size.step, size.halo or None, size.offset) == (
        minimum,
        step,
        halo,
        offset,
    )
    for side in (minimum, minimum + 3 * step):
        shape = model.compute_output_shape((1, side, side, model.input_shape[-1]))
        assert shape[1] == side / size.stride + size.offset


def test_the_sizes_of_a_nested_network():
    model = keras_fcn.UNet(**NETWORKS["valid"][1])
    image = keras.Input((None, None, 3))
    assert bioimageio.Size.of(keras.Model(image, model(image))) == bioimageio.Size.of(model)


@pytest.mark.parametrize("in_bytes", [True, False])
def test_the_range_of_the_pixels_is_that_of_the_network(in_bytes):
    model = keras_fcn.UNet(filters=(2, 4), include_preprocessing=in_bytes)
    described = bioimageio._input(bioimageio.Size.of(model), model)
    assert ("scales them itself" in described["description"]) == in_bytes
    assert described["description"] in bioimageio._readme(model, classes_of(model))
    assert described["data"].get("range") == ([0, 255] if in_bytes else None)


def test_the_zoo_takes_no_network_in_which_all_pixels_meet(tmp_path):
    image = keras.Input((None, None, 3))
    scaled = keras.layers.Rescaling(1 / 255)(image)
    whole = keras.layers.GlobalAveragePooling2D(keepdims=True)(scaled)
    score = keras.layers.Conv2D(2, 1, activation="softmax")
    model = keras.Model(image, score(keras.layers.Multiply()([scaled, whole])))
    message = "how much of the image each pixel of a map depends on.*export to another format"
    with pytest.raises(ValueError, match=message):
        keras_fcn.export(model, tmp_path / "model.zip", "bioimageio")
    assert keras_fcn.export(model, tmp_path / "model.tflite", "litert") < 1e-5


def test_the_card_is_the_documentation():
    model = keras_fcn.load_model("unet_isbi2012")
    text = bioimageio._readme(model, classes_of(model))
    assert keras_fcn.pretrained()["unet_isbi2012"]["dataset"] in text
    assert "membrane" in text


def test_names_become_identifiers():
    assert bioimageio._identifiers(["class 0", "2nd", "für"]) == ["class_0", "class_2nd", "für"]
    assert bioimageio._identifiers(["a b", "a-b"]) == ["a_b_0", "a_b_1"]
