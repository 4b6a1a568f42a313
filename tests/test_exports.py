"""Every format gives what Keras gives, at sizes of which it knew nothing, and knows its classes."""

import dataclasses
import json
import signal
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import call, leave_half, randomize
from forked import Forked

import keras_fcn
from keras_fcn import commands
from keras_fcn.classes import Classes
from keras_fcn.exports import open_export
from keras_fcn.exports.formats import parse
from keras_fcn.exports.table import FORMATS as TABLE

FORMATS = {"saved_model": "", "onnx": ".onnx", "litert": ".tflite", "openvino": ".xml"}
SIZES = [(64, 96), (101, 75), (33, 130)]

# name: (factory, arguments, sizes that fit)
NETWORKS = {
    "unet": ("UNet", {"filters": (4, 8, 8), "num_classes": 3, "batch_norm": True}, SIZES),
    "bilinear": ("UNet", {"filters": (4, 8), "upsampling": "bilinear"}, SIZES),
    "sigmoid": (
        "UNet",
        {"filters": (4, 8), "num_classes": 1, "classifier_activation": "sigmoid"},
        SIZES,
    ),
    "gray": ("UNet", {"filters": (4, 8), "input_shape": (None, None, 1)}, SIZES),
    "valid": ("UNet", {"filters": (4, 8), "padding": "valid"}, [(64, 96), (100, 76), (36, 132)]),
    "vgg16": ("UNet", {"filters": (4, 4, 4, 4, 4), "encoder": "vgg16"}, SIZES),
    "fcn32s": ("FCN32s", {"fc_filters": 8, "num_classes": 3}, SIZES),
    "fcn16s": ("FCN16s", {"fc_filters": 8, "num_classes": 3}, SIZES),
    "fcn8s": ("FCN8s", {"fc_filters": 8, "num_classes": 3}, SIZES),
    "fcn8s_gray": ("FCN8s", {"fc_filters": 8, "input_shape": (None, None, 1)}, SIZES),
    "fcn8s_valid": ("FCN8s", {"fc_filters": 8, "padding": "valid"}, SIZES),
}
FAST = [("unet", "onnx"), ("sigmoid", "saved_model"), ("gray", "litert"), ("valid", "openvino")]
# OpenVINO 2026.4 computes this network wrongly, and so its file is refused
WRONG = ("fcn8s_valid", "openvino")
SLOW = [
    pytest.param(network, format, marks=pytest.mark.slow)
    for network in NETWORKS
    for format in FORMATS
    if (network, format) not in (*FAST, WRONG)
]


def build(network, rng, scale=0.2):
    factory, arguments, sizes = NETWORKS[network]
    model = getattr(keras_fcn, factory)(**arguments)
    randomize(model, rng, scale)
    return model, sizes


def check(model, path, format, sizes, rng):
    """Export, and compare with Keras at every size; return what was opened."""
    difference = keras_fcn.export(model, path, format)
    assert difference < 1e-5
    exported = open_export(path)
    for batch, (height, width) in enumerate(sizes, start=1):
        shape = (batch, height, width, model.input_shape[-1])
        images = rng.uniform(0, 255, shape).astype("float32")
        expected = keras.ops.convert_to_numpy(model(images, training=False))
        assert np.ptp(expected) > 0.05  # else any network would do
        np.testing.assert_allclose(exported.predict(images), expected, atol=1e-5)
    whole = images.astype("uint8")[:1]
    maps = exported.predict(whole)
    np.testing.assert_array_equal(maps, exported.predict(whole.astype("float32")))
    with pytest.raises(ValueError, match=r"Pass one image as `image\[None\]`"):
        exported.predict(whole[0])
    np.testing.assert_array_equal(maps, exported.predict(whole[0][None]))
    return exported


@pytest.mark.usefixtures("shallow_vgg16")
@pytest.mark.parametrize(("network", "format"), [*FAST, *SLOW])
def test_gives_what_keras_gives(network, format, rng, tmp_path):
    # few layers make large scores, whose rounding would be large
    model, sizes = build(network, rng, 0.15 if network.startswith("fcn8s_") else 0.2)
    path = tmp_path / f"{network}{FORMATS[format]}"
    exported = check(model, path, format, sizes, rng)
    assert exported.classes.names == tuple(f"class {i}" for i in range(len(exported.classes)))


