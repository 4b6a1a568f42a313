"""Models by name and from files, among them files of strangers; and the classes of a model."""

import io
import json
import time
import zipfile

import h5py
import keras
import numpy as np
import pytest
from keras import layers

from keras_fcn import (
    FCN32s,
    UNet,
    cards,
    classes_of,
    from_pretrained,
    load_model,
    set_classes,
    weights,
)
from keras_fcn.classes import Classes
from keras_fcn.layers import Predictions
from keras_fcn.optimizers import Muon
from keras_fcn.remedies import on_the_command_line


def on_images(*stack, size=None):
    return keras.Sequential([keras.Input((size, size, 3)), *stack])


@pytest.fixture
def saved(tmp_path):
    """A function that saves a model and returns the path."""

    def save(model):
        path = tmp_path / "model.keras"
        model.save(path)
        return path

    return save


def members(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(path, files, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_a_file_keeps_its_classes(saved):
    model = UNet(num_classes=2, filters=(4, 8))
    classes = Classes(("tissue", "nucleus"), ((0, 0, 0), (9, 8, 7)), ignore=255, data="nuclei")
    set_classes(model, classes)
    loaded = load_model(saved(model))
    assert classes_of(loaded) == classes
    for ours, theirs in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_weights_bring_their_classes_into_a_network_of_as_many(saved):
    model = UNet(num_classes=2, filters=(4, 8))
    classes = Classes(("tissue", "nucleus"), ((0, 0, 0), (9, 8, 7)), ignore=3)
    set_classes(model, classes)
    assert classes_of(UNet(num_classes=2, filters=(4, 8), weights=saved(model))) == classes
    card = cards.pretrained()["unet_nuclei"]
    model = UNet(**card["arguments"], weights="unet_nuclei")
    assert classes_of(model).names == ("background", "nucleus", "border")
    assert classes_of(UNet(num_classes=2, filters=(4, 8))) == Classes.default(2)


def test_a_shipped_name_has_its_cards_classes():
    classes = classes_of(load_model("unet_camvid"))
    assert classes.names[:2] == ("sky", "building")
    assert classes.colors[10] == (0, 128, 192)
    assert classes.ignore == 11


def test_any_model_of_maps_is_loaded(saved):
    path = saved(on_images(layers.Conv2D(5, 3, padding="same"), layers.Softmax()))
    model = load_model(str(path))
    assert classes_of(model) == Classes.default(5)
    with pytest.raises(ValueError, match=r"Append one: `keras.Model"):
        set_classes(model, Classes.default(5))
    model = keras.Model(model.inputs, Predictions(None, classes=Classes("abcde"))(model.outputs[0]))
    assert classes_of(model).names == tuple("abcde")
    nested = on_images(UNet(num_classes=3, filters=(4, 8)))
    set_classes(nested, Classes("abc"))
    assert classes_of(nested).names == tuple("abc")


@pytest.mark.parametrize("optimizer", ["adam", keras.optimizers.SGD, Muon])
@pytest.mark.parametrize("trained", [False, True])
def test_a_compiled_model_is_loaded(saved, optimizer, trained):
    model = UNet(num_classes=2, filters=(4, 8))
    optimizer = optimizer if isinstance(optimizer, str) else optimizer(0.1)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    if trained:
        model.fit(np.zeros((1, 8, 8, 3)), np.zeros((1, 8, 8), int), verbose=0)
    assert load_model(saved(model)).output_shape[-1] == 2


def test_one_channel_tells_two_classes_apart():
    model = UNet(num_classes=1, classifier_activation="sigmoid", filters=(4, 8))
    assert len(classes_of(model)) == 2
    set_classes(model, Classes(("no", "yes")))
    with pytest.raises(ValueError, match=r"tells 2 classes apart. Received: 1"):
        set_classes(model, Classes(("yes",)))


def damage(whole):
    """Files that are no whole model, each with what the message should say."""
    content = whole.read_bytes()
    files = members(whole)
    config = json.loads(files["config.json"])
    packed = io.BytesIO()
    write(packed, {"readme.txt": b"hello"})
    yield b"", "no whole|none"
    yield b"these are words", "none"
    yield content[:200], "damaged"
    yield content[: len(content) // 2], "damaged"
    middle = content.index(b"conv2d") if b"conv2d" in content else len(content) // 2
    yield content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :], ""
    yield packed.getvalue(), "missing"
    for broken in (
        b"{", b"[]", b"null", b"{}", b"3", b'{"class_name": "Functional"}', b"\xff\xfe",
        b"[" * 10**5, *(json.dumps(config | wrong).encode() for wrong in (
            {"config": []}, {"config": None}, {"class_name": 3}, {"module": "os"},
        )),
    ):  # fmt: skip
        packed = io.BytesIO()
        write(packed, files | {"config.json": broken})
        yield packed.getvalue(), ""
    packed = io.BytesIO()
    write(packed, {name: files[name] for name in ("metadata.json", "config.json")})
    yield packed.getvalue(), "missing"
    packed = io.BytesIO()
    write(packed, files | {"model.weights.h5": b"no HDF5"})
    yield packed.getvalue(), "damaged"


def test_damaged_files_are_told_from_missing_ones(saved, tmp_path):
    whole = saved(on_images(layers.Conv2D(2, 3), layers.Conv2D(2, 1)))
    path = tmp_path / "damaged.keras"
    for content, reason in damage(whole):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=reason or None) as caught:
            load_model(path)
        message = str(caught.value)
        assert f"whole .keras file, written by `model.save`. Received: '{path}', but" in message
        assert "\n" not in message
        assert len(message) < 600
    with pytest.raises(FileNotFoundError, match=r"no model file '.*missing.keras'"):
        load_model(tmp_path / "missing.keras")
    (tmp_path / "folder.keras").mkdir()
    with pytest.raises(ValueError, match=r"that is a folder"):
        load_model(tmp_path / "folder.keras")
    with pytest.raises(ValueError, match=r"that is a folder"):
        load_model(tmp_path)
    with pytest.raises(ValueError, match="does not say which network it belongs to"):
        UNet(filters=(4, 8)).save_weights(tmp_path / "unet.weights.h5")
        load_model(tmp_path / "unet.weights.h5")


@keras.saving.register_keras_serializable(package="somebody")
class Foreign(layers.Layer):
    def call(self, x):
        return x


def test_code_and_unknown_classes_are_not_run(saved, tmp_path):
    path = saved(on_images(layers.Conv2D(2, 3), layers.Lambda(lambda x: x * 2)))
    with pytest.raises(ValueError, match="it has a Lambda layer, which holds code"):
        load_model(path)
    path = saved(on_images(layers.Conv2D(2, 3), Foreign()))
    assert load_model(path).output_shape == (None, None, None, 2)
    config = members(path)["config.json"].replace(b"somebody>Foreign", b"somebody>Nobody")
    config = config.replace(b'"class_name": "Foreign"', b'"class_name": "Nobody"')
    write(path, members(path) | {"config.json": config})
    with pytest.raises(ValueError, match=r"'Nobody', which is not Keras's or keras_fcn's. Import"):
        load_model(path)


def test_bombs_are_refused_before_they_are_read(saved, tmp_path):
    whole = saved(on_images(layers.Conv2D(2, 3, name="conv")))
    files = members(whole)
    bombs = {}
    bombs["zip"] = files | {"model.weights.h5": bytes(300 * 2**20)}
    packed = io.BytesIO()
    with h5py.File(packed, "w") as file:
        file.create_dataset("layers/conv2d/vars/0", shape=(10**5, 10**5), chunks=(100, 100))
    bombs["hdf5"] = files | {"model.weights.h5": packed.getvalue()}
    bombs["network"] = files | {
        "config.json": files["config.json"].replace(b'"filters": 2', b'"filters": 200000000')
    }
    for name, content in bombs.items():
        path = write(tmp_path / f"{name}.keras", content, zipfile.ZIP_DEFLATED)
        started = time.perf_counter()
        with pytest.raises(ValueError, match=r"claims to hold|describes a network of"):
            load_model(path)
        assert time.perf_counter() - started < 1


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_weights_that_are_no_numbers_are_refused(saved, bad):
    model = on_images(layers.Conv2D(2, 3, name="conv"))
    model.get_layer("conv").bias.assign([0, bad])
    with pytest.raises(ValueError, match="NaN or infinite numbers, in 'conv/bias'"):
        load_model(saved(model))


def test_models_that_make_no_map_are_told_what_to_do(saved):
    with pytest.raises(ValueError, match=r"a classifier.*fully_convolutional"):
        load_model(saved(on_images(layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(4), size=8)))
    images = keras.Input((None, None, 3))
    two = keras.Model(images, [layers.Conv2D(2, 1)(images), layers.Conv2D(3, 1)(images)])
    with pytest.raises(ValueError, match=r"1 inputs and 2 outputs. Save the part.*outputs\[0\]"):
        load_model(saved(two))
    with pytest.raises(ValueError, match=r"from the shape \(None, 4\) to \(None, 2\)"):
        load_model(saved(keras.Sequential([keras.Input((4,)), layers.Dense(2)])))


def test_names_that_are_none_are_explained():
    for name in ("imagenet", "pascal_voc"):
        with pytest.raises(ValueError, match=f"Received: '{name}', which are weights") as caught:
            load_model(name)
        assert "Did you mean" not in str(caught.value)
    with on_the_command_line(), pytest.raises(ValueError, match="train --weights imagenet"):
        from_pretrained("imagenet")
    with pytest.raises(ValueError, match="Did you mean 'unet_camvid'"):
        load_model("unet_canvid")


def test_the_voc_networks_know_their_classes(monkeypatch, narrow_vgg16):
    monkeypatch.setattr(weights, "load_pascal_voc", lambda model: model)
    classes = classes_of(FCN32s(fc_filters=4, weights="pascal_voc"))
    assert (classes.names[15], classes.ignore) == ("person", 255)


def test_a_damaged_card_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(cards, "_directory", lambda: tmp_path)
    for content, reason in (('{"name" "x"}', "damaged: Expecting"), ("[1]", "without name"),
                            ("3", "damaged"), ('{"name": "x"}', "without factory")):  # fmt: skip
        (tmp_path / "x.json").write_text(content)
        with pytest.raises(ValueError, match=rf"x.json'.*{reason}"):
            load_model("x")


def test_the_same_number_of_classes_keeps_the_score_layer():
    with pytest.warns(UserWarning, match="keeps its score layer, whose 2 classes are membrane"):
        from_pretrained("unet_isbi2012", num_classes=2)


def test_one_class_is_a_sigmoid():
    with pytest.warns(UserWarning, match="start fresh.*: score$"):
        model = from_pretrained("unet_isbi2012", num_classes=1)
    assert model.output_shape[-1] == 1
    assert model.get_layer("predictions").activation is keras.activations.sigmoid
