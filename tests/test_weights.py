import json
import re
import time
import zipfile
import zlib
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from conftest import call, narrow_networks, randomize, ship_small

import keras_fcn
from keras_fcn import (
    FCN8s,
    FCN32s,
    UNet,
    cards,
    dense_to_conv,
    from_pretrained,
    load_vgg16,
    pretrained,
)
from keras_fcn.archives import check_pieces, open_weights
from keras_fcn.cards import sha256
from keras_fcn.private import without_numbers
from keras_fcn.vgg16 import BLOCKS
from keras_fcn.weights import fingerprint, load_file, save_eight_bit, save_half_precision

CARD_KEYS = {
    "name", "factory", "arguments", "parameters", "input", "classes", "palette", "ignore_label",
    "dataset", "data_licence", "metric", "test_time_augmentation", "commands", "seed", "hardware",
    "training_minutes", "versions", "file", "bytes", "sha256", "fingerprint",
}  # fmt: skip
SMALL = {"filters": (4, 6, 8), "num_classes": 3}


def test_layers_are_those_of_keras():
    """In full width, in which the tests below are too slow."""
    with without_numbers():
        theirs = keras.applications.VGG16(weights=None)
        ours = FCN32s()
    for name in [name for block in BLOCKS for name in block]:
        block, number = re.fullmatch(r"conv(\d)_(\d)", name).groups()
        kernel = theirs.get_layer(f"block{block}_conv{number}").kernel
        assert ours.get_layer(name).kernel.shape == kernel.shape
    shapes = [theirs.get_layer(name).kernel.shape for name in ("fc1", "fc2")]
    assert shapes == [(7 * 7 * 512, 4096), (4096, 4096)]
    assert ours.get_layer("fc6").kernel.shape == (7, 7, 512, 4096)
    assert ours.get_layer("fc7").kernel.shape == (1, 1, 4096, 4096)


def trainings():
    """The commands of the cards, and of the recipes, that train what ships."""
    commands = [command for card in pretrained().values() for command in card["commands"]]
    recipes = (Path(__file__).resolve().parents[1] / "weights" / "RECIPES.md").read_text()
    return commands + re.findall(r"^keras-fcn train .* --output .*", recipes, re.M)


@pytest.mark.parametrize("command", trainings())
def test_commands_leave_nothing_to_the_plan_that_a_release_may_plan_otherwise(command):
    """Loss, weights of classes, optimizer: else the same command trains another network."""
    needed = {"loss", "class-weights", "optimizer", "learning-rate", "augment", "steps", "epochs"}
    assert needed <= set(re.findall(r" --([a-z-]+)", command))


@pytest.fixture(scope="module")
def vgg16_file(tmp_path_factory):
    """A random VGG16 in the file format in which Keras publishes the ImageNet one."""
    from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

    keras.utils.set_random_seed(0)
    path = tmp_path_factory.mktemp("vgg16") / "vgg16_weights_tf_dim_ordering_tf_kernels.h5"
    with pytest.MonkeyPatch.context() as patch:
        narrow_networks(patch)
        model = keras.applications.VGG16(weights=None)
    for layer in model.layers:  # biases too, that they may be told apart
        if layer.weights:
            layer.bias.assign(np.random.default_rng(1).normal(0, 0.1, layer.bias.shape))
    with h5py.File(path, "w") as file:
        save_weights_to_hdf5_group(file, model)
    return path


@pytest.fixture
def vgg16(vgg16_file, monkeypatch):
    narrow_networks(monkeypatch)
    return keras.applications.VGG16(weights=str(vgg16_file))


def features(model, name, images):
    return call(keras.Model(model.input, model.get_layer(name).output), images)


def test_fc7_is_the_dense_fc2(vgg16, rng):
    """At the centre of a 224x224 image fc6 sees what the dense layer sees."""
    model = FCN32s(num_classes=2, fc_filters=64, include_preprocessing=False)
    load_vgg16(model, vgg16)
    images = rng.uniform(-120, 130, (1, 224, 224, 3)).astype("float32")
    dense = features(vgg16, "fc2", images)
    fc7 = features(model, "fc7", images)
    assert fc7.shape == (1, 7, 7, 64)
    np.testing.assert_allclose(fc7[:, 3, 3], dense, atol=1e-5 * abs(dense).max())