@pytest.mark.slow
def test_weights_that_ship(tmp_path):
    """In full width; the commands of the documentation are run with fewer filters."""
    model = keras_fcn.from_pretrained("unet_camvid")
    assert keras_fcn.export(model, tmp_path / "unet_camvid.xml", "openvino") < 1e-3
    exported = open_export(tmp_path / "unet_camvid.xml")
    assert exported.classes == keras_fcn.classes_of(model)


@pytest.mark.slow
@pytest.mark.usefixtures("narrow_vgg16")
def test_a_published_network_that_openvino_computes_otherwise_is_refused(rng, tmp_path):
    network, format = WRONG
    model, _ = build(network, rng)
    with pytest.raises(ValueError, match="outputs that differ by up to"):
        keras_fcn.export(model, tmp_path / "model.xml", format)
    assert not list(tmp_path.iterdir())


def small_classifier(size=32):
    """A classifier of one size, which ends in dense layers."""
    return keras.Sequential(
        [
            keras.Input((size, size, 3)),
            keras.layers.Rescaling(1 / 127.5, -1),
            keras.layers.Conv2D(4, 3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(4),
            keras.layers.Flatten(),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.Dense(5, activation="softmax"),
        ]
    )


@pytest.mark.parametrize("format", FORMATS)
def test_a_converted_classifier(format, rng, tmp_path):
    model = keras_fcn.fully_convolutional(small_classifier())
    randomize(model, rng, scale=0.2)
    check(model, tmp_path / f"classifier{FORMATS[format]}", format, [(64, 96), (101, 75)], rng)


@pytest.mark.parametrize("format", FORMATS)
def test_the_file_knows_its_classes(format, rng, tmp_path):
    classes = Classes(('Gras & „Laub"', "<car>"), [(1, 2, 3), (4, 5, 6)], ignore=255)
    images = keras.Input((None, None, 3))
    scores = keras.layers.Conv2D(2, 1)(images)
    predictions = keras_fcn.layers.Predictions("softmax", classes, name="predictions")(scores)
    path = tmp_path / f"model{FORMATS[format]}"
    keras_fcn.export(keras.Model(images, predictions), path, format)
    assert open_export(path).classes == classes
    expected = {path.name, *({"model.bin"} if format == "openvino" else ())}
    expected |= {"model.tflite.json"} if format == "litert" else set()
    assert {file.name for file in tmp_path.iterdir()} == expected  # nothing is left over


def test_a_fixed_size_and_mixed_precision_become_free_and_exact(rng, tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = keras_fcn.UNet(input_shape=(64, 64, 3), filters=(4, 8))
    keras.config.set_dtype_policy("float32")
    randomize(model, rng)
    policies = [layer.dtype_policy.name for layer in model.layers]
    assert keras_fcn.export(model, tmp_path / "unet.onnx", "onnx") < 1e-5
    exported = open_export(tmp_path / "unet.onnx")
    assert exported.predict(np.zeros((3, 33, 130, 3), "float32")).shape == (3, 33, 130, 2)
    assert [layer.dtype_policy.name for layer in model.layers] == policies


def test_networks_of_even_sizes_and_of_images_that_are_integers(rng, tmp_path):
    """As in tutorials: what is upsampled has the size of its skip at even sizes alone."""
    images = keras.Input((None, None, 3), dtype="uint8")
    skip = keras.layers.Rescaling(1 / 255)(images)
    x = keras.layers.UpSampling2D()(keras.layers.MaxPooling2D()(skip))
    x = keras.layers.Concatenate()([skip, x])
    model = keras.Model(images, keras.layers.Conv2D(2, 3, padding="same")(x))
    randomize(model, rng)
    assert keras_fcn.export(model, tmp_path / "unet.onnx", "onnx") < 1e-5
    batch = rng.integers(0, 256, (2, 18, 20, 3)).astype("float32")
    received = open_export(tmp_path / "unet.onnx").predict(batch)
    np.testing.assert_allclose(received, call(model, batch.astype("uint8")), atol=1e-5)


def reordering_network(rng):
    """A network that OpenVINO 2026.4 computes wrongly, in silence."""
    images = keras.Input((None, None, 3))
    x = keras.ops.take(images, [2, 1, 0], axis=-1)
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    x = keras.layers.Conv2DTranspose(2, 2, strides=2, padding="same")(x)
    model = keras.Model(images, keras.layers.Softmax()(x))
    randomize(model, rng)
    return model


@pytest.mark.parametrize("scale", [1, 1e-3])  # a weak network hides its errors
def test_a_runtime_that_computes_otherwise_is_found_out(scale, rng, tmp_path):
    model = reordering_network(rng)
    for weight in model.weights:
        weight.assign(weight * scale)
    with pytest.raises(ValueError, match="outputs that differ by up to"):
        keras_fcn.export(model, tmp_path / "model.xml", "openvino")
    assert not list(tmp_path.iterdir())
    keras_fcn.export(model, tmp_path / "model.onnx", "onnx")


@pytest.mark.parametrize(
    ("format", "taken"),
    [
        ("saved_model", "model"),
        ("onnx", "model.onnx"),
        ("litert", "model.tflite"),
        ("litert", "model.tflite.json"),
        ("openvino", "model.xml"),
        ("openvino", "model.bin"),
    ],
)
def test_what_exists_is_not_replaced(format, taken, tmp_path):
    (tmp_path / taken).write_text("mine")
    with pytest.raises(FileExistsError, match=f"there is '{tmp_path / taken}'"):
        keras_fcn.export(identity(), tmp_path / f"model{FORMATS[format]}", format)
    assert (tmp_path / taken).read_text() == "mine"


WRITTEN = FORMATS | {"bioimageio": ".zip"}


def write_half(model, path, classes):
    """Write a part of what a format consists of, and no more."""
    if path.suffix:
        path.write_bytes(b"half")
        path.with_name("companion").write_bytes(b"half")
    else:
        path.mkdir()
        (path / "variables").write_bytes(b"half")


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), KeyboardInterrupt(), ValueError("broken")]
)
@pytest.mark.parametrize("format", WRITTEN)
def test_an_export_that_fails_leaves_nothing(format, error, tmp_path, monkeypatch):
    def fail(*arguments):
        write_half(*arguments)
        raise error

    (tmp_path / "earlier.bin").write_bytes(b"whole")
    monkeypatch.setitem(TABLE, format, dataclasses.replace(TABLE[format], write=fail))
    with pytest.raises(type(error)):
        keras_fcn.export(identity(), tmp_path / f"model{WRITTEN[format]}", format)
    assert [path.name for path in tmp_path.iterdir()] == ["earlier.bin"]
    assert (tmp_path / "earlier.bin").read_bytes() == b"whole"


