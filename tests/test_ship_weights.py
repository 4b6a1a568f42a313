"""The scripts that make weights and the tables about them, on drawn cells."""

import dataclasses
import importlib
import json
import shutil

import numpy as np
import pytest
import scipy.ndimage
from PIL import Image

import keras_fcn
from keras_fcn.cards import sha256
from keras_fcn.datasets.shapes import draw_cells
from keras_fcn.inference import ObjectSettings
from keras_fcn.training import Recipe, train
from keras_fcn.training.log import read_log
from keras_fcn.weights import fingerprint

ARGUMENTS = {"filters": [4, 8], "batch_norm": True}


@pytest.fixture
def scripts(monkeypatch, pytestconfig):
    """A function that runs the `main` of a script with arguments."""
    monkeypatch.syspath_prepend(pytestconfig.rootpath / "tools")

    def run(name, *arguments, **replaced):
        script = importlib.import_module(name)
        for attribute, value in replaced.items():
            monkeypatch.setattr(script, attribute, value)
        monkeypatch.setattr("sys.argv", [name, *map(str, arguments)])
        script.main()

    return run


@pytest.fixture
def pairs(rng):
    """Four gray images of cells, uint8 (64, 64, 1), and their label maps."""
    drawn = [draw_cells(rng) for _ in range(4)]
    return [(image[:64, :64, :1], labels[:64, :64].astype("int32")) for image, labels in drawn]


