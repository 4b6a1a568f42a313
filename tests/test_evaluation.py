"""Scores of each image, the worst ones as a picture, and what is set aside."""

import csv
import json
from pathlib import Path

import keras
import numpy as np
import pytest
import skimage.measure
import tensorflow as tf
from conftest import leave_half, randomize
from PIL import Image

from keras_fcn import (
    UNet,
    evaluate,
    evaluation,
    evaluation_report,
    predict_image,
    predict_objects,
)
from keras_fcn.classes import Classes
from keras_fcn.commands import main
from keras_fcn.datasets import Pairs
from keras_fcn.inference.predict import predict_images
from keras_fcn.lock import locked
from keras_fcn.object_metrics import ObjectMetrics

SIZES = [(20, 30), (33, 17), (24, 24)]


@pytest.fixture(scope="module")
def model():
    model = UNet(num_classes=3, filters=(4, 8))
    randomize(model, np.random.default_rng(3), scale=0.3)
    colors = ((10, 20, 30), (200, 0, 0), (0, 200, 0))
    model.get_layer("predictions").classes = Classes(("sky", "road", "car"), colors, ignore=255)
    return model


@pytest.fixture
def pairs(model, rng):
    """Images and maps in which more and more pixels are other than the prediction."""
    result = []
    for number, size in enumerate(SIZES):
        image = rng.integers(0, 256, (*size, 3), "uint8")
        labels = predict_image(model, image, output="labels")
        other = rng.random(size) < 0.2 * (number + 1)
        result.append((image, np.where(other, (labels + 1) % 3, labels)))
    return result