def test_of_two_files_none_is_left_without_the_other(tmp_path, monkeypatch):
    rename = Path.replace

    def fail(source, target):
        if source.suffix == ".tflite":  # the last of the two
            raise OSError(28, "No space left on device")
        return rename(source, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        keras_fcn.export(identity(), tmp_path / "model.tflite", "litert")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format", ["litert", "openvino"])
def test_killed_between_its_two_names_the_same_call_goes_on(format, tmp_path):
    path = tmp_path / f"model{FORMATS[format]}"
    (companion,) = TABLE[format].companions(path)
    companion.write_bytes(b"whole")
    left = leave_half(tmp_path, path.name)
    keras_fcn.export(identity(), path, format)
    assert {file.name for file in tmp_path.iterdir()} == {path.name, companion.name}
    assert companion.read_bytes() != b"whole"
    path.unlink()
    left.mkdir()
    (left / path.name).write_bytes(b"half")
    (left / companion.name).write_bytes(b"half")  # so the one of the name is another's
    with pytest.raises(FileExistsError, match=f"there is '{companion}'"):
        keras_fcn.export(identity(), path, format)


# A process that writes an export whole, and is then busy with its check.
BUSY = """
import sys, time
from keras_fcn import exports
from keras_fcn.__main__ import main
exports._compare = lambda *_: print("written", flush=True) or time.sleep(60)
sys.argv = ["keras-fcn", *sys.argv[1:]]
sys.exit(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("format", WRITTEN)
def test_a_killed_export_leaves_no_file_of_the_name(format, number, tmp_path):
    keras_fcn.UNet(filters=(4, 8)).save(tmp_path / "mine.keras")
    (tmp_path / "out").mkdir()
    earlier = tmp_path / "out" / "earlier.bin"
    earlier.write_bytes(b"whole")
    path = tmp_path / "out" / f"model{WRITTEN[format]}"
    command = ["export", "--weights", str(tmp_path / "mine.keras"), "--format", format]
    command += ["--output", str(path)]
    process = Forked(["-c", BUSY, *command])
    assert "written" in process.lines()
    process.send_signal(number)
    errors = process.communicate(timeout=30)[1]
    left = {file.name for file in (tmp_path / "out").iterdir() if file != earlier}
    assert earlier.read_bytes() == b"whole"
    if number == signal.SIGTERM:
        assert process.returncode == 143
        assert errors.endswith("keras-fcn: stopped by SIGTERM\n")
        assert left == set()
    else:  # nobody could clean up
        assert all(name.startswith(".writing-") for name in left)


def identity():
    images = keras.Input((None, None, 3))
    return keras.Model(images, keras.layers.Identity()(images))


def two_outputs():
    images = keras.Input((None, None, 3))
    return keras.Model(images, [keras.layers.ReLU()(images), keras.layers.Softmax()(images)])


@pytest.mark.parametrize(
    ("make", "path", "format", "message"),
    [
        (identity, "model.onnx", "tensorrt", "`format` should be one of"),
        (identity, "model.pb", "onnx", "should end in '.onnx'"),
        (identity, "model", "openvino", "should end in '.xml'"),
        (two_outputs, "model.onnx", "onnx", "one batch of maps"),
        (small_classifier, "model.onnx", "onnx", "keras_fcn.fully_convolutional"),
        (lambda: "unet_camvid", "model.onnx", "onnx", "one batch of maps"),
    ],
)
def test_refuses(make, path, format, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        keras_fcn.export(make(), tmp_path / path, format)
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named_with_its_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"tf2onnx, onnx, onnxruntime.*'keras-fcn\[export\]'"):
        keras_fcn.export(identity(), tmp_path / "model.onnx", "onnx")


def test_opens_only_what_export_wrote(tmp_path):
    with pytest.raises(FileNotFoundError, match="no exported file"):
        open_export(tmp_path / "none.onnx")
    (tmp_path / "model.pt").write_text("")
    with pytest.raises(ValueError, match="ends in one of"):
        open_export(tmp_path / "model.pt")
    model = identity()
    model(np.zeros((1, 8, 8, 3)))
    model.export(str(tmp_path / "plain.onnx"), format="onnx", verbose=False)
    with pytest.raises(ValueError, match="holds none"):
        open_export(tmp_path / "plain.onnx")


@pytest.mark.parametrize("suffix", [kind.suffix for kind in TABLE.values()])
@pytest.mark.parametrize("content", [b"", b"no network", b"PK\3\4", b"\0" * 500])
def test_damaged_files_are_named(suffix, content, tmp_path):
    path = tmp_path / f"model{suffix}"
    file = path if suffix else path / "saved_model.pb"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)
    with pytest.raises(ValueError, match=rf"should be whole.*'{path}', but .*Export the model"):
        open_export(path)


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "[]", '{"names": 5}', '{"names": []}'])
def test_classes_that_are_damaged_are_told(text):
    with pytest.raises(ValueError):
        parse(text)


def test_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    keras_fcn.UNet(filters=(4, 8)).save("mine.keras")
    leave_half(tmp_path, "mine.tflite")
    assert commands.main(["export", "--weights", "mine.keras", "--format", "litert"]) == 0
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["mine.keras", "mine.tflite", "mine.tflite.json"]
    assert "mine.tflite: run in its own runtime, at most" in capsys.readouterr().out
    config = json.loads((tmp_path / "mine.tflite.json").read_text())
    assert config["names"] == ["class 0", "class 1"]
    assert commands.main(["export", "--weights", "mine.keras", "--format", "litert"]) == 1
    assert "does not replace what exists" in capsys.readouterr().err