def test_imagenet_goes_through_keras_applications(vgg16_file, vgg16, rng, monkeypatch):
    requested = []
    monkeypatch.setattr(
        "keras.src.applications.vgg16.file_utils.get_file",
        lambda name, *args, **kwargs: requested.append((name, kwargs)) or str(vgg16_file),
    )
    model = FCN8s(weights="imagenet", fc_filters=8)
    name, options = requested[0]
    assert name == vgg16_file.name
    assert "file_hash" in options
    units = np.arange(8) * 8
    kernel, bias = vgg16.get_layer("fc1").get_weights()
    np.testing.assert_array_equal(
        model.get_layer("fc6").get_weights()[0], dense_to_conv(kernel, 7)[..., units]
    )
    np.testing.assert_array_equal(model.get_layer("fc6").get_weights()[1], bias[units])
    kernel = vgg16.get_layer("fc2").get_weights()[0]
    np.testing.assert_array_equal(
        model.get_layer("fc7").get_weights()[0][0, 0], kernel[np.ix_(units, units)]
    )


@pytest.mark.parametrize(
    ("build", "file"),
    [
        (lambda: FCN8s(weights="imagenet", fc_filters=8),
         "vgg16_weights_tf_dim_ordering_tf_kernels.h5"),
        (lambda: UNet(weights="imagenet", encoder="vgg16"),
         "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"),
    ],
)  # fmt: skip
def test_a_failed_download_says_where_to_put_the_file(build, file, monkeypatch):
    def fail(*args, **kwargs):
        raise Exception("URL fetch failure on ...: None -- [Errno 111] Connection refused")

    monkeypatch.setattr("keras.src.applications.vgg16.file_utils.get_file", fail)
    message = rf"Fetch {file} by hand from .*/{file} and put it"
    with without_numbers(), pytest.raises(OSError, match=message):
        build()


def test_half_a_download_is_not_taken_for_the_file(tmp_path, monkeypatch):
    """Keras checks the file's hash, so what a killed process left is fetched again."""
    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(tmp_path))
    partial = tmp_path / "models" / "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
    partial.parent.mkdir()
    partial.write_bytes(b"half")
    fetched = []

    def fail(origin, target, *args, **kwargs):
        fetched.append(origin)
        raise OSError("no network")

    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", fail)
    with pytest.raises(OSError, match=r"Fetch .*_notop.h5 by hand"):
        UNet(weights="imagenet", encoder="vgg16")
    assert len(fetched) == 1
    assert fetched[0].endswith(partial.name)


def test_unet_encoder_is_vgg16(vgg16, rng):
    model = UNet(num_classes=3, encoder="vgg16", include_preprocessing=False)
    load_vgg16(model, vgg16)
    images = rng.uniform(-120, 130, (1, 48, 32, 3)).astype("float32")
    top = keras.applications.VGG16(include_top=False, weights=None)
    top.set_weights(vgg16.get_weights()[: len(top.weights)])
    for ours, theirs in (("conv1_2", "block1_conv2"), ("conv5_3", "block5_conv3")):
        expected = features(top, theirs, images)
        np.testing.assert_allclose(
            features(model, ours, images), expected, atol=1e-5 * abs(expected).max()
        )
    assert load_vgg16(model, top) is model  # without its top, too


def test_a_file_without_a_top_is_told_of_once(vgg16, tmp_path):
    """Not by Keras, too, of how it does not fit a network with a top."""
    path = tmp_path / "notop.weights.h5"
    keras.applications.VGG16(include_top=False, weights=None).save_weights(path)
    with pytest.warns(UserWarning) as told:
        load_vgg16(FCN8s(fc_filters=8), path)
    (message,) = (str(w.message) for w in told if issubclass(w.category, UserWarning))
    assert "no dense layers" in message


@pytest.mark.parametrize("channels", [1, 2, 4, 6])
@pytest.mark.parametrize("include_preprocessing", [True, False])
def test_gray_image_gives_what_its_rgb_copy_gives(vgg16, rng, channels, include_preprocessing):
    options = {"include_preprocessing": include_preprocessing, "encoder": "vgg16"}
    rgb = load_vgg16(UNet(**options), vgg16)
    other = load_vgg16(UNet(input_shape=(None, None, channels), **options), vgg16)
    gray = rng.uniform(0, 255, (1, 17, 20, 1)).astype("float32")
    expected = features(rgb, "conv5_3", gray.repeat(3, axis=-1))
    result = features(other, "conv5_3", gray.repeat(channels, axis=-1))
    np.testing.assert_allclose(result, expected, atol=1e-5 * abs(expected).max())


