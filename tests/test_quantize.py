"""Networks in integers of 8 bits: near Keras's, or refused."""

import sys

import keras
import numpy as np
import pytest
import tifffile
from conftest import randomize
from PIL import Image

import keras_fcn
from keras_fcn import UNet, commands, evaluate, predict_folder, predict_image, predict_into
from keras_fcn.inference import Calibration, quantize
from keras_fcn.inference.quantize import calibration_images, check_quantized, fingerprint_of

INT8 = {"engine": "openvino", "precision": "int8"}


def build(rng, **arguments):
    model = UNet(**{"filters": (4, 8), "num_classes": 3, **arguments})
    randomize(model, rng, scale=0.2)
    return model


@pytest.fixture
def images(rng):
    return [rng.integers(0, 256, (40 + number, 56, 3), "uint8") for number in range(12)]


@pytest.fixture
def folder(images, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def anywhere(monkeypatch):
    """Let the processor have the instructions: without them it is slower, and right."""
    monkeypatch.setattr(quantize, "check_processor", lambda: None)
    monkeypatch.setattr(keras_fcn.exports, "check_processor", lambda: None)


@pytest.mark.slow
@pytest.mark.usefixtures("anywhere")
def test_int8_is_near_and_computed_once(images, folder, monkeypatch, rng):
    model = build(rng, classifier_activation=None)
    expected = predict_image(model, images[0])
    scale = abs(expected).max()
    result = predict_image(model, images[0], calibration=folder, **INT8)
    assert result.dtype == "float32" and result.shape == expected.shape
    assert 1e-4 * scale < abs(result - expected).mean() < 0.02 * scale

    def refuse(*_):
        raise AssertionError("quantized again")

    monkeypatch.setattr(quantize, "quantize", refuse)
    again = predict_image(model, images[1], calibration=str(folder), **INT8)
    assert again.shape == (41, 56, 3)
    randomize(model, rng, scale=0.3)
    with pytest.raises(ValueError, match="quantized again"):  # other weights
        predict_image(model, images[0], calibration=folder, **INT8)


@pytest.mark.slow
@pytest.mark.usefixtures("anywhere")
@pytest.mark.parametrize(
    "arguments",
    [
        {"num_classes": 1, "classifier_activation": "sigmoid", "input_shape": (40, 56, 2)},
        {"padding": "valid", "filters": (4, 8), "batch_norm": True},
        {"encoder": "vgg16", "filters": (4, 4, 4, 4, 4)},
    ],
    ids=["sigmoid", "valid", "vgg16"],
)
def test_int8_of_every_kind(arguments, images, shallow_vgg16, monkeypatch, rng):
    # ten layers of four random filters enlarge rounding as trained ones do not
    monkeypatch.setattr(quantize, "MEAN_TOLERANCE", 0.05)
    monkeypatch.setattr(quantize, "OTHER_LABELS", 0.1)
    model = build(rng, **arguments)
    images = [image[:40, :, : model.input_shape[-1]] for image in images]
    expected = predict_image(model, images[0])
    result = predict_image(model, images[0], calibration=images, **INT8)
    assert abs(result - expected).mean() < 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (INT8, r"Received: no `calibration`\. Pass a folder of at least 10 images"),
        ({"calibration": "photos"}, r'Pass `precision="int8"`, or leave it out'),
        ({"precision": "int8", "calibration": "photos"}, r"is for `engine='openvino'`"),
        ({"engine": "onnx", "precision": "int8", "calibration": "photos"}, r"Received: engine="),
    ],
)
def test_what_does_not_belong_together_is_refused(options, message, images, rng):
    with pytest.raises(ValueError, match=message):
        predict_image(build(rng), images[0], **options)