@pytest.fixture
def data(pairs, tmp_path):
    """The pairs as files."""
    for number, (image, labels) in enumerate(pairs):
        for folder, array in (("images", image), ("masks", labels)):
            (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
            path = tmp_path / "data" / folder / f"{number}.png"
            Image.fromarray(array.astype("uint8")).save(path)
    return tmp_path / "data"


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_scores_of_each_image_are_those_of_it_alone(model, data, pairs, tmp_path):
    output = tmp_path / "out"
    result = evaluate(model, Pairs(data), output=output)
    assert files(output) == [".scored", "evaluation.json", "scores.csv", "worst.png"]
    assert json.loads((output / "evaluation.json").read_text()) == result
    assert "failed" not in result
    lines = read(output / "scores.csv")
    assert [line["file"] for line in lines] == [str(data / f"images/{i}.png") for i in range(3)]
    for line, pair in zip(lines, pairs, strict=True):
        alone = evaluate(model, [pair])
        assert float(line["mean_iou"]) == pytest.approx(alone["mean_iou"], rel=1e-5)
        right = (predict_image(model, pair[0], output="labels") == pair[1]).mean()
        assert float(line["pixel_accuracy"]) == pytest.approx(right, rel=1e-5)
        for name, iou in alone["per_class_iou"].items():
            assert line[f"iou {name}"] == ("" if iou != iou else f"{iou:.6g}")
    # all pixels together, which is another number than the mean of the images
    sizes = np.prod(SIZES, axis=1)
    accuracies = [float(line["pixel_accuracy"]) for line in lines]
    assert result["pixel_accuracy"] == pytest.approx(np.average(accuracies, weights=sizes))


def test_the_worst_come_first_with_truth_prediction_and_errors(model, pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation_report, "SHOWN", 2)
    named = [(*pair, f"photo {number}") for number, pair in enumerate(pairs)]
    drawn = []
    draw = evaluation_report._draw_row
    monkeypatch.setattr(
        evaluation_report, "_draw_row", lambda *row: drawn.append(row) or draw(*row)
    )
    evaluate(model, named, output=tmp_path)
    captions = [caption for caption, _ in drawn]
    ious = [evaluate(model, [pair])["mean_iou"] for pair in pairs]
    assert captions == [f"photo {i}: mean IoU {ious[i]:.3f}" for i in (2, 1)]
    image, truth, prediction, errors = (np.asarray(panel) for panel in drawn[0][1])
    np.testing.assert_array_equal(image, pairs[2][0])
    palette = model.get_layer("predictions").classes.palette
    labels = predict_image(model, pairs[2][0], output="labels")
    np.testing.assert_array_equal(truth, palette[pairs[2][1]])
    np.testing.assert_array_equal(prediction, palette[labels])
    np.testing.assert_array_equal((errors == 255).all(-1), labels == pairs[2][1])
    # the titles, a line of legend, and two rows below their captions, each with a gap
    expected = 2 * (22 + 4) + (22 + 4 + 24 + 4 + 4) + (22 + 4 + 33 + 4 + 4)
    picture = Image.open(tmp_path / "worst.png")
    assert picture.height == expected
    row = np.asarray(picture)[2 * (22 + 4) + 22 + 4 :][:24]
    np.testing.assert_array_equal(row[:, :24], pairs[2][0])
    np.testing.assert_array_equal(row[:, 28:52], palette[pairs[2][1]])


def test_large_images_are_drawn_small(model, tmp_path):
    image = np.zeros((700, 40, 1), "uint8")
    labels = np.full((700, 40), 255)
    labels[:350] = 1
    panels = evaluation_report.paint_panels(image, labels, labels % 3, np.eye(3) * 9, 255)
    assert [panel.size for panel in panels] == [(18, 320)] * 4
    truth = np.asarray(panels[1])
    assert (truth[:160] == [0, 9, 0]).all()
    assert (truth[160:] == 208).all()


def spoil_image(data):
    path = data / "images" / "1.png"
    path.write_bytes(path.read_bytes()[:300])


def spoil_mask(data):
    (data / "masks" / "1.png").write_bytes(b"no image")


def shrink_mask(data):
    Image.open(data / "masks" / "1.png").crop((0, 0, 9, 9)).save(data / "masks" / "1.png")


def spoil_label(data):
    labels = np.asarray(Image.open(data / "masks" / "1.png")).copy()
    labels[0, 0] = 7
    Image.fromarray(labels).save(data / "masks" / "1.png")


@pytest.mark.filterwarnings("default::UserWarning")  # the command prints them
@pytest.mark.filterwarnings("default:The scores are those of")
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_image, "whole images"),
        (spoil_mask, "whole images"),
        (shrink_mask, "the size of its image"),
        (spoil_label, "Received: [7] in"),
    ],
)
def test_a_bad_file_is_set_aside_and_the_rest_goes_on(
    spoil, message, model, data, pairs, tmp_path, capsys
):
    model.save(tmp_path / "model.keras")
    spoil(data)
    output = tmp_path / "out"
    command = ["evaluate", "--weights", str(tmp_path / "model.keras"), "--data", str(data)]
    command += ["--split", "all", "--output", str(output)]
    assert main([*command, "--json"]) == 1
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    bad = str(data / "images" / "1.png")
    assert list(result["failed"]) == [bad]
    assert result["images"] == 2
    expected = evaluate(model, [pairs[0], pairs[2]])
    assert result["mean_iou"] == pytest.approx(expected["mean_iou"])
    assert "The scores are those of 2 images; 1 of 3 were set aside, the first" in printed.err
    (error,) = read(output / "errors.csv")
    assert error["file"] == bad
    assert message in error["error"]
    assert [Path(line["file"]).name for line in read(output / "scores.csv")] == ["0.png", "2.png"]
    # mended, it is evaluated, and nothing is left of the error
    for folder, array in zip(("images", "masks"), pairs[1], strict=True):
        Image.fromarray(array.astype("uint8")).save(data / folder / "1.png")
    assert main(command) == 0
    assert files(output) == [".scored", "evaluation.json", "scores.csv", "worst.png"]
    assert "3 images" in capsys.readouterr().out


def test_failed_images_of_one_name_all_count(model, pairs, tmp_path):
    named = [(image, labels, "mine") for image, labels in pairs]
    bad = [(image, labels + 40, name) for image, labels, name in named[:2]]
    with pytest.warns(UserWarning, match="those of 3 images; 2 of 5 were set aside"):
        result = evaluate(model, [*bad, *named], output=tmp_path)
    assert list(result["failed"]) == ["mine", "mine (2)"]
    assert (result["images"], len(read(tmp_path / "errors.csv"))) == (3, 2)