def test_transplant_that_does_not_fit_leaves_the_model_as_it_was(vgg16):
    with pytest.raises(ValueError, match=r"without the layers \['conv3_3'"):
        load_vgg16(UNet(), vgg16)
    model = FCN8s(fc_filters=8)
    before = model.get_weights()
    small = keras.applications.VGG16(weights=None, input_shape=(32, 32, 3))
    with pytest.raises(ValueError, match="height=7"):
        load_vgg16(model, small)
    with pytest.raises(ValueError, match="at most 64"):
        load_vgg16(FCN32s(num_classes=2, fc_filters=65), vgg16)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_vgg16_of_no_numbers_or_of_another_file_is_refused(vgg16_file, vgg16, tmp_path):
    model = UNet(num_classes=2, encoder="vgg16")
    before = model.get_weights()
    path = tmp_path / vgg16_file.name
    path.write_bytes(vgg16_file.read_bytes())
    with h5py.File(path, "a") as file:
        kernels = []
        file["block3_conv2"].visititems(lambda _, item: kernels.append(item))
        kernels[-1][0] = np.nan
    for load in (load_vgg16, load_file):
        with pytest.raises(ValueError, match="NaN or infinite numbers in 'block3_conv2'"):
            load(model, path)
    with h5py.File(path, "a") as file:
        del file["block3_conv2"]
        file["block3_conv2"] = h5py.ExternalLink(str(vgg16_file), "block3_conv2")
    with pytest.raises(ValueError, match="refers to another file"):
        load_vgg16(model, path)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")  # it is fresh
def test_half_precision_file_loads_in_plain_keras_and_by_path(rng, tmp_path):
    model = UNet(batch_norm=True, **SMALL)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(rng.random((1, 8, 8, 3)), np.zeros((1, 8, 8)), verbose=0)
    randomize(model, rng)
    model.get_layer("conv1_1_bn").moving_variance.assign(np.full(4, 1e5))  # float16 ends at 65504
    path = tmp_path / "model.weights.h5"
    save_half_precision(model, path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    plain = keras.models.clone_model(model)
    plain.compile("adam", "sparse_categorical_crossentropy")
    plain.load_weights(path)
    ours = UNet(batch_norm=True, weights=path, **SMALL)
    weights = zip(model.get_weights(), plain.get_weights(), ours.get_weights(), strict=True)
    for expected, *loaded in weights:
        stored = expected.astype("float16") if expected.ndim > 1 else expected
        np.testing.assert_array_equal(loaded, [stored] * 2)


def test_eight_bits_are_half_of_half_precision(rng, tmp_path):
    model = UNet(batch_norm=True, filters=(32, 64, 128), num_classes=3)
    randomize(model, rng)
    model.get_layer("conv1_1_bn").moving_variance.assign(np.full(32, 1e5))
    model.get_layer("up2_conv1").kernel.assign(np.zeros((3, 3, 128, 64)))
    save_half_precision(model, tmp_path / "half.weights.h5")
    path = tmp_path / "eight.weights.h5"
    save_eight_bit(model, path)
    assert sorted(tmp_path.iterdir()) == [path, tmp_path / "half.weights.h5"]
    assert path.stat().st_size < 0.6 * (tmp_path / "half.weights.h5").stat().st_size
    loaded = UNet(batch_norm=True, filters=(32, 64, 128), num_classes=3, weights=path)
    for weight, original in zip(loaded.weights, model.weights, strict=True):
        ours, theirs = np.asarray(weight), np.asarray(original)
        if ours.ndim < 4:
            np.testing.assert_array_equal(ours, theirs)
            continue
        bounds = [abs(theirs).max(axes, keepdims=True) for axes in ((0, 1, 2), (0, 1, 3))]
        assert any((abs(ours - theirs) <= bound * (0.51 / 127)).all() for bound in bounds)
    image = rng.uniform(0, 255, (1, 33, 40, 3))
    expected = call(model, image)
    np.testing.assert_allclose(call(loaded, image), expected, atol=0.1)


def test_eight_bits_of_channels_of_very_different_size(rng, tmp_path):
    """Each channel has its own scale, also where Keras has the output channels third."""
    images = keras.Input((None, None, 4))
    x = keras.layers.Conv2DTranspose(5, 3, use_bias=False)(images)
    model = keras.Model(images, keras.layers.DepthwiseConv2D(3, use_bias=False)(x))
    transposed, depthwise = (rng.normal(size=weight.shape) for weight in model.weights)
    transposed *= 10.0 ** np.arange(5)[:, None]
    depthwise *= 10.0 ** np.arange(5)[:, None]
    model.set_weights([transposed, depthwise])
    save_eight_bit(model, tmp_path / "model.weights.h5")
    model.set_weights([0 * transposed, 0 * depthwise])
    load_file(model, tmp_path / "model.weights.h5")
    for ours, theirs in zip(model.get_weights(), (transposed, depthwise), strict=True):
        largest = abs(theirs).max((0, 1, 3), keepdims=True)
        assert (abs(ours - theirs) <= largest * (0.51 / 127)).all()


def test_card_of_eight_bits_is_loaded_and_verified(rng, tmp_path, monkeypatch):
    model = UNet(**SMALL)
    randomize(model, rng)
    path = tmp_path / "small.weights.h5"
    save_eight_bit(model, path)
    card = pretrained()["unet_camvid"] | {
        "name": "small",
        "arguments": {"input_shape": [None, None, 3], **SMALL, "filters": [4, 6, 8]},
        "classes": ["a", "b", "c"],
        "palette": [[0, 0, 0], [1, 1, 1], [2, 2, 2]],
        "ignore_label": None,
        "file": path.name,
        "sha256": sha256(path),
    }
    (tmp_path / "small.json").write_text(json.dumps(card))
    monkeypatch.setattr(cards, "_directory", lambda: tmp_path)
    loaded = from_pretrained("small")
    assert keras_fcn.classes_of(loaded).names == ("a", "b", "c")
    np.testing.assert_allclose(fingerprint(loaded), fingerprint(model), atol=0.05)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="sha256"):
        from_pretrained("small")