def test_a_processor_without_the_instructions_is_told(folder, images, tmp_path, monkeypatch, rng):
    info = tmp_path / "cpuinfo"
    monkeypatch.setattr(quantize, "CPUINFO", info)
    quantize.check_processor()  # of a system that does not tell
    info.write_text("flags : fpu avx2 avx512f avx512_vnni\n")
    quantize.check_processor()
    info.write_text("flags : fpu avx2 fma\n")
    told = r"precision='int8', and this processor has no .*VNNI.* Leave it"
    with pytest.raises(ValueError, match=told):
        predict_image(build(rng), images[0], calibration=folder, **INT8)


@pytest.mark.usefixtures("anywhere")
def test_a_missing_package_is_named(folder, images, tmp_path, monkeypatch, rng):
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(ImportError, match=r"needs the package nncf. Install it by `pip install nn"):
        predict_image(build(rng), images[0], calibration=folder, **INT8)


def test_torch_is_not_imported_after_tensorflow(monkeypatch):
    known = object()
    for module in (known, None):
        monkeypatch.delitem(sys.modules, "torch", raising=False)
        if module is not None:
            monkeypatch.setitem(sys.modules, "torch", module)
        with quantize.without_torch(), pytest.raises(ModuleNotFoundError, match="torch"):
            import torch.fx  # noqa: F401
        assert sys.modules.get("torch") is module


def test_images_to_calibrate_on(folder, images, tmp_path, rng):
    model = build(rng)
    batches = calibration_images(model, folder)
    assert [batch.shape for batch in batches] == [(1, 40 + n, 56, 3) for n in range(12)]
    assert batches[10].dtype == "float32"
    np.testing.assert_array_equal(batches[10][0], images[10])  # 10.png comes after 9.png
    large = np.arange(600 * 700).reshape(600, 700, 1) % 256
    large = np.repeat(large, 3, 2).astype("uint8")
    parts = calibration_images(model, [large] * 90)
    assert len(parts) == quantize.MOST
    assert {part.shape for part in parts} == {(1, 512, 512, 3)}
    with pytest.raises(NotADirectoryError, match=r"no such folder"):
        calibration_images(model, tmp_path / "photo")
    (folder / "3.png").unlink()
    (folder / ".4.png").write_bytes((folder / "4.png").read_bytes())
    for name in ("1.png", "2.png"):
        (folder / name).unlink()
    with pytest.raises(ValueError, match=rf"at least 10 images .* Received: 9 in '{folder}'"):
        calibration_images(model, folder)
    with pytest.raises(ValueError, match=r"Received: 3 in the list"):
        calibration_images(model, images[:3])
    tifffile.imwrite(tmp_path / "stack.tif", np.stack([images[0]] * 90), photometric="rgb")
    assert len(calibration_images(model, tmp_path)) == quantize.MOST
    (folder / "3.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"3\.png"):
        calibration_images(model, folder)


def test_a_list_is_known_by_its_arrays(images):
    stack = np.stack([image[:40] for image in images])
    assert quantize.key(images) == quantize.key(list(images)) != quantize.key(images[:-1])
    assert quantize.key(stack) == quantize.key(stack) != quantize.key(stack.copy())
    assert quantize.key(None) is None


def test_sixteen_bits_are_read_as_the_images_are(tmp_path, rng):
    model = build(rng, input_shape=(None, None, 1))
    for number in range(10):
        pixels = rng.integers(0, 4096, (20, 30)).astype("uint16")
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    batches = calibration_images(model, Calibration(tmp_path, white=4095))
    assert 240 < batches[0].max() <= 255
    assert fingerprint_of(Calibration(tmp_path, 4095)) != fingerprint_of(Calibration(tmp_path, 255))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda x: x[:, 1:], r"another label at 100\.0%"),
        (lambda x: x + np.nan, r"by inf of their scale"),
        (lambda x: np.roll(x, 1, -1), r"another label at 100\.0%"),
        (lambda x: x + 0.05, r"by 0\.05 of their scale .* label at 0\.0%"),
    ],
)
def test_what_is_not_near_is_refused(wrong, message, rng):
    images = rng.uniform(0, 255, (1, 20, 30, 3)).astype("float32")
    model = build(rng)
    bias = model.get_layer("score").weights[-1]
    bias.assign([9.0, 0.0, 0.0])
    expected = keras.ops.convert_to_numpy(model(images))
    assert check_quantized(model, lambda x: expected + 0.01, images) < 0.011
    with pytest.raises(ValueError, match=message):
        check_quantized(model, lambda x: wrong(expected), images)


