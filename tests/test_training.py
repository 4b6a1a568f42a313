import csv
import dataclasses
import json
import os
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from PIL import Image

import keras_fcn
from keras_fcn import UNet, training
from keras_fcn.commands import main
from keras_fcn.datasets import Augmentation
from keras_fcn.training import ImageGrid, Recipe, train

VOID = 255
START = "import sys; from keras_fcn.commands import main; sys.exit(main())"
TWO_CPUS = """
import tensorflow as tf
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
"""


def draw(number, size=24):
    """A bright square, class 1, on dark noise, class 0, beside a void stripe."""
    rng = np.random.default_rng(number)
    labels = np.zeros((size, size), "uint8")
    top, left = rng.integers(0, size - 10, 2)
    labels[top : top + 8, left : left + 8] = 1
    image = rng.integers(0, 100, (size, size, 3)) + 120 * labels[..., None]
    labels[:, -2:] = VOID
    return image.astype("uint8"), labels


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of squares: 5 images to train on, 3 to validate on."""
    folder = tmp_path_factory.mktemp("data")
    for split, numbers in (("train", range(5)), ("val", range(5, 8))):
        (folder / split).mkdir()
        (folder / f"{split}annot").mkdir()
        for number in numbers:
            image, labels = draw(number)
            Image.fromarray(image).save(folder / split / f"{number}.png")
            Image.fromarray(labels).save(folder / f"{split}annot" / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def recipe(data):
    return Recipe(str(data), filters=(4, 8), epochs=2, steps=2, batch_size=2, crop_size=16)


@pytest.fixture(scope="module")
def run(recipe, tmp_path_factory):
    """The folder of a finished run, and its result."""
    output = tmp_path_factory.mktemp("runs") / "finished"
    return output, train(recipe, output)


def read_log(output):
    with (output / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def read_record(output):
    return json.loads((output / "training.json").read_text())


def test_run_leaves_what_it_says(run, recipe):
    output, result = run
    assert {path.name for path in output.iterdir()} - {"tensorboard"} == {
        "best.keras", "last.keras", "log.csv", "model.keras", "pictures", "training.json",
    }  # fmt: skip
    log = read_log(output)
    assert [row["epoch"] for row in log] == ["0", "1"]
    assert result["mean_iou"] == max(float(row["val_mean_iou"]) for row in log)
    record = read_record(output)
    assert record["parameters"] == recipe.parameters
    assert record["images"] == {"train": 5, "validation": 3}
    assert record["versions"]["keras"] == keras.__version__
    assert record["result"] == {**result, "file": "model.keras"}
    assert len(list((output / "pictures").glob("epoch_*.png"))) == 2


def test_model_predicts_and_evaluates_as_it_did_in_validation(run, data, tmp_path, capsys):
    output, result = run
    weights = ["--weights", str(output / "model.keras")]
    folders = ["--images", str(data / "val"), "--masks", str(data / "valannot")]
    assert main(["evaluate", *weights, *folders, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["mean_iou"] == pytest.approx(result["mean_iou"])
    image = str(data / "val" / "5.png")
    assert main(["predict", image, *weights, "--output", str(tmp_path / "out")]) == 0
    model = keras.saving.load_model(output / "model.keras")
    assert getattr(model, "optimizer", None) is None


def test_finished_run_is_never_overwritten(run, recipe):
    output, _ = run
    before = (output / "model.keras").read_bytes()
    with pytest.raises(FileExistsError, match="no finished run"):
        train(recipe, output)
    assert (output / "model.keras").read_bytes() == before


def test_folder_of_other_files_is_refused(recipe, tmp_path):
    (tmp_path / "log.csv").write_text("mine")
    with pytest.raises(FileExistsError, match="other files"):
        train(recipe, tmp_path)
    assert (tmp_path / "log.csv").read_text() == "mine"


def test_same_seed_same_run(run, recipe, tmp_path):
    train(recipe, tmp_path / "again")
    first, second = read_log(run[0]), read_log(tmp_path / "again")
    for row in first + second:
        assert float(row.pop("seconds")) > 0
    assert first == second


def test_interrupted_run_goes_on(recipe, tmp_path, monkeypatch):
    """Cut short after the log's row and before the backup, an epoch is trained and logged again."""
    recipe = dataclasses.replace(recipe, epochs=3)
    with monkeypatch.context() as patch:
        patch.setattr(ImageGrid, "on_epoch_end", interrupt_second_epoch)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tmp_path)
    assert len(read_log(tmp_path)) == 2

    with pytest.raises(ValueError, match="crop_size=8 instead of 16, seed=1 instead of 0"):
        train(dataclasses.replace(recipe, crop_size=8, seed=1), tmp_path)

    header, first, second = (tmp_path / "log.csv").read_text().splitlines()
    first = dict(zip(header.split(","), first.split(","), strict=True))
    first["val_mean_iou"] = "0.999"  # better than what follows
    (tmp_path / "log.csv").write_text("\n".join([header, ",".join(first.values()), second]) + "\n")
    best = (tmp_path / "best.keras").read_bytes()
    (tmp_path / ".best.keras").write_bytes(b"half of a mod")
    assert train(recipe, tmp_path)["epoch"] == 1
    assert (tmp_path / "best.keras").read_bytes() == best
    assert [row["epoch"] for row in read_log(tmp_path)] == ["0", "1", "2"]
    last = keras.saving.load_model(tmp_path / "last.keras")
    assert int(last.optimizer.iterations) == 3 * recipe.steps