def damaged(content):
    """Whole files of weights, each damaged in one way."""
    yield "empty", b""
    yield "text", b"no weights at all"
    yield "truncated", content[: len(content) // 2]
    yield "zeroed", content[: len(content) // 4] + bytes(len(content) - len(content) // 4)


def test_damaged_weights_leave_the_model_as_it_was(rng, tmp_path):
    path = tmp_path / "model.weights.h5"
    UNet(**SMALL).save_weights(path)
    model = UNet(**SMALL)
    before = model.get_weights()
    for name, content in damaged(path.read_bytes()):
        file = tmp_path / f"{name}.weights.h5"
        file.write_bytes(content)
        with pytest.raises(ValueError, match=rf"Received: '{file}', "):
            load_file(model, file)
        assert file.read_bytes() == content
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("save", ["save_weights", "save"])
def test_weights_that_are_no_numbers_are_refused(tmp_path, bad, save):
    model = UNet(**SMALL)
    kernel = model.get_layer("up1_conv2").kernel
    values = np.array(kernel)
    values[0, 0, 0, 0] = bad
    kernel.assign(values)
    path = tmp_path / ("model.keras" if save == "save" else "model.weights.h5")
    getattr(model, save)(path)
    target = UNet(**SMALL)
    before = target.get_weights()
    with pytest.raises(ValueError, match="NaN or infinite numbers, in 'up1_conv2/kernel'"):
        load_file(target, path)
    for old, new in zip(before, target.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.filterwarnings("ignore:Skipping nested container")  # Keras of its own failure
def test_arrays_in_other_places_leave_the_model_as_it_was(rng, tmp_path):
    """The same shapes, but the file has two of them the other way round."""
    path = tmp_path / "model.weights.h5"
    UNet(**SMALL).save_weights(path)
    with h5py.File(path, "a") as file:
        first, last = file["layers/conv2d/vars"], file["layers/conv2d_5/vars"]
        values = [first["1"][()], last["1"][()]]
        del first["1"], last["1"]
        first["1"], last["1"] = values[::-1]
    model = UNet(**SMALL)
    randomize(model, rng)
    before = model.get_weights()
    with pytest.raises(ValueError, match="does not fit"):
        load_file(model, path)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(
    ("put", "message"),
    [
        (lambda file: file.create_group("layers/conv2d/vars/0"), "not in the model"),
        (lambda file: file.update({"layers/x": np.dtype("float32")}), "a datatype in 'layers/x'"),
        (lambda file: file.create_group("/".join("a" * 3000)), "more than 100 deep"),
    ],
)
def test_what_no_weights_file_holds_is_refused_at_once(tmp_path, put, message):
    path = tmp_path / "strange.weights.h5"
    with h5py.File(path, "w", libver="latest") as file:
        put(file)
    begin = time.process_time()
    with pytest.raises(ValueError, match=message):
        UNet(weights=path, **SMALL)
    assert time.process_time() - begin < 10


def put_piece(path, name, content, **options):
    """Let an array of a weights file be one piece of this content."""
    with h5py.File(path, "a") as file:
        shape, kind = file[name].shape, file[name].dtype
        del file[name]
        array = file.create_dataset(name, shape, kind, chunks=shape, **options)
        array.id.write_direct_chunk((0,) * len(shape), content)


def test_pieces_hold_what_they_claim(tmp_path):
    path, name = tmp_path / "piece.weights.h5", "layers/conv2d/vars/1"
    UNet(**SMALL).save_weights(path)
    whole, gzip = np.arange(4, dtype="float32").tobytes(), {"compression": "gzip"}
    for options, content in (
        ({}, whole),
        (gzip, zlib.compress(whole)),
        (gzip | {"fletcher32": True}, zlib.compress(whole) + bytes(4)),
    ):
        put_piece(path, name, content, **options)
        with open_weights(path) as file:
            check_pieces(file)
    for bomb in (zlib.compress(bytes(2**25)), zlib.compress(whole + b"more!")):
        put_piece(path, name, bomb, **gzip)
        with pytest.raises(ValueError, match=f"'{name}' holds more than it claims, 16 bytes"):
            UNet(weights=path, **SMALL)
    put_piece(path, name, whole, compression="lzf")
    with pytest.raises(ValueError, match="otherwise than by gzip"):
        UNet(weights=path, **SMALL)


def test_pieces_of_a_file_that_ships_are_not_unpacked_twice(tmp_path, monkeypatch):
    """Its sha256 says that they are as they were made; of the same file by its path, nothing."""
    ship_small(monkeypatch, tmp_path, "unet_camvid")
    card, checked = pretrained()["unet_camvid"], []
    monkeypatch.setattr("keras_fcn.weights.check_pieces", checked.append)
    model = from_pretrained("unet_camvid")
    assert not checked
    other = UNet(**card["arguments"], weights=tmp_path / card["file"])
    assert len(checked) == 1
    for ours, theirs in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_weights_beside_a_configuration_of_nothing(tmp_path):
    path = tmp_path / "model.keras"
    UNet(**SMALL).save(path)
    with zipfile.ZipFile(path) as archive:
        weights = archive.read("model.weights.h5")
    for config in ([], {"layers": 5}, {"layers": [[]]}, {"layers": [{"class_name": "A"}]}):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.json", json.dumps({"class_name": "A", "config": config}))
            archive.writestr("model.weights.h5", weights)
        with pytest.raises(ValueError, match=r"model\.keras', but its configuration"):
            UNet(weights=path, **SMALL)


def test_weights_that_claim_more_than_they_hold_are_refused_unread(tmp_path):
    bomb = tmp_path / "bomb.weights.h5"
    with h5py.File(bomb, "w") as file:
        file.create_dataset("layers/conv2d/vars/0", shape=(10**6, 10**4), dtype="float32",
                            chunks=(1000, 1000), compression="gzip")  # fmt: skip
    link = tmp_path / "link.weights.h5"
    with h5py.File(link, "w") as file:
        file["layers/conv2d/vars/0"] = h5py.ExternalLink("/etc/passwd", "/")
    with pytest.raises(ValueError, match="claims to hold 40,000,000,000"):
        UNet(weights=bomb, **SMALL)
    with pytest.raises(ValueError, match="refers to another file"):
        UNet(weights=link, **SMALL)


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
def test_compiled_and_trained_models_files_load(rng, tmp_path, suffix):
    model = UNet(**SMALL)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(rng.random((1, 8, 8, 3)), np.zeros((1, 8, 8)), verbose=0)
    path = tmp_path / f"model{suffix}"
    model.save(path) if suffix == ".keras" else model.save_weights(path)
    loaded = UNet(weights=str(path), **SMALL)
    np.testing.assert_array_equal(loaded.get_weights()[-2], model.get_weights()[-2])


def test_wrong_weights_are_explained(rng, tmp_path):
    path = tmp_path / "model.weights.h5"
    UNet(**SMALL).save_weights(path)
    with pytest.raises(ValueError, match="2 of its 26 arrays are not in the model"):
        UNet(filters=(4, 6, 8), num_classes=4, weights=path)
    with pytest.raises(ValueError, match="same arguments"):
        UNet(filters=(4, 6, 8, 8), num_classes=3, weights=path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        UNet(weights=tmp_path / "missing.weights.h5", **SMALL)
    with pytest.raises(ValueError, match="Did you mean 'imagenet'"):
        UNet(weights="imagnet", **SMALL)
    with pytest.raises(ValueError, match="Did you mean 'unet_camvid'"):
        from_pretrained("unet_canvid")


@pytest.mark.parametrize("name", pretrained())
def test_shipped_weights_are_what_their_card_says(name):
    card = pretrained()[name]
    assert set(card) - {"began_on", "objects", "seeds", "stopped", "took"} == CARD_KEYS
    path = cards._directory() / card["file"]
    assert sha256(path) == card["sha256"]
    assert path.stat().st_size == card["bytes"]
    model = from_pretrained(name)
    assert model.output_shape[-1] == len(card["classes"]) == len(card["palette"])
    assert model.count_params() == card["parameters"]
    np.testing.assert_allclose(fingerprint(model), card["fingerprint"], atol=1e-3)
    with h5py.File(path) as file:
        assert file["layers/conv2d/vars/0"].dtype in ("float16", "int8")


def test_fingerprint_tells_weights_apart(rng):
    model = UNet(**SMALL)
    randomize(model, rng)
    first = np.array(fingerprint(model))
    assert first.shape == (2, 3, 3)
    np.testing.assert_allclose(first.sum(-1), 1, atol=1e-3)
    randomize(model, rng)
    assert abs(fingerprint(model) - first).max() > 1e-2


def test_card_guards_the_arguments():
    arguments = pretrained()["unet_camvid"]["arguments"]
    with pytest.raises(ValueError, match=r"belong to num_classes=11. Received: num_classes=2"):
        UNet(**{**arguments, "num_classes": 2}, weights="unet_camvid")
    with pytest.raises(ValueError, match=r"belong to factory='UNet'. Received: factory='FCN8s'"):
        FCN8s(weights="unet_camvid", fc_filters=8)
    model = UNet(**{**arguments, "input_shape": (64, 96, 3)}, weights="unet_camvid")
    assert model.output_shape == (None, 64, 96, 11)


def test_other_number_of_classes_keeps_all_but_the_score_layer():
    with pytest.warns(UserWarning, match="start fresh.*: score$"):
        model = from_pretrained("unet_camvid", num_classes=4)
    source = from_pretrained("unet_camvid")
    assert model.output_shape[-1] == 4
    for layer in model.layers:
        if layer.name != "score":
            for ours, theirs in zip(
                layer.get_weights(), source.get_layer(layer.name).get_weights(), strict=True
            ):
                np.testing.assert_array_equal(ours, theirs)


def test_damaged_or_missing_pretrained_file_is_refused(tmp_path, monkeypatch):
    card = pretrained()["unet_camvid"]
    (tmp_path / "unet_camvid.json").write_text(json.dumps(card))
    monkeypatch.setattr(cards, "_directory", lambda: tmp_path)
    with pytest.raises(FileNotFoundError, match="Reinstall"):
        keras_fcn.from_pretrained("unet_camvid")
    (tmp_path / card["file"]).write_bytes(b"damaged")
    with pytest.raises(ValueError, match="sha256"):
        keras_fcn.from_pretrained("unet_camvid")