@pytest.mark.slow
@pytest.mark.usefixtures("anywhere")
def test_folders_files_scores_and_the_command_line(folder, images, tmp_path, rng, capsys):
    model = build(rng)
    options = {"calibration": folder, **INT8}
    expected = predict_image(model, images[2], output="labels", **options)
    predict_folder(model, folder / "2.png", tmp_path / "out", **options)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / "2.png")), expected)
    path = predict_into(model, images[2], tmp_path / "labels.npy", 20, **options)
    assert (np.load(path) == expected).mean() > 0.95  # tiles see other parts of the image
    scores = evaluate(model, [(images[2], expected)], output=tmp_path / "scores", **options)
    assert scores["pixel_accuracy"] == 1
    model.save(tmp_path / "model.keras")
    command = ["predict", str(folder / "2.png"), "--weights", str(tmp_path / "model.keras")]
    command += ["--engine", "openvino", "--precision", "int8", "--output", str(tmp_path / "again")]
    assert commands.main(command) == 1
    assert "Pass a folder of at least 10 images" in capsys.readouterr().err
    assert not commands.main([*command, "--calibration", str(folder)])
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "again" / "2.png")), expected)


@pytest.mark.slow
@pytest.mark.usefixtures("anywhere")
def test_an_exported_file_is_a_quarter_and_knows_its_classes(folder, images, tmp_path, rng, capsys):
    model = build(rng, filters=(16, 32))
    plain, small = tmp_path / "plain.xml", tmp_path / "small.xml"
    keras_fcn.export(model, plain, "openvino")
    model.save(tmp_path / "model.keras")
    command = ["export", "--weights", str(tmp_path / "model.keras"), "--output", str(small)]
    command += ["--format", "openvino", "--int8"]
    assert commands.main(command) == 1
    assert "as `--calibration photos`" in capsys.readouterr().err
    assert not commands.main([*command, "--calibration", str(folder)])
    sizes = [path.with_suffix(".bin").stat().st_size for path in (small, plain)]
    assert sizes[0] < 0.35 * sizes[1]
    exported = keras_fcn.exports.open_export(small)
    assert exported.classes == keras_fcn.classes_of(model)
    expected = keras.ops.convert_to_numpy(model(images[0][None].astype("float32")))
    received = exported.predict(images[0][None].astype("float32"))
    assert 0 < abs(received - expected).mean() < 0.02
    with pytest.raises(ValueError, match=r"is for `format='openvino'` and `format='onnx'`"):
        keras_fcn.export(model, tmp_path / "x.tflite", "litert", "int8", folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "model.keras", "photos", "plain.bin", "plain.xml", "small.bin", "small.xml",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.usefixtures("anywhere")
@pytest.mark.parametrize(
    "arguments", [{"batch_norm": True}, {"num_classes": 1, "classifier_activation": "sigmoid"}]
)
def test_an_onnx_file_in_integers(arguments, folder, tmp_path, rng):
    model = build(rng, filters=(32, 64), **arguments)  # most of the file are kernels
    plain, small = tmp_path / "plain.onnx", tmp_path / "small.onnx"
    keras_fcn.export(model, plain, "onnx")
    assert 0 < keras_fcn.export(model, small, "onnx", "int8", folder) < 1
    assert small.stat().st_size < 0.5 * plain.stat().st_size
    files = [keras_fcn.exports.open_export(path) for path in (plain, small)]
    assert files[0].classes == files[1].classes == keras_fcn.classes_of(model)
    for size in ((40, 56), (33, 70)):  # not that of the images that it is calibrated on
        pixels = rng.integers(0, 256, (2, *size, 3)).astype("float32")
        expected, received = (file.predict(pixels) for file in files)
        assert 0 < abs(received - expected).mean() < 0.02
