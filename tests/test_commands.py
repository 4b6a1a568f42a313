import dataclasses
import errno
import json
import re

import keras
import numpy as np
import pytest
from conftest import leave_half, ship_small
from PIL import Image
from sklearn.datasets import load_sample_image
from sklearn.metrics import jaccard_score

from keras_fcn import UNet, from_pretrained, fully_convolutional, predict_image, pretrained
from keras_fcn.catalogue import classes_of, load_model, set_classes
from keras_fcn.classes import Classes
from keras_fcn.commands import evaluate, main
from keras_fcn.datasets import Augmentation
from keras_fcn.inference import ObjectSettings
from keras_fcn.metrics import SegmentationMetrics
from keras_fcn.training import Recipe


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(load_sample_image("china.jpg")[100:300:2, 100:400:2]).save(path)
    return path


def test_predict_with_shipped_weights(photo, tmp_path, capsys):
    output = tmp_path / "out"
    assert main(["predict", str(photo), "--weights", "unet_camvid", "--output", str(output)]) == 0
    assert str(output / "photo_overlay.png") in capsys.readouterr().out
    labels = np.asarray(Image.open(output / "photo.png"))
    assert labels.shape == (100, 150)
    assert labels.max() < 11
    assert Image.open(output / "photo_overlay.png").width == 150


def test_names_reach_the_terminal_as_they_are(capsys):
    scores = {"images": 1, "mean_iou": 0.5, "per_class_iou": {"[/x]": 0.5, "[red]": 0.25}}
    evaluate._print_scores(scores)
    printed = capsys.readouterr().out
    assert "[/x]" in printed
    assert "[red]" in printed
    assert main(["predict", "photo.png", "--weights", "a\x1b[2J\rb.keras"]) == 1
    assert r"'a\x1b[2J\rb.keras'" in capsys.readouterr().err


def test_predict_with_a_saved_gray_model(photo, tmp_path):
    UNet(input_shape=(None, None, 1), filters=(4, 8)).save(tmp_path / "gray.keras")
    weights = str(tmp_path / "gray.keras")
    assert main(["predict", str(photo), "--weights", weights, "--output", str(tmp_path / "o")]) == 0
    assert Image.open(tmp_path / "o" / "photo.png").size == (150, 100)


def test_outputs_never_replace_the_image(photo, tmp_path, capsys):
    before = photo.read_bytes()
    arguments = ["predict", str(photo), "--weights", "unet_camvid", "--output", str(tmp_path)]
    assert main(arguments) == 1
    assert "should not replace an image" in capsys.readouterr().err
    assert photo.read_bytes() == before


@pytest.mark.parametrize(
    ("images", "weights", "message"),
    [
        (["missing.png"], "unet_camvid", "missing.png"),
        (["setup.cfg"], "unet_camvid", "cannot identify image"),
        (["x.png"], "unet_canvid", "Did you mean 'unet_camvid'"),
        (["x.png"], "missing.keras", "no model file"),
        (["x.png"], "setup.cfg", "should be a whole .keras file"),
    ],
)
def test_errors_are_explained(
    images, weights, message, capsys, monkeypatch, pytestconfig, tmp_path
):
    monkeypatch.chdir(pytestconfig.rootpath)
    output = str(tmp_path / "predictions")
    assert main(["predict", *images, "--weights", weights, "--output", output]) == 1
    assert message in capsys.readouterr().err


def test_models_lists_what_ships(capsys):
    assert main(["models"]) == 0
    listed = capsys.readouterr().out
    for name, card in pretrained().items():
        assert {name, card["factory"]} <= set(listed.split())
        for shown in card["classes"]:  # what it is for
            assert shown in listed


def test_models_prints_a_card(capsys):
    assert main(["models", "unet_camvid"]) == 0
    assert json.loads(capsys.readouterr().out) == pretrained()["unet_camvid"]
    assert main(["models", "unet_canvid"]) == 1
    assert "Did you mean 'unet_camvid'" in capsys.readouterr().err