def test_a_mask_of_classes_is_no_map_of_objects(model, rng):
    """All that it shows would count as one object."""
    mask = np.zeros((20, 30), "uint8")
    mask[2:6, ::6] = mask[12:16, ::6] = 255
    pairs = [(rng.integers(0, 256, (20, 30, 3), "uint8"), mask)] * 2
    message = r"255 alone for 10 pieces.*`skimage\.measure\.label\(mask\)`.*`objects=True`"
    with pytest.warns(UserWarning, match=message) as told:
        evaluate(model, pairs, objects=True)
    assert len(told) == 1
    for numbers in (skimage.measure.label(mask), mask // 255 * np.eye(20, 30, dtype="uint8")):
        assert evaluate(model, [(pairs[0][0], numbers)], objects=True)["images"] == 1


@pytest.mark.parametrize("kind", [list, iter])
def test_dicts_are_told_how_to_be_given(model, pairs, kind):
    dicts = [{"image": image, "mask": labels} for image, labels in pairs]
    with pytest.raises(ValueError, match=r"pair of .*Received: one of dict.*item\['image'\]"):
        evaluate(model, kind(dicts))


def test_where_all_are_bad_the_first_error_is_told(model, pairs, tmp_path):
    bad = [(image, labels + 40) for image, labels in pairs]
    with pytest.raises(ValueError, match=r"Received: \[40, 41, 42\] in the map of 'image 1'"):
        evaluate(model, bad, output=tmp_path)
    assert len(read(tmp_path / "errors.csv")) == 3
    evaluate(model, pairs, output=tmp_path)  # the folder is free for the next try
    with pytest.raises(ValueError, match="at least one image"):
        evaluate(model, [])


def test_what_no_image_can_be_predicted_with_is_told_at_once(model):
    def unread():
        raise AssertionError("an image was read")
        yield

    for options in ({"engine": "x"}, {"scales": ()}, {"tile_size": 0}):
        with pytest.raises(ValueError, match="should be"):
            evaluate(model, unread(), **options)


def test_a_path_is_no_data(model, data):
    with pytest.raises(ValueError, match=r"Pass `keras_fcn\.datasets\.Pairs\('"):
        evaluate(model, str(data))


def test_an_iterable_that_breaks_is_an_error(model, pairs):
    """What comes after the break is not known, so there is no score."""

    def breaking():
        yield pairs[0]
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        evaluate(model, breaking())


def test_batches_and_sample_weights(model, pairs):
    images = np.stack([pairs[2][0]] * 3)
    labels = np.stack([pairs[2][1], pairs[2][1] * 0 + 9, pairs[2][1]])
    batches = tf.data.Dataset.from_tensor_slices((images, labels, labels * 0.0)).batch(2)
    with pytest.warns(UserWarning, match="1 of 3 were set aside, the first 'image 2'"):
        result = evaluate(model, batches)
    alone = evaluate(model, [pairs[2]])
    assert result["mean_iou"] == pytest.approx(alone["mean_iou"])
    assert (result["images"], list(result["failed"])) == (2, ["image 2"])


def test_objects_are_scored_and_outlined(model, pairs, tmp_path):
    truth = [predict_objects(model, image) for image, _ in pairs]
    truth[1] = np.where(truth[1] % 2, truth[1], 0)
    data = [(image, objects) for (image, _), objects in zip(pairs, truth, strict=True)]
    result = evaluate(model, data, objects=True, output=tmp_path)
    lines = read(tmp_path / "scores.csv")
    metric = ObjectMetrics()
    metric.update_state(truth[1], predict_objects(model, pairs[1][0]))
    assert float(lines[1]["object_f1"]) == pytest.approx(metric.result()["object_f1"], rel=1e-5)
    assert (lines[0]["object_f1"], lines[0]["object_recall"]) == ("1", "1")
    assert result["object_recall"] == 1
    assert Image.open(tmp_path / "worst.png").width >= 3 * 30


@pytest.mark.parametrize("name", ["scores.csv", "errors.csv", "worst.png", "evaluation.json"])
def test_files_of_others_are_left_alone(name, model, pairs, tmp_path):
    (tmp_path / name).write_text("[]")
    with pytest.raises(FileExistsError, match="no evaluation of keras_fcn wrote it"):
        evaluate(model, pairs, output=tmp_path)
    assert files(tmp_path) == [name]
    assert (tmp_path / name).read_text() == "[]"


def test_two_evaluations_at_once_are_refused(model, pairs, tmp_path):
    with locked(tmp_path), pytest.raises(FileExistsError, match="One run at a time"):
        evaluate(model, pairs, output=tmp_path)


def count_predictions(monkeypatch, fail_from=None):
    """Return the list of the images predicted from now on; one of them stops as by Ctrl-C."""
    predicted = []

    def predict(model, images, network, **options):
        if len(predicted) == fail_from:
            raise KeyboardInterrupt
        predicted.extend(image.shape[:2] for image in images)
        return predict_images(model, images, network, **options)

    monkeypatch.setattr(evaluation, "predict_images", predict)
    return predicted


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("shown", [8, 1])
def test_what_is_scored_is_not_predicted_again(model, pairs, tmp_path, monkeypatch, shown):
    monkeypatch.setattr(evaluation_report, "SHOWN", shown)
    named = [(*pair, f"photo {number}") for number, pair in enumerate(pairs)]
    expected = evaluate(model, named, output=tmp_path / "undisturbed")
    with monkeypatch.context() as patch:
        predicted = count_predictions(patch, fail_from=2)
        with pytest.raises(KeyboardInterrupt):
            evaluate(model, named, output=tmp_path / "out")
        assert predicted == SIZES[:2]
        assert files(tmp_path / "out") == [".scored"]
    # what is damaged, and killed in the middle of a line
    with (tmp_path / "out/.scored/counts.jsonl").open("a") as file:
        file.write("5\n[[], [], []]\n" + "[" * 100_000 + '\n["photo 2", "ab')
    leave_half(tmp_path / "out" / ".scored", "a.npz")
    predicted = count_predictions(monkeypatch)
    assert evaluate(model, named, output=tmp_path / "out") == expected
    assert predicted == SIZES[2:]
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed")
    assert not list((tmp_path / "out" / ".scored").glob(".*"))
    assert evaluate(model, named, output=tmp_path / "out") == expected
    assert predicted == SIZES[2:]  # nothing more
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed")
    # another mask of the name is another pair
    named[1] = (pairs[1][0], pairs[1][1] * 0, "photo 1")
    result = evaluate(model, named, output=tmp_path / "out")
    assert predicted == [SIZES[2], SIZES[1]]
    assert result == evaluate(model, named)


def test_pictures_that_are_gone_are_drawn_again(model, pairs, tmp_path):
    evaluate(model, pairs, output=tmp_path)
    before = contents(tmp_path)
    for change in (
        lambda _: b"no archive",
        lambda data: data[:60] + b"\xff" * 60 + data[120:],  # within what is compressed
        lambda _: None,
    ):
        for file in (tmp_path / ".scored").glob("*.npz"):
            data = change(file.read_bytes())
            file.unlink()
            if data:
                file.write_bytes(data)
        evaluate(model, pairs, output=tmp_path)
        assert contents(tmp_path) == before


def test_objects_go_on_too(model, pairs, tmp_path, monkeypatch):
    data = [(image, predict_objects(model, image)) for image, _ in pairs]
    expected = evaluate(model, data, objects=True, output=tmp_path)
    predicted = count_predictions(monkeypatch)
    assert evaluate(model, data, objects=True, output=tmp_path) == expected
    assert not predicted


def test_small_images_go_together_also_where_some_are_scored(model, tmp_path, rng, monkeypatch):
    images = rng.integers(0, 256, (20, 24, 31, 3), "uint8")
    masks = rng.integers(0, 3, (20, 24, 31), "uint8")
    named = [(*pair, f"photo {n}") for n, pair in enumerate(zip(images, masks, strict=True))]
    expected = evaluate(model, named)
    labels = [predict_image(model, image, output="labels") for image in images]
    right = np.mean(np.asarray(labels) == masks)
    assert expected["pixel_accuracy"] == pytest.approx(right)
    for objects in (False, True):
        output = tmp_path / str(objects)
        expected = evaluate(model, named, objects=objects, output=output)
        before = contents(output)
        counts = output / ".scored" / "counts.jsonl"
        lines = counts.read_text().splitlines(keepends=True)
        counts.write_text("".join(lines[:18] + lines[19:]))
        predicted = count_predictions(monkeypatch)
        assert evaluate(model, named, objects=objects, output=output) == expected
        assert len(predicted) == 4  # the last batch
        assert contents(output) == before


def test_other_weights_or_options_are_refused(model, pairs, tmp_path, rng):
    evaluate(model, pairs, output=tmp_path)
    before = contents(tmp_path)
    other = keras.models.clone_model(model)
    randomize(other, rng)
    with pytest.raises(FileExistsError, match="the scores of another run, with other weights"):
        evaluate(other, pairs, output=tmp_path)
    with pytest.raises(FileExistsError, match="other ignore"):
        evaluate(model, pairs, ignore=2, output=tmp_path)
    with pytest.raises(FileExistsError, match="other test_time_augmentation"):
        evaluate(model, pairs, test_time_augmentation=True, output=tmp_path)
    assert contents(tmp_path) == before
    evaluate(model, pairs, tile_size=16, output=tmp_path)  # gives the same numbers


def test_pairs_are_read_when_they_are_asked_for(data, pairs):
    read_again = Pairs(data, "all[1:]", channels=1)
    spoil_image(data)
    assert len(read_again) == 2
    with pytest.raises(ValueError, match="whole images"):
        read_again[0]
    image, labels = read_again[1]
    assert image.shape == (24, 24, 1)
    np.testing.assert_array_equal(labels, pairs[2][1])
    assert len(list(Pairs(data, ["2", "0"]))) == 2


def test_a_class_may_be_missing_of_what_nobody_learns_from(data):
    for path in (data / "masks").iterdir():
        labels = np.asarray(Image.open(path))
        Image.fromarray(labels * 2).save(path)
    assert len(Pairs(data)) == 3  # and no warning


def test_what_the_masks_have_in_common_is_told_before(data):
    for path in (data / "masks").iterdir():
        labels = np.asarray(Image.open(path))
        Image.fromarray((labels > 0).astype("uint8") * 255).save(path)
    with pytest.raises(ValueError, match="0 and 255 only"):
        Pairs(data)
    for path in (data / "masks").iterdir():
        Image.open(path).convert("RGB").save(path)
    with pytest.raises(ValueError, match=r"0\.png.*1\.png.*2\.png"):
        Pairs(data)


def test_a_void_label_of_numpy_is_a_number(model, tmp_path, rng):
    image = rng.integers(0, 256, (9, 12, 3), "uint8")
    truth = rng.integers(0, 3, (9, 12), "uint8")
    truth[0] = 7
    given = {"output": tmp_path / "out", "tile_size": np.int64(5)}
    first = evaluate(model, [(image, truth)], ignore=np.uint8(7), **given)
    assert evaluate(model, [(image, truth)], ignore=7, output=tmp_path / "out") == first
    assert first == evaluate(model, [(image, truth)], ignore=7.0)
    with pytest.raises(ValueError, match="`ignore` should be an integer or None"):
        evaluate(model, [(image, truth)], ignore="7")


def test_a_label_map_may_have_a_channel_as_for_losses_and_metrics(model, rng):
    images = rng.integers(0, 256, (2, 9, 12, 3), "uint8")
    truths = rng.integers(0, 3, (2, 9, 12), "uint8")
    expected = evaluate(model, list(zip(images, truths, strict=True)))
    assert evaluate(model, list(zip(images, truths[..., None], strict=True))) == expected
    assert evaluate(model, [(images, truths[..., None])]) == expected
    with pytest.raises(ValueError, match="should have the size of the prediction"):
        evaluate(model, [(images[0], np.eye(3)[truths[0]].astype(int))])