def interrupt_second_epoch(callback, epoch, logs=None):
    if epoch == 1:
        raise KeyboardInterrupt


@pytest.mark.parametrize("cut", ["training_metadata.json", "latest.weights.h5"])
def test_backup_cut_short_in_writing_gives_way_to_its_copy(cut, tmp_path):
    UNet(num_classes=2, filters=(2, 2)).save_weights(tmp_path / "latest.weights.h5")
    (tmp_path / "training_metadata.json").write_text('{"epoch": 3}')
    whole = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for name, content in whole.items():
        (tmp_path / f"{name}.bkp").write_bytes(content)
    training.run.mend_backup(tmp_path)
    (tmp_path / cut).write_bytes(whole[cut][: len(whole[cut]) // 2 if "h5" in cut else 0])
    training.run.mend_backup(tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in whole} == whole

    for path in tmp_path.glob("*.bkp"):  # in the first epoch there is none
        path.unlink()
    (tmp_path / cut).write_bytes(b"")
    training.run.mend_backup(tmp_path)
    assert not tmp_path.exists()


@pytest.mark.slow
def test_run_survives_kill_9(data, tmp_path):
    output = tmp_path / "run"
    command = [
        sys.executable, "-c", START, "train", "--data", str(data), "--output", str(output),
        "--filters", "4", "8", "--crop-size", "16", "--batch-size", "2", "--epochs", "4",
        "--steps", "20",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    metadata = output / "backup" / "training_metadata.json"
    while not metadata.exists() and process.poll() is None:
        time.sleep(0.05)
    time.sleep(0.2)  # into the second epoch
    process.kill()
    assert process.wait() == -9
    assert not (output / "model.keras").exists()
    subprocess.run(command, check=True, capture_output=True)
    assert [row["epoch"] for row in read_log(output)] == ["0", "1", "2", "3"]
    last = keras.saving.load_model(output / "last.keras")
    # an epoch more, where the kill came between the weights of a backup and its epoch
    assert int(last.optimizer.iterations) in (4 * 20, 5 * 20)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "flags", "prepare"),
    [
        ("tensorflow", "", TWO_CPUS),
        ("jax", "--xla_force_host_platform_device_count=2", ""),
    ],
    ids=["tensorflow", "jax"],
)
def test_two_devices_share_batches(backend, flags, prepare, data, tmp_path):
    output = tmp_path / "run"
    options = ["--data", str(data), "--filters", "4", "8", "--crop-size", "16", "--data-parallel"]
    folders = ["--images", str(data / "val"), "--masks", str(data / "valannot")]
    commands = [
        ["train", *options, "--output", str(output), "--epochs", "2"],
        ["evaluate", "--weights", str(output / "model.keras"), *folders, "--json"],
        ["train", *options, "--output", str(tmp_path / "odd"), "--batch-size", "3"],
    ]
    start = f"{prepare}\nfrom keras_fcn.commands import main\nprint([main(c) for c in {commands}])"
    environment = os.environ | {"KERAS_BACKEND": backend, "XLA_FLAGS": flags}
    result = subprocess.run(
        [sys.executable, "-c", start], env=environment, capture_output=True, text=True
    )
    *_, scores, statuses = result.stdout.splitlines()
    assert statuses == "[0, 0, 1]", result.stderr
    assert "multiple of the number of devices, 2" in result.stderr
    # the third validation image has a batch of its own, filled with void
    mean_iou = read_record(output)["result"]["mean_iou"]
    assert json.loads(scores)["mean_iou"] == pytest.approx(mean_iou)


@pytest.mark.slow
def test_training_learns(recipe, tmp_path):
    recipe = dataclasses.replace(
        recipe, filters=(8, 16), epochs=4, steps=30, learning_rate=1e-2, batch_norm=True
    )
    assert train(recipe, tmp_path)["mean_iou"] > 0.9


def test_early_stopping(recipe, tmp_path):
    recipe = dataclasses.replace(recipe, epochs=5, early_stopping=1, learning_rate=1e-12)
    assert train(recipe, tmp_path)["epoch"] == 1
    assert len(read_log(tmp_path)) == 2


def test_loss_that_is_no_number_is_an_error(recipe, tmp_path):
    recipe = dataclasses.replace(recipe, learning_rate=1e38, epochs=2, steps=6)
    with pytest.raises(ValueError, match="lower learning rate"):
        train(recipe, tmp_path)
    assert not (tmp_path / "model.keras").exists()


def test_mixed_precision_is_of_the_model_alone(recipe, tmp_path):
    recipe = dataclasses.replace(recipe, mixed_precision=True, epochs=1)
    train(recipe, tmp_path)
    model = keras.saving.load_model(tmp_path / "model.keras")
    assert model.get_layer("conv1_1").compute_dtype == "bfloat16"
    assert model.get_layer("predictions").compute_dtype == "float32"
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.parametrize("model", ["fcn32s", "fcn16s", "fcn8s", "fcn8s_at_once"])
def test_networks(model, narrow_vgg16):
    recipe = Recipe("data", model=model, fc_filters=8, batch_norm=True)
    built = training.fit._build(recipe, num_classes=3, channels=1)
    assert built.name == model
    assert built.get_layer("fc7_bn")
    assert built.input_shape[-1] == 1
    assert built.output_shape[-1] == 3


def test_recipe_sets_network_and_optimizer():
    recipe = Recipe("data", filters=(4, 8), dropout=0.0, upsampling="bilinear", optimizer="sgd")
    model = training.fit._build(recipe, num_classes=2, channels=3)
    training.fit._compile(model, recipe, steps=10, class_weights=None, ignore=255)
    assert model.get_layer("drop1").rate == 0
    assert model.get_layer("upsample1")
    assert isinstance(model.optimizer, keras.optimizers.SGD)
    assert model.optimizer.momentum == recipe.momentum == 0.99


def test_fine_tuning_keeps_what_the_catalogue_has(monkeypatch):
    pretrained = UNet(num_classes=3, filters=(4, 8))
    for module in (training.fit, training.recipe):
        monkeypatch.setattr(module, "pretrained", lambda: {"mine": {}})
    monkeypatch.setattr(training.fit, "from_pretrained", lambda name, num_classes: pretrained)
    recipe = Recipe("data", weights="mine")
    assert recipe.learning_rate == 1e-4
    assert training.fit._build(recipe, num_classes=3, channels=3) is pretrained
    with pytest.raises(ValueError, match="images of 3 channels"):
        training.fit._build(recipe, num_classes=3, channels=1)
    with pytest.raises(ValueError, match="filters together with the weights 'mine'"):
        Recipe("data", weights="mine", filters=(4, 8))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": 0}, "`epochs` should be an integer of at least 1"),
        ({"class_weights": "logs"}, "Did you mean 'log'"),
        ({"model": "fcn8"}, "Did you mean 'fcn8s'"),
        ({"model": "fcn8s", "filters": (4, 8), "encoder": "vgg16"}, "filters, encoder together"),
        ({"fc_filters": 8}, "fc_filters together with unet"),
        ({"model": "fcn8s", "dropout": 0.0}, "dropout together with fcn8s"),
        ({"dropout": 1}, "from 0 to below 1"),
        ({"upsampling": "nearest"}, "'transpose', 'bilinear'"),
        ({"learning_rate": 0}, "above 0"),
        ({"optimizer": "adam"}, "Did you mean 'adamw'"),
        ({"momentum": 0.9}, 'goes with `optimizer="sgd"`'),
    ],
)
def test_recipes_that_cannot_be(arguments, message):
    with pytest.raises(ValueError, match=message):
        Recipe("data", **arguments)