@pytest.fixture
def data(pairs, tmp_path):
    """A folder of them, two to train on and two to validate on."""
    for number, (image, labels) in enumerate(pairs):
        split = "train" if number < 2 else "val"
        for folder, pixels in ((split, image[..., 0]), (f"{split}annot", labels)):
            (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
            path = tmp_path / "data" / folder / f"{number}.png"
            Image.fromarray(pixels.astype("uint8")).save(path)
    return tmp_path / "data"


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_card_is_of_the_file_and_of_all_stages(data, pairs, tmp_path, scripts, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {"epochs": 1, "steps": 1, "batch_size": 2, "crop_size": 32, "augment": None}
    first = Recipe(str(data), **ARGUMENTS, **options)
    second = Recipe(str(data), weights="first/model.keras", **ARGUMENTS, **options)
    for recipe, output in ((first, "first"), (second, "second")):
        train(recipe, output)
    record = json.loads((tmp_path / "first" / "training.json").read_text())
    del record["result"]  # as if stopped in a second epoch
    record["parameters"]["epochs"] = 2
    (tmp_path / "first" / "training.json").write_text(json.dumps(record))
    scripts("ship_weights", "unet_isbi2012", "--run", "second", "--data", data,
            "--hardware", "a test", "--output", "shipped")  # fmt: skip

    card = json.loads((tmp_path / "shipped" / "unet_isbi2012.json").read_text())
    file = tmp_path / "shipped" / card["file"]
    assert card["sha256"] == sha256(file)
    assert card["arguments"] == {"input_shape": [None, None, 1], "num_classes": 2, **ARGUMENTS}
    assert len(card["commands"]) == 2
    assert card["stopped"] == {"1": "after 1 of 2 epochs"}
    rows, _ = read_log(tmp_path / "first")
    result = json.loads((tmp_path / "second" / "training.json").read_text())["result"]
    seconds = sum(float(row["seconds"]) for row in rows.values()) + result["seconds"]
    assert card["training_minutes"] == round(seconds / 60)
    assert str(tmp_path) not in json.dumps(card)

    model = keras_fcn.UNet(**card["arguments"], weights=str(file))
    assert fingerprint(model) == card["fingerprint"]
    metric = keras_fcn.metrics.SegmentationMetrics(2)
    scores = []
    for image, truth in pairs[2:]:
        probabilities = keras_fcn.predict_image(model, image)
        metric.update_state(truth, probabilities.argmax(-1))
        scores.append(
            keras_fcn.metrics.rand_information_scores(
                truth, probabilities[..., 1], card["metric"]["threshold"]
            )["rand"]
        )
    assert card["metric"]["mean_iou"] == pytest.approx(metric.per_class_iou().mean(), abs=1e-4)
    assert card["metric"]["rand"] == pytest.approx(np.mean(scores), abs=1e-4)
    objects = keras_fcn.metrics.ObjectMetrics()
    for image, truth in pairs[2:]:
        found = keras_fcn.predict_objects(model, image, ObjectSettings(**card["objects"]))
        objects.update_state(scipy.ndimage.label(truth == 1)[0], found)
    assert card["metric"]["object_f1"] == pytest.approx(objects.result()["object_f1"], abs=1e-4)

    train(dataclasses.replace(second, seed=1), "third")
    scripts("ship_weights", "unet_isbi2012", "--run", "second", "third", "--last", "--data", data,
            "--hardware", "a test", "--output", "mean")  # fmt: skip
    card = json.loads((tmp_path / "mean" / "unet_isbi2012.json").read_text())
    assert len(card["commands"]) == 3
    assert card["seed"] == [second.seed, 1]
    took = "the last epoch, last.keras; the mean of the weights of the last 2 commands"
    assert card["took"] == {"2": took, "3": took}
    model = keras_fcn.UNet(**card["arguments"], weights=str(tmp_path / "mean" / card["file"]))
    both = [keras_fcn.load_model(f"{run}/last.keras") for run in ("second", "third")]
    for shipped, *trained in zip(*(one.get_weights() for one in (model, *both)), strict=True):
        np.testing.assert_allclose(shipped, np.mean(trained, axis=0), atol=1e-2)
    iou = [keras_fcn.evaluate(one, pairs[2:])["mean_iou"] for one in both]
    assert card["seeds"]["mean_iou"]["mean"] == pytest.approx(np.mean(iou), abs=1e-4)
    assert card["seeds"]["mean_iou"]["range"] == pytest.approx([min(iou), max(iou)], abs=1e-4)

    shutil.rmtree("first")
    with pytest.raises(FileNotFoundError, match="first"):
        scripts("ship_weights", "unet_isbi2012", "--run", "second", "--data", data,
                "--hardware", "a test", "--output", "shipped")  # fmt: skip


def test_a_run_that_began_on_shipped_weights_has_their_commands(tmp_path, scripts):
    """Their runs are gone, and the file of that name is another afterwards: its hash is kept."""
    script = importlib.import_module("ship_weights")
    record = {"command": "keras-fcn train", "parameters": {"weights": "unet_vgg16_camvid"}}
    record["result"] = {"file": "model.keras", "seconds": 90.0}
    (tmp_path / "training.json").write_text(json.dumps(record))
    card = keras_fcn.pretrained()["unet_vgg16_camvid"]
    stages = script.find_stages(tmp_path)
    commands = [stage["command"] for stage in stages]
    assert commands == [*card["commands"], "keras-fcn train"]
    seconds = sum(stage["result"]["seconds"] for stage in stages)
    assert seconds == 60 * card["training_minutes"] + 90
    said = script.list_by_command(stages)
    assert said["stopped"] == card["stopped"]
    last = {str(len(commands)): {"unet_vgg16_camvid": card["sha256"]}}
    assert said["began_on"] == card["began_on"] | last


@pytest.mark.slow
def test_tables_of_averages(pairs, tmp_path, scripts, capsys):
    model = keras_fcn.UNet(input_shape=(None, None, 1), num_classes=2, **ARGUMENTS)
    model.save(tmp_path / "model.keras")
    arguments = ("--weights", tmp_path / "model.keras", "--data", "isbi2012", "--every", 2)
    scripts(
        "compare_averaging",
        *arguments,
        open_validation=lambda *arguments: pairs,
        THRESHOLDS=[0.4, 0.6],
    )
    rows = capsys.readouterr().out.splitlines()
    expected = keras_fcn.metrics.rand_information_scores
    means = [
        np.mean(
            [
                expected(truth, keras_fcn.predict_image(model, image)[..., 1], threshold)["rand"]
                for image, truth in pairs[::2]
            ]
        )
        for threshold in (0.4, 0.6)
    ]
    assert [row.split("|")[1:3] for row in rows[2:4]] == [[" none ", " 0.4 "], [" none ", " 0.6 "]]
    assert [float(row.split("|")[3]) for row in rows[2:4]] == pytest.approx(means, abs=1e-4)
    assert len(rows) == 2 + 4


def test_streets_are_compared_by_mean_iou(tmp_path, scripts, capsys, rng):
    model = keras_fcn.UNet(num_classes=11, **ARGUMENTS)
    model.save(tmp_path / "model.keras")
    pair = (rng.integers(0, 256, (24, 32, 3), "uint8"), rng.integers(0, 12, (24, 32)))
    scripts(
        "compare_averaging", "--weights", tmp_path / "model.keras", "--data", "camvid",
        open_validation=lambda *arguments: [pair],
    )  # fmt: skip
    rows = capsys.readouterr().out.splitlines()
    metric = keras_fcn.metrics.SegmentationMetrics(11, ignore_class=11)
    metric.update_state(pair[1], keras_fcn.predict_image(model, pair[0]).argmax(-1))
    assert rows[2] == f"| none | {100 * metric.per_class_iou().mean():.1f} |"
    assert rows[-1].startswith("| mirror image, scales 1, 1.25, 1.5 | ")