@pytest.fixture
def pairs(tmp_path, rng):
    """Two images of different sizes, with masks of the classes 0 and 1 and void, 255."""
    maps = []
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for number, size in enumerate([(20, 30), (33, 17)]):
        image = rng.integers(0, 256, (*size, 3), "uint8")
        labels = rng.choice(np.array([0, 1, 255], "uint8"), size)
        Image.fromarray(image).save(tmp_path / "images" / f"{number}.png")
        Image.fromarray(labels).save(tmp_path / "masks" / f"{number}.png")
        maps.append((image, labels))
    return ["--images", str(tmp_path / "images"), "--masks", str(tmp_path / "masks")], maps


@pytest.fixture
def model(tmp_path):
    """A network of 3 classes that never predicts class 2, and its file."""
    model = UNet(num_classes=3, filters=(4, 8), batch_norm=True)
    kernel, bias = model.get_layer("score").get_weights()
    model.get_layer("score").set_weights([kernel, bias + np.array([0, 0, -1e6])])
    model.save(tmp_path / "model.keras")
    return model, str(tmp_path / "model.keras")


def test_evaluate_counts_the_pixels_of_all_images(pairs, model, capsys):
    folders, maps = pairs
    assert main(["evaluate", "--weights", model[1], *folders, "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert set(scores) == {
        "mean_iou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou", "per_class_iou",
        "images",
    }  # fmt: skip
    predictions = [predict_image(model[0], image).argmax(-1) for image, _ in maps]
    predictions = np.concatenate([prediction.ravel() for prediction in predictions])
    truth = np.concatenate([labels.ravel() for _, labels in maps])
    predictions, truth = predictions[truth != 255], truth[truth != 255]
    iou = jaccard_score(truth, predictions, average=None)
    assert list(scores["per_class_iou"].values()) == pytest.approx([*iou, None])
    assert scores["mean_iou"] == pytest.approx(iou.mean())
    assert scores["pixel_accuracy"] == pytest.approx((truth == predictions).mean())
    assert scores["images"] == 2


def test_evaluate_averages_the_mirror_image(pairs, model, capsys):
    folders, maps = pairs
    assert main(["evaluate", "--weights", model[1], *folders, "--tta", "--json"]) == 0
    metric = SegmentationMetrics(3, ignore_class=255)
    for image, truth in maps:
        scores = predict_image(model[0], image, test_time_augmentation=True)
        metric.update_state(truth, scores.argmax(-1))
    result = json.loads(capsys.readouterr().out)["pixel_accuracy"]
    assert result == pytest.approx(float(metric.result()["pixel_accuracy"]))


def test_predict_averages_as_the_card_says(photo, tmp_path, monkeypatch, tmp_path_factory):
    ship_small(monkeypatch, tmp_path_factory.mktemp("ships"), "unet_camvid")
    output = tmp_path / "out"
    command = ["predict", str(photo), "--tta", "--weights", "unet_camvid", "--output", str(output)]
    assert main(command) == 0
    averaging = pretrained()["unet_camvid"]["test_time_augmentation"]
    image = np.asarray(Image.open(photo))
    expected = predict_image(from_pretrained("unet_camvid"), image, **averaging).argmax(-1)
    np.testing.assert_array_equal(np.asarray(Image.open(output / "photo.png")), expected)


def test_evaluate_prints_tables(pairs, model, capsys):
    assert main(["evaluate", "--weights", model[1], *pairs[0]]) == 0
    output = capsys.readouterr().out
    assert "class 2 │ -" in output
    assert "mean iou" in output
    assert "2 images" in output


def test_classes_have_the_names_that_the_model_knows(pairs, model, capsys):
    model[0].get_layer("predictions").classes = Classes(("sky", "road", "car"), ignore=255)
    model[0].save(model[1])
    assert main(["evaluate", "--weights", model[1], *pairs[0], "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["per_class_iou"]) == ["sky", "road", "car"]


def test_evaluate_takes_a_split_of_a_folder(pairs, model, tmp_path, capsys):
    command = ["evaluate", "--weights", model[1], "--data", str(tmp_path), "--split", "all[:50%]"]
    assert main([*command, "--json"]) == 0
    one = json.loads(capsys.readouterr().out)
    assert one["images"] == 1
    image, truth = pairs[1][0]
    wrong = predict_image(model[0], image, output="labels")[truth != 255] != truth[truth != 255]
    assert one["pixel_accuracy"] == pytest.approx(1 - wrong.mean())
    assert main(["evaluate", "--weights", model[1], "--data", str(tmp_path)]) == 1
    assert "Received: --data." in capsys.readouterr().err


def test_one_channel_of_a_sigmoid_is_evaluated_and_painted(pairs, tmp_path, capsys):
    model = UNet(num_classes=1, filters=(4, 8), classifier_activation="sigmoid")
    model.save(tmp_path / "one.keras")
    weights = ["--weights", str(tmp_path / "one.keras")]
    assert main(["evaluate", *weights, *pairs[0], "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    predictions = [predict_image(model, image)[..., 0] > 0.5 for image, _ in pairs[1]]
    right = [
        (prediction == truth)[truth != 255]
        for prediction, (_, truth) in zip(predictions, pairs[1], strict=True)
    ]
    assert scores["pixel_accuracy"] == pytest.approx(np.concatenate(right).mean())
    assert list(scores["per_class_iou"]) == ["class 0", "class 1"]
    output = tmp_path / "out"
    assert main(["predict", str(tmp_path / "images"), *weights, "--output", str(output)]) == 0
    np.testing.assert_array_equal(np.asarray(Image.open(output / "0.png")), predictions[0])


def test_evaluate_scores_objects(pairs, tmp_path, capsys, model):
    for path in (tmp_path / "masks").iterdir():
        shape = np.asarray(Image.open(path)).shape
        Image.fromarray(np.arange(np.prod(shape)).reshape(shape).astype("uint16")).save(path)
    assert main(["evaluate", "--weights", model[1], *pairs[0], "--objects", "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert set(scores) == {
        "object_f1", "object_precision", "object_recall", "average_precision", "images",
    }  # fmt: skip


def test_thresholds_of_objects_are_stored_in_the_model(pairs, tmp_path, model, capsys):
    for path in (tmp_path / "masks").iterdir():
        Image.fromarray((np.asarray(Image.open(path)) == 1).astype("uint16")).save(path)
    command = ["evaluate", "--weights", model[1], *pairs[0], "--choose-thresholds"]
    assert main(command) == 1
    assert "without --objects" in capsys.readouterr().err
    place = leave_half(tmp_path, "model.keras")  # of a process that was killed
    assert main([*command, "--objects", "--json"]) == 0
    assert not place.exists()
    output = capsys.readouterr()
    stored = classes_of(load_model(model[1])).objects
    (line,) = (line for line in output.err.splitlines() if line.startswith("{"))
    assert json.loads(line) == stored
    assert set(stored) == set(ObjectSettings.__dataclass_fields__)
    again = ["evaluate", "--weights", model[1], *pairs[0], "--objects", "--json"]
    assert main(again) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(output.out)


def test_thresholds_that_cant_be_stored_are_refused(
    narrow_vgg16, pairs, tmp_path, monkeypatch, tmp_path_factory, capsys
):
    """Before anything is predicted; the copy that the message makes takes them."""
    ship_small(monkeypatch, tmp_path_factory.mktemp("ships"), "unet_nuclei")
    monkeypatch.chdir(tmp_path)
    command = ["evaluate", *pairs[0], "--objects", "--choose-thresholds", "--json"]
    assert main([*command, "--weights", "unet_nuclei"]) == 1
    error = capsys.readouterr().err
    (code,) = re.findall(r'python -c "(.*?)"', error)
    exec(code)  # as the message says
    weights = re.search(r"pass (--weights \S+)\.", error)[1].split()
    for path in (tmp_path / "masks").iterdir():
        Image.fromarray((np.asarray(Image.open(path)) == 1).astype("uint16")).save(path)
    assert main([*command, *weights]) == 0
    (line,) = (x for x in capsys.readouterr().err.splitlines() if x.startswith("{"))
    assert classes_of(load_model(weights[1])).objects == json.loads(line)


def test_a_map_of_another_size_is_refused_before_the_first_image(pairs, tmp_path, rng, capsys):
    layers = [keras.Input((9, 9, 3)), keras.layers.Conv2D(4, 3), keras.layers.Flatten()]
    classifier = keras.Sequential([*layers, keras.layers.Dense(2, activation="softmax")])
    fully_convolutional(classifier).save(tmp_path / "slides.keras")
    weights = ["--weights", str(tmp_path / "slides.keras")]
    assert main(["evaluate", *weights, *pairs[0]]) == 1
    assert "which makes a map of 248x248 of 256x256 pixels" in capsys.readouterr().err
    predict = ["predict", *weights, str(tmp_path / "images"), "--output", str(tmp_path / "out")]
    for option in ("--tta", "--objects"):
        assert main([*predict, option]) == 1
        assert f"{option}`" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
    assert main(predict) == 0


def test_a_bad_image_is_set_aside_and_the_status_says_so(photo, tmp_path, model, capsys):
    (tmp_path / "bad.png").write_bytes(b"no image")
    images = [str(tmp_path / "bad.png"), str(photo)]
    command = ["predict", *images, "--weights", model[1], "--output", str(tmp_path / "out")]
    assert main(command) == 1
    output = capsys.readouterr()
    assert "photo.png: label map" in output.out
    assert "1 of 2 images failed" in output.err
    assert main(command) == 1
    assert "1 were done before" in capsys.readouterr().out


def test_predict_writes_what_it_is_asked_for(photo, tmp_path, model, capsys):
    command = ["predict", str(photo), "--weights", model[1], "--output", str(tmp_path / "out")]
    command += ["--tile-size", "auto"]
    assert main([*command, "--output-format", "labels.tif", "probabilities.npy"]) == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["photo.tif", "photo_probabilities.npy", "predictions.json", "summary.csv"]
    output = capsys.readouterr().out
    assert output.startswith(f"{photo}: label map {tmp_path / 'out' / 'photo.tif'}, probabilities ")
    assert main([*command, "--output-format", "labels", str(photo)]) == 1
    error = capsys.readouterr().err
    assert "`--output-format` should be one or more of labels" in error
    assert "The images come before it." in error


@pytest.mark.filterwarnings("default:The scores are those of")
def test_evaluate_names_the_label_that_is_no_class(pairs, model, tmp_path, capsys):
    mask = np.asarray(Image.open(tmp_path / "masks" / "1.png")).copy()
    mask[0, 0] = 11
    Image.fromarray(mask).save(tmp_path / "masks" / "1.png")
    assert main(["evaluate", "--weights", model[1], *pairs[0]]) == 1
    error = capsys.readouterr().err
    assert "Received: [11] in" in error
    assert "1.png" in error
    assert "pass `--ignore 11`" in error


def test_evaluate_does_not_misread_black_and_white_masks(pairs, model, tmp_path, capsys):
    for path in (tmp_path / "masks").iterdir():
        mask = np.asarray(Image.open(path)) > 0
        Image.fromarray(np.where(mask, np.uint8(255), np.uint8(0))).save(path)
    arguments = ["evaluate", "--weights", model[1], *pairs[0], "--json"]
    assert main(arguments) == 1
    assert "0 and 255 only" in capsys.readouterr().err
    for void in ("255", "0"):  # as in training
        assert main([*arguments, "--ignore", void]) == 1
        assert "pass `--values" in capsys.readouterr().err
        plan = ["plan", "--data", str(tmp_path), "--split", "all", "--validation", "all"]
        assert main([*plan, "--ignore", void]) == 1
        assert "pass `--values" in capsys.readouterr().err
    assert main([*arguments, "--values", "0=0", "255=1"]) == 0
    assert json.loads(capsys.readouterr().out)["per_class_iou"]["class 1"] is not None


@pytest.mark.filterwarnings("default:Labels are compared by their numbers")
def test_evaluate_asks_about_classes_of_other_names(pairs, model, tmp_path, capsys):
    command = ["evaluate", "--weights", model[1], *pairs[0], "--json"]
    (tmp_path / "classes.csv").write_text("label,name\n0,sky\n1,tree\n2,road\n3,car\n")
    for names, told in (
        (("class 0", "class 1", "class 2"), False),  # the model knows no names
        (("sky", "tree", "road"), False),
        (("tree", "sky", "road"), True),
    ):
        set_classes(model[0], Classes(names))
        model[0].save(model[1])
        assert main(command) == 0
        error = capsys.readouterr().err
        assert ("sky, tree, road, car in the data, tree, sky, road in the model" in error) == told


@pytest.mark.filterwarnings("default:Classes should count from 0")
def test_evaluate_needs_labelled_pixels(pairs, model, tmp_path, capsys):
    for path in (tmp_path / "masks").iterdir():
        Image.fromarray(np.full_like(np.asarray(Image.open(path)), 2)).save(path)
    command = ["evaluate", "--weights", model[1], *pairs[0]]
    assert main([*command, "--ignore", "2"]) == 1
    assert "another label than the ignore label" in capsys.readouterr().err
    set_classes(model[0], dataclasses.replace(classes_of(model[0]), ignore=2))
    model[0].save(model[1])
    assert main(command) == 1  # the model's own
    assert "2 maps of 2 alone. Check that `--ignore`" in capsys.readouterr().err


def test_objects_of_data_without_them(model, capsys):
    command = ["evaluate", "--weights", model[1], "--data", "shapes/cells", "--split", "test"]
    assert main([*command, "--objects"]) == 1
    assert "with `--objects`. Leave it out" in capsys.readouterr().err


def test_configurations_of_a_data_set_are_named(model, capsys):
    command = ["evaluate", "--weights", model[1], "--split", "test", "--data"]
    assert main([*command, "shapes/cels"]) == 1
    error = capsys.readouterr().err
    assert "has the configurations" in error
    assert "Received: shapes/cels. Did you mean 'cells'?" in error
    assert len(error.splitlines()) == 1


def test_evaluate_leaves_no_image_out(pairs, model, tmp_path, capsys):
    (tmp_path / "masks" / "1.png").unlink()
    assert main(["evaluate", "--weights", model[1], *pairs[0]]) == 1
    assert "Every image should have a mask" in capsys.readouterr().err


def test_check_data_says_by_its_status_whether_there_are_errors(pairs, capsys):
    command = ["check-data", *pairs[0], "--classes", "2"]
    assert main([*command, "--ignore", "255"]) == 0
    assert main(command) == 1
    assert "label 255" in capsys.readouterr().out


def test_masks_in_colours(tmp_path, capsys):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        picture = np.zeros((8, 8, 3), "uint8")
        picture[:4] = (128, 64, 128)
        Image.fromarray(picture).save(tmp_path / folder / "0.png")
    command = ["check-data", "--images", str(tmp_path / "images"), "--masks"]
    command.append(str(tmp_path / "masks"))
    assert main(command) == 1
    assert main([*command, "--colors", "0,0,0=0", "128,64,128=1"]) == 0


def test_train_makes_the_recipe(tmp_path, monkeypatch, capsys):
    calls = []

    def train(recipe, output, per_class):
        calls.append((recipe, output))
        return {"file": "model.keras", "mean_iou": 0.5, "epoch": 3}

    monkeypatch.setattr("keras_fcn.training.train", train)
    command = ["train", "--data", "d", "--output", str(tmp_path)]
    assert main(command) == 0
    options = [
        "--classes", "3", "--filters", "4", "8", "--values", "0=0", "255=1", "--learning-rate",
        "0.01", "--augment", "flip=vertical", "elastic=10", "--mixed-precision", "--dropout", "0",
        "--upsampling", "bilinear", "--optimizer", "sgd", "--momentum", "0.5",
    ]  # fmt: skip
    assert main([*command, *options]) == 0
    assert main([*command, "--augment", "none"]) == 0
    (default, output), (given, _), (plain, _) = calls
    assert output == tmp_path
    assert default == Recipe("d")
    assert (given.num_classes, given.filters, given.values) == (3, (4, 8), {0: 0, 255: 1})
    assert (given.learning_rate, given.mixed_precision) == (0.01, True)
    assert (given.dropout, given.upsampling) == (0, "bilinear")
    assert (given.optimizer, given.momentum) == ("sgd", 0.5)
    assert given.augment == Augmentation(flip="vertical", elastic=10)
    assert plain.augment is None
    assert "mean IoU 0.500 after epoch 3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "no/where"], "no/where"),
        (["--data", "camvit"], "Did you mean 'camvid'"),
        (["--data", ".", "--weights", "unet_camvit"], "Did you mean 'unet_camvid'"),
        (["--data", ".", "--weights", "gone.keras"], "'gone.keras', and there is no such name"),
        (["--data", ".", "--model", "unet8"], "Did you mean 'unet'"),
        (["--data", ".", "--augment", "elastik=10"], "elastik"),
        (["--data", ".", "--augment", "rotation=270"], "from 0 to 180"),
    ],
)
def test_training_errors_are_explained(options, message, tmp_path, capsys):
    assert main(["train", *options, "--output", str(tmp_path / "run")]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_evaluate_knows_the_void_label_of_shipped_weights(photo, tmp_path, capsys):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    photo.rename(tmp_path / "images" / "photo.png")
    mask = np.zeros((100, 150), "uint8")
    mask[50:] = 11
    Image.fromarray(mask).save(tmp_path / "masks" / "photo.png")
    folders = ["--images", str(tmp_path / "images"), "--masks", str(tmp_path / "masks")]
    assert main(["evaluate", "--weights", "unet_camvid", *folders, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 1


def test_16_bit_images_keep_their_range(tmp_path):
    """A gray value of 16 bits is scaled to 8, not cut off at 255."""
    UNet(input_shape=(None, None, 1), filters=(4, 8)).save(tmp_path / "gray.keras")
    ramp = np.linspace(0, 65535, 64, dtype="uint16").reshape(8, 8)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    Image.fromarray((ramp / 257).round().astype("uint8")).save(tmp_path / "flat.png")
    command = ["predict", *(str(tmp_path / f"{name}.png") for name in ("deep", "flat"))]
    output = tmp_path / "out"
    weights = str(tmp_path / "gray.keras")
    assert main([*command, "--weights", weights, "--output", str(output)]) == 0
    deep, flat = (np.asarray(Image.open(output / f"{n}_overlay.png")) for n in ("deep", "flat"))
    np.testing.assert_array_equal(deep, flat)


def test_a_full_disk_is_told_once(monkeypatch, capsys):
    """And not again by what a library, as HDF5, has left open."""
    full = (errno.ENOSPC, "No space left on device")

    class Left:
        def __del__(self):
            raise OSError(*full)

    def run(_options):
        left = Left()
        assert left
        raise OSError(*full)

    monkeypatch.setattr("keras_fcn.commands.models.run", run)
    assert main(["models"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("keras-fcn: error: The disk is full")