def test_recipe_is_recorded_as_json(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the record holds whole paths
    recipe = Recipe(".", filters=(4, 8), colors={(0, 0, 0): 0, (255, 0, 0): 1}, augment=None)
    parameters = recipe.parameters
    assert parameters["data"] == str(tmp_path)
    assert parameters["colors"] == [[[0, 0, 0], 0], [[255, 0, 0], 1]]
    assert parameters == json.loads(json.dumps(parameters))


def test_labels_are_counted_before_the_training(data):
    labels = training.labels.count_labels(Recipe(str(data)))
    counts = sum(np.bincount(draw(n)[1].ravel(), minlength=256) for n in range(5))
    assert labels.training.tolist() == counts[:2].tolist()
    assert (labels.classes, labels.ignore, labels.channels) == (["class 0", "class 1"], 255, 3)
    with pytest.raises(ValueError, match=r"Received: \[255\] in the train masks"):
        training.labels.count_labels(Recipe(str(data), num_classes=2, ignore=254))
    with pytest.raises(ValueError, match="the splits 'train', 'val', 'all'"):
        training.labels.count_labels(Recipe(str(data), split="training"))


def test_data_sets_bring_their_classes_and_void_label():
    source = training.labels.SOURCES["shapes"]
    names = training.labels._class_names(Recipe("shapes/street"), source, occurring=2)
    assert names == ["sky", "building", "tree", "road", "car"]
    assert training.labels._class_names(Recipe("shapes"), source, occurring=2) == ["border", "cell"]


def test_class_weights_are_one_on_average():
    pixels = np.array([90, 9, 1])
    weights = np.array(training.labels.log_class_weights(pixels))
    assert (weights * pixels).sum() / 100 == pytest.approx(1)
    expected = np.log(1.1 + 0.9) / np.log(1.1 + 0.01)
    assert weights[2] / weights[0] == pytest.approx(expected)


def test_training_set_is_full_batches_of_crops(data):
    recipe = Recipe(str(data), batch_size=4, crop_size=32, augment=Augmentation(elastic=2))
    for images, labels in training.labels.training_set(recipe, completed=0).take(3):
        assert images.shape == (4, 32, 32, 3)
        assert labels.shape == (4, 32, 32)
        assert set(np.unique(labels)) <= {0, 1, VOID}


def test_validation_batches_are_filled_with_void(data):
    batches = list(training.labels.validation_set(Recipe(str(data)), VOID, devices=2))
    assert [images.shape[0] for images, _ in batches] == [2, 2]
    assert (batches[1][1][1].numpy() == VOID).all()


def test_image_grid_shows_input_truth_and_prediction(tmp_path):
    model = UNet(num_classes=2, filters=(2, 2))
    model.get_layer("score").set_weights([np.zeros((1, 1, 2, 2)), np.array([0.0, 1.0])])
    image = np.full((20, 30, 1), 77, "uint8")
    truth = np.zeros((20, 30), "int32")
    truth[0] = VOID
    rgb = np.broadcast_to(image, (20, 30, 3))
    callback = ImageGrid([(rgb, truth), (rgb, truth)], tmp_path / "pictures", 2, VOID)
    callback.set_model(model)
    callback.on_epoch_end(0)
    picture = np.asarray(Image.open(tmp_path / "pictures" / "epoch_0001.png"))
    assert picture.shape == (20 + 4 + 20, 30 + 4 + 30 + 4 + 30, 3)
    assert picture[10, 10].tolist() == [77, 77, 77]
    assert picture[0, 40].tolist() == list(training.callbacks.VOID_COLOR)
    assert picture[10, 40].tolist() == [0, 0, 0]
    assert picture[30, 80].tolist() == [128, 0, 0]


def test_pictures_are_scaled_down(tmp_path):
    rows = [[np.zeros((100, 600, 3), "uint8")] * 3]
    assert training.callbacks._draw_grid(rows).size == (3 * 256 + 2 * 4, 43)


def test_every_factory_exists():
    assert all(callable(getattr(keras_fcn, name)) for name in training.FACTORIES.values())
