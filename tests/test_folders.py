"""Predictions of many images: what is written, what is set aside, what is left alone."""

import csv
import dataclasses
import errno
import io
import json
import os
import shutil
import socket
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tifffile
from conftest import leave_half, randomize
from PIL import Image

from keras_fcn import UNet, fully_convolutional, predict_folder, predict_image
from keras_fcn.atomic import FullDiskError
from keras_fcn.catalogue import classes_of, set_classes
from keras_fcn.classes import Classes
from keras_fcn.commands import main
from keras_fcn.datasets.masks import read_mask
from keras_fcn.inference import pipeline, results
from keras_fcn.inference.objects import ObjectSettings, find_objects
from keras_fcn.inference.pictures import draw_classes
from keras_fcn.inference.sources import find_jobs
from keras_fcn.lock import locked

NAMES = ("sky", "road", "border")


@pytest.fixture(scope="module")
def model():
    rng = np.random.default_rng(3)
    model = UNet(num_classes=3, filters=(4, 8))
    randomize(model, rng, scale=0.3)
    colors = ((10, 20, 30), (200, 0, 0), (0, 200, 0))
    model.get_layer("predictions").classes = Classes(NAMES, colors)
    return model


@pytest.fixture
def photos(tmp_path, rng):
    """Three images in a folder with a folder in it."""
    for name, size in {"b.png": (20, 30), "a.png": (17, 9), "deep/c.jpg": (30, 20)}.items():
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*size, 3), "uint8")).save(path)
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    return tmp_path / "photos"


def table(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_names_that_are_no_text_and_names_of_several_lines(model, photos, tmp_path, monkeypatch):
    # the first of Windows, as Linux unpacks it
    names = [os.fsdecode(b"Stra\xdfe"), "two\nlines", "a\u2028b", "a\rb", 'a\t"b', "=1 ", "a\r\nb."]
    for name in names:
        shutil.copy(photos / "a.png", photos / f"{name}.png")
    (photos / f"{names[0]}2.png").write_text("no image")
    shown = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    model.save(tmp_path / "model.keras")
    line = ["predict", str(photos), "--weights", str(tmp_path / "model.keras")]
    monkeypatch.setattr(sys, "argv", ["keras-fcn", *line, "--output", str(tmp_path / "out")])
    monkeypatch.setattr(sys, "stdout", shown)
    for number in range(2):
        assert main() == 1
        assert (b"10 were done before" in shown.buffer.getvalue()) == (number == 1)
    assert all((tmp_path / "out" / f"{name}.png").exists() for name in names)
    assert len((tmp_path / "out" / "errors.csv").read_bytes().splitlines()) == 2


def test_files_of_other_kinds_are_told(photos, tmp_path):
    left = photos / "deep" / "d.ppm"
    Image.open(photos / "a.png").save(left)
    (tmp_path / "out").mkdir()
    Image.open(photos / "a.png").save(tmp_path / "out" / "e.ppm")
    with pytest.warns(UserWarning, match=r"1 others, the first '.*d\.ppm'. .*as PNG"):
        assert len(find_jobs(photos, tmp_path / "out")) == 3
    Image.open(left).save(left.with_suffix(".png"))
    left.unlink()
    assert len(find_jobs(photos, tmp_path / "out")) == 4


def test_a_folder_keeps_its_structure(model, photos, tmp_path):
    output = tmp_path / "out"
    result = predict_folder(model, photos, output)
    assert [Path(image).name for image in result.done] == ["a.png", "b.png", "c.jpg"]
    assert (result.skipped, result.failed) == ([], {})
    assert files(output) == [
        "a.png", "a_overlay.png", "b.png", "b_overlay.png", "deep/c.png", "deep/c_overlay.png",
        "predictions.json", "summary.csv",
    ]  # fmt: skip
    label_map = Image.open(output / "b.png")
    expected = predict_image(model, np.asarray(Image.open(photos / "b.png")), output="labels")
    np.testing.assert_array_equal(np.asarray(label_map), expected)
    assert label_map.getpalette()[:9] == [10, 20, 30, 200, 0, 0, 0, 200, 0]
    lines = table(output / "summary.csv")
    assert lines[0] == ["file", "image", "height", "width", *NAMES]
    assert lines[2] == [
        "b",
        str(photos / "b.png"),
        "20",
        "30",
        *map(str, np.bincount(expected.ravel(), minlength=3)),
    ]


def test_gray_label_maps_hold_plain_numbers(model, photos, tmp_path):
    predict_folder(model, photos / "b.png", tmp_path / "out", gray=True)
    label_map = Image.open(tmp_path / "out" / "b.png")
    assert label_map.mode == "L"
    assert np.asarray(label_map).max() < 3


def test_a_bad_file_is_set_aside_and_the_second_run_does_what_is_missing(
    model, photos, tmp_path, monkeypatch
):
    output = tmp_path / "out"
    good = (photos / "b.png").read_bytes()
    (photos / "b.png").write_bytes(good[:200])
    result = predict_folder(model, photos, output)
    assert len(result.done) == 2
    assert list(result.failed) == [str(photos / "b.png")]
    header, line = table(output / "errors.csv")
    assert header == ["file", "error"]
    assert line[0] == str(photos / "b.png")
    assert not (output / "b.png").exists()

    (photos / "b.png").write_bytes(good)
    predicted = []
    predict = pipeline.predict_images
    monkeypatch.setattr(
        pipeline, "predict_images", lambda *a, **k: predicted.append(1) or predict(*a, **k)
    )
    result = predict_folder(model, photos, output)
    assert list(result.done) == [str(photos / "b.png")]
    assert len(result.skipped) == 2
    assert len(predicted) == 1
    assert not (output / "errors.csv").exists()
    assert len(table(output / "summary.csv")) == 4
    later = time.time() + 60
    os.utime(photos / "a.png", (later, later))  # changed since
    assert list(predict_folder(model, photos, output).done) == [str(photos / "a.png")]
    assert len(table(output / "summary.csv")) == 4


def test_another_image_of_the_name_is_predicted_anew(model, photos, tmp_path):
    output = tmp_path / "out"
    predict_folder(model, photos / "a.png", output)
    (tmp_path / "other").mkdir()
    Image.new("RGB", (5, 5)).save(tmp_path / "other" / "a.png")
    os.utime(tmp_path / "other" / "a.png", (0, 0))
    assert len(predict_folder(model, tmp_path / "other", output).done) == 1
    assert Image.open(output / "a.png").size == (5, 5)
    assert len(table(output / "summary.csv")) == 2
    Image.new("RGB", (7, 7)).save(tmp_path / "b.png")
    os.utime(tmp_path / "b.png", (0, 0))
    time.sleep(0.02)
    (tmp_path / "b.png").rename(tmp_path / "other" / "a.png")
    assert len(predict_folder(model, tmp_path / "other", output).done) == 1
    assert Image.open(output / "a.png").size == (7, 7)


def test_a_line_cut_short_is_none(model, photos, tmp_path):
    output = tmp_path / "out"
    predict_folder(model, photos, output, objects=True)
    summary = (output / "summary.csv").read_text()
    (output / "summary.csv").write_text(summary[:-4])  # killed in the middle of the last line
    result = predict_folder(model, photos, output, objects=True)
    assert [Path(image).name for image in result.done] == ["c.jpg"]
    assert (output / "summary.csv").read_text() == summary
    numbers = [tuple(line[:2]) for line in table(output / "objects.csv")]
    assert len(set(numbers)) == len(numbers)


def test_a_table_of_a_spreadsheet_is_written_anew(model, photos, tmp_path):
    output = tmp_path / "out"
    predict_folder(model, photos / "a.png", output)
    quote = b'file,image\n"' + b"a,b\n" * 2**16  # it swallows more than one field may hold
    for data in ("file;image\na;Straße\n".encode("latin-1"), b"f\0i\0l\0e\0\n\0\n", quote):
        (output / "summary.csv").write_bytes(data)
        assert len(predict_folder(model, photos / "a.png", output).done) == 1
        assert len(table(output / "summary.csv")) == 2


def test_other_weights_or_options_are_refused(model, photos, tmp_path, rng):
    output = tmp_path / "out"
    predict_folder(model, photos / "a.png", output)
    other = keras.models.clone_model(model)
    randomize(other, rng)
    with pytest.raises(FileExistsError, match=r"other weights\. Received: weights="):
        predict_folder(other, photos / "a.png", output)
    with pytest.raises(FileExistsError, match="other test_time_augmentation"):
        predict_folder(model, photos / "a.png", output, test_time_augmentation=True)
    predict_folder(model, photos / "b.png", output, tile_size=8)  # gives the same numbers


def test_the_remedy_of_a_run_that_did_nothing_works_in_its_folder(model, tmp_path, rng):
    images = [rng.random((9, 12, 3)) for _ in range(2)]
    for number, image in enumerate(images):
        np.save(tmp_path / f"{number}.npy", image)
    result = predict_folder(model, tmp_path / "*.npy", tmp_path / "out")
    assert not result.done
    assert "white=1" in next(iter(result.failed.values()))
    assert len(predict_folder(model, tmp_path / "*.npy", tmp_path / "out", white=1).done) == 2
    assert not (tmp_path / "out" / "errors.csv").exists()
    with pytest.raises(FileExistsError, match="of another run, with other white"):
        predict_folder(model, tmp_path / "*.npy", tmp_path / "out", white=2)


def test_two_runs_at_once_are_refused(model, photos, tmp_path):
    (tmp_path / "out").mkdir()
    with locked(tmp_path / "out"), pytest.raises(FileExistsError, match="One run at a time"):
        predict_folder(model, photos, tmp_path / "out")


@pytest.mark.parametrize(
    ("names", "output", "message"),
    [
        (["s.png", "s_overlay.png"], "out", r"names should differ.*s_overlay\.png"),
        (["a/x.png", "b/x.jpg"], "out", "names should differ"),
        (["s.png"], ".", r"should not replace an image.*s\.png"),
        (["s_overlay.png", "t/s.png"], ".", "should not replace an image"),
        (["s.png"], "link", "should not replace an image"),
    ],
)
def test_output_names_are_checked_before_anything_is_written(
    model, names, output, message, tmp_path
):
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (9, 9)).save(tmp_path / name)
    before = files(tmp_path)
    with pytest.raises(ValueError, match=message):
        predict_folder(model, [tmp_path / name for name in names], tmp_path / output)
    assert files(tmp_path) == before


def test_our_label_map_as_input_is_not_overwritten(model, photos, tmp_path):
    output = tmp_path / "out"
    predict_folder(model, photos / "a.png", output)
    label_map = (output / "a.png").read_bytes()
    with pytest.raises(ValueError, match="should not replace an image"):
        predict_folder(model, output / "a.png", output)
    assert (output / "a.png").read_bytes() == label_map


def test_files_of_others_are_left_alone(model, photos, tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    (output / "a_overlay.png").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="did not write it"):
        predict_folder(model, photos, output)
    assert files(output) == ["a_overlay.png"]


@pytest.mark.parametrize("name", ["summary.csv", "errors.csv", "predictions.json"])
def test_tables_of_others_are_left_alone(name, model, photos, tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    (output / name).write_text("mine")
    with pytest.raises(FileExistsError, match="did not write it"):
        predict_folder(model, photos, output)
    assert files(output) == [name]
    assert (output / name).read_text() == "mine"


def test_more_objects_than_16_bits_are_set_aside(model, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "MOST", 0)
    result = predict_folder(model, photos, tmp_path / "out", objects=True)
    assert (len(result.done), len(result.failed)) == (0, 3)
    assert "16 bits" in table(tmp_path / "out" / "errors.csv")[1][1]


def test_paths_folders_and_patterns(photos, tmp_path, monkeypatch):
    def stems(source, output="out"):
        return [str(job.stem) for job in find_jobs(source, output)]

    monkeypatch.chdir(tmp_path)
    assert stems("photos") == ["a", "b", "deep/c"]
    assert stems("photos/*.png") == ["a", "b"]
    assert stems("ph*/**/*.jpg") == ["photos/deep/c"]
    assert stems(["photos/b.png", "photos"]) == ["b", "a", "deep/c"]  # each image once
    assert stems(photos / "deep" / "c.jpg") == ["c"]
    # what lies in the output folder is no image
    assert stems("photos", "photos/deep") == ["a", "b"]
    with pytest.raises(FileNotFoundError, match="in the output folder 'photos' counts only where"):
        stems("photos", "photos")
    assert stems("photos/a.png", "photos") == ["a"]
    (tmp_path / "empty").mkdir()
    for nothing in ("empty", "photos/*.tif", []):
        with pytest.raises(FileNotFoundError, match="should be an image to predict"):
            find_jobs(nothing, "out")
    with pytest.raises(FileNotFoundError, match=r"no file or folder 'photos/d\.png'"):
        find_jobs("photos/d.png", "out")


def test_objects_are_numbered_outlined_and_measured(model, photos, tmp_path):
    output = tmp_path / "out"
    predict_folder(model, photos / "b.png", output, objects=True)
    image = np.asarray(Image.open(photos / "b.png"))
    scores = predict_image(model, image)
    expected = find_objects(scores, ObjectSettings(border=2))
    numbers = np.asarray(Image.open(output / "b_objects.png"))
    assert numbers.dtype == "uint16"
    np.testing.assert_array_equal(numbers, expected)
    assert Image.open(output / "b_outlines.png").size == (30, 20)
    header, *lines = table(output / "objects.csv")
    assert len(lines) == expected.max() > 0
    line = dict(zip(header, lines[0], strict=True))
    inside = expected == 1
    assert (line["file"], line["number"], line["class"]) == ("b", "1", "road")
    assert int(line["area"]) == inside.sum()
    assert float(line["row"]) == pytest.approx(np.nonzero(inside)[0].mean(), abs=0.01)
    assert int(line["right"]) == np.nonzero(inside)[1].max() + 1
    assert float(line["mean_probability"]) == pytest.approx(scores[inside][:, 1].mean(), abs=1e-4)
    assert float(line["mean_intensity"]) == pytest.approx(image[inside].mean(), abs=0.01)


def test_a_map_of_windows_is_laid_where_the_windows_are(photos, tmp_path, rng):
    layers = [
        keras.Input((9, 9, 3)),
        keras.layers.Conv2D(4, 3),
        keras.layers.MaxPooling2D(2),
        keras.layers.Flatten(),
        keras.layers.Dense(3),
    ]
    classifier = keras.Sequential(layers)
    randomize(classifier, rng)
    predict_folder(fully_convolutional(classifier), photos / "b.png", tmp_path / "out")
    assert np.asarray(Image.open(tmp_path / "out" / "b.png")).shape == (7, 12)
    assert Image.open(tmp_path / "out" / "b_overlay.png").width >= 22


def test_what_a_killed_run_was_writing_is_removed(model, photos, tmp_path):
    output = tmp_path / "out"
    places = [leave_half(place, "a.png") for place in (output, output / "deep")]
    (output / f".writing-{socket.gethostname()}-{os.getpid()}-x").mkdir()  # it still runs
    predict_folder(model, photos, output)
    assert not any(place.exists() for place in places)
    assert len(list(output.glob(".writing-*"))) == 1


def test_links_to_folders_are_followed_once(photos, tmp_path):
    photos.rename(tmp_path / "disk")
    photos.mkdir()
    (photos / "linked").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "deep" / "up").symlink_to(tmp_path / "disk")
    stems = [str(job.stem) for job in find_jobs(photos, "out")]
    assert stems == ["linked/a", "linked/b", "linked/deep/c"]


@pytest.mark.parametrize(
    ("pattern", "reaches"),
    [
        ("photos", True),
        ("photos/*/*.jpg", True),
        ("photos/d*/c.jpg", True),
        ("photos/**/*.jpg", True),
        ("photos/*.png", False),
        ("p*/a.png", False),
    ],
)
def test_a_closed_folder_is_not_left_out(pattern, reaches, photos, monkeypatch):
    def closed(look):
        def refuse(path="."):
            if Path(path).name == "deep":
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return look(path)

        return refuse

    monkeypatch.setattr(os, "scandir", closed(os.scandir))
    monkeypatch.setattr(os, "listdir", closed(os.listdir))
    if not reaches:
        assert find_jobs(photos.parent / pattern, "out")
        return
    with pytest.raises(PermissionError, match="deep"):
        find_jobs(photos.parent / pattern, "out")


@pytest.mark.parametrize(
    ("pattern", "stems"),
    [
        ("photos/*.png", ["a", "b"]),
        ("photos/[b-z].*", ["b"]),
        ("photos/**/c.jpg", ["deep/c"]),
        ("photos/**/*.*", ["a", "b", "deep/c"]),
        ("photos/*/c.jpg", ["deep/c"]),
        ("p*/deep/*.jpg", ["photos/deep/c"]),
        ("photos/*/../a.png", ["deep/../a"]),
    ],
)
def test_what_a_pattern_matches(pattern, stems, photos):
    jobs = find_jobs(photos.parent / pattern, "out")
    assert [str(job.stem) for job in jobs] == stems


def test_objects_and_averages_need_a_map_of_the_images_size(photos, tmp_path, rng):
    layers = [keras.Input((9, 9, 3)), keras.layers.Conv2D(4, 3), keras.layers.Flatten()]
    classifier = keras.Sequential([*layers, keras.layers.Dense(2, activation="softmax")])
    randomize(classifier, rng)
    model = fully_convolutional(classifier)
    for options, message in (
        ({"objects": True}, "a map of 248x248 of 256x256 pixels. Leave `objects` out"),
        ({"output_format": "outlines"}, "and objects and outlines of `output_format`"),
        ({"test_time_augmentation": True}, "are of maps of the image's size.*Predict without"),
        ({"scales": (1, 2)}, "Averages, by `scales`"),
    ):
        with pytest.raises(ValueError, match=message):  # before any image
            predict_folder(model, photos / "b.png", tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
    assert predict_folder(model, photos / "b.png", tmp_path / "out").done


def test_what_predictions_depend_on_is_known_again(model, photos, tmp_path):
    """A model of the same weights is another with other layers, classes or thresholds."""
    predict_folder(model, photos / "b.png", tmp_path / "out", objects=True)
    model.save(tmp_path / "model.keras")
    same = keras.saving.load_model(tmp_path / "model.keras")
    assert predict_folder(same, photos / "b.png", tmp_path / "out", objects=True).skipped
    known = classes_of(model)
    for classes in (
        dataclasses.replace(known, objects={"minimum_area": 40}),
        dataclasses.replace(known, names=("a", "b", "c")),
    ):
        set_classes(same, classes)
        with pytest.raises(FileExistsError, match="other weights"):
            predict_folder(same, photos / "b.png", tmp_path / "out", objects=True)
    other = UNet(num_classes=3, filters=(4, 8), include_preprocessing=False)
    other.set_weights(model.get_weights())
    with pytest.raises(FileExistsError, match="other weights"):
        predict_folder(other, photos / "b.png", tmp_path / "out", objects=True)


def test_wrong_options_write_nothing(model, photos, tmp_path):
    for options in ({"tile_size": 0}, {"engine": "x"}, {"scales": ()}, {"scale": 1}):
        with pytest.raises((ValueError, TypeError)):
            predict_folder(model, photos, tmp_path / "out", **options)
        assert not (tmp_path / "out").exists()


def test_a_sigmoid_of_one_channel(photos, tmp_path, rng):
    model = UNet(num_classes=1, filters=(4, 8), classifier_activation="sigmoid")
    randomize(model, rng, scale=0.3)
    predict_folder(model, photos, tmp_path / "out", objects=True)
    image = np.asarray(Image.open(photos / "b.png"))
    expected = predict_image(model, image)[..., 0] > 0.5
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / "b.png")), expected)
    assert table(tmp_path / "out" / "summary.csv")[0][4:] == ["class 0", "class 1"]
    assert dataclasses.asdict(ObjectSettings.of(model))["border"] is None


def test_what_is_written_and_as_files_of_which_kind(model, photos, tmp_path):
    output = tmp_path / "out"
    formats = ["labels.tif", "probabilities", "objects.tif", "overlay.tiff", "outlines"]
    result = predict_folder(model, photos / "b.png", output, output_format=formats)
    names = ["b.tif", "b_overlay.tiff", "b_objects.tif", "b_outlines.png", "b_probabilities.tif"]
    assert result.done == {str(photos / "b.png"): [output / name for name in names]}
    assert files(output) == sorted([*names, "objects.csv", "predictions.json", "summary.csv"])
    scores = predict_image(model, np.asarray(Image.open(photos / "b.png")))
    probabilities = tifffile.imread(output / "b_probabilities.tif")
    assert probabilities.dtype == "float32"
    np.testing.assert_array_equal(probabilities, scores)
    np.testing.assert_array_equal(tifffile.imread(output / "b.tif"), scores.argmax(-1))
    np.testing.assert_array_equal(read_mask(output / "b.tif"), scores.argmax(-1))
    assert Image.open(output / "b.tif").getpalette()[:9] == [10, 20, 30, 200, 0, 0, 0, 200, 0]
    objects = tifffile.imread(output / "b_objects.tif")
    assert objects.dtype == "uint16"
    np.testing.assert_array_equal(objects, find_objects(scores, ObjectSettings(border=2)))
    assert Image.open(output / "b_overlay.tiff").mode == "RGB"
    with tifffile.TiffFile(output / "b.tif") as file:
        assert (file.pages[0].tilewidth, file.pages[0].compression) == (256, 8)
    again = predict_folder(model, photos / "b.png", output, output_format=formats)
    assert again.skipped == [str(photos / "b.png")]
    with pytest.raises(FileExistsError, match="other objects, output_format"):
        predict_folder(model, photos / "b.png", output, objects=True)


def test_arrays_of_numpy(model, photos, tmp_path):
    output = tmp_path / "out"
    formats = ("labels.npy", "probabilities.npy", "objects.npy", "overlay.npy")
    predict_folder(model, photos / "b.png", output, output_format=formats)
    scores = predict_image(model, np.asarray(Image.open(photos / "b.png")))
    np.testing.assert_array_equal(np.load(output / "b_probabilities.npy"), scores)
    labels = np.load(output / "b.npy")
    assert labels.dtype == "uint8"
    np.testing.assert_array_equal(labels, scores.argmax(-1))
    os.utime(photos / "b.png")  # changed since: our own files are written anew
    os.utime(output / "b.npy", (0, 0))
    assert len(predict_folder(model, photos / "b.png", output, output_format=formats).done) == 1


@pytest.mark.parametrize("name", ["a.npy", "a.tif"])
def test_other_files_of_these_kinds_are_left_alone(name, model, photos, tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    np.save(output / name, [1]) if name == "a.npy" else tifffile.imwrite(output / name, [[1]])
    with pytest.raises(FileExistsError, match="did not write it"):
        predict_folder(model, photos, output, output_format=f"labels{Path(name).suffix}")
    assert files(output) == [name]


def test_gray_tiffs_and_labels_without_an_overlay(model, photos, tmp_path, monkeypatch):
    """Where labels are all that is wanted the probabilities of the image are never held."""
    asked = []
    predict = pipeline.predict_images
    monkeypatch.setattr(
        pipeline, "predict_images", lambda *a, **k: asked.append(k["output"]) or predict(*a, **k)
    )
    options = {"gray": True, "output_format": "labels.tif"}
    predict_folder(model, photos / "b.png", tmp_path / "out", **options)
    assert Image.open(tmp_path / "out" / "b.tif").mode == "L"
    predict_folder(model, photos / "b.png", tmp_path / "other", output_format="probabilities")
    assert asked == ["labels", "probabilities"]


@pytest.mark.parametrize(
    ("formats", "message"),
    [
        ("label", r"should be one or more of labels, .*'label'.*Did you mean 'labels'"),
        ("labels.jpg", r"writes labels as \.png, \.tif, .*Received: 'labels\.jpg'"),
        (
            "probabilities.png",
            r"as \.tif, \.tiff, \.npy\..*Pass `output_format='probabilities.tif'`",
        ),
        (["labels", "labels.tif"], "each kind once"),
        ([], "Received: none"),
    ],
)
def test_wrong_formats_write_nothing(formats, message, model, photos, tmp_path):
    with pytest.raises(ValueError, match=message):
        predict_folder(model, photos, tmp_path / "out", output_format=formats)
    assert not (tmp_path / "out").exists()


def test_more_objects_than_16_bits_in_32(model, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "MOST", 0)
    predict_folder(model, photos / "b.png", tmp_path / "out", output_format="objects.tif")
    assert tifffile.imread(tmp_path / "out" / "b_objects.tif").dtype == "uint32"


@pytest.fixture
def stack(tmp_path, rng):
    pages = rng.integers(0, 256, (4, 20, 30, 3), "uint8")
    tifffile.imwrite(tmp_path / "stack.tif", pages, photometric="rgb")
    return tmp_path / "stack.tif", pages


def test_a_stack_becomes_a_stack(model, stack, tmp_path):
    path, pages = stack
    output = tmp_path / "out"
    result = predict_folder(model, path, output)
    expected = np.stack([predict_image(model, page, output="labels") for page in pages])
    assert result.done[str(path)] == [output / "stack.tif", output / "stack_overlay.tif"]
    np.testing.assert_array_equal(tifffile.imread(output / "stack.tif"), expected)
    assert Image.open(output / "stack_overlay.tif").n_frames == 4
    lines = table(output / "summary.csv")
    assert [line[0] for line in lines] == ["file", *(f"stack#{page}" for page in range(4))]
    assert lines[3][4:] == [str(count) for count in np.bincount(expected[2].ravel(), minlength=3)]
    assert predict_folder(model, path, output).skipped == [str(path)]
    summary = (output / "summary.csv").read_text()
    (output / "summary.csv").write_text("\n".join(summary.splitlines()[:3]) + "\n")
    assert list(predict_folder(model, path, output).done) == [str(path)]  # two pages were missing
    assert sorted((output / "summary.csv").read_text()) == sorted(summary)


@pytest.mark.parametrize("first", ["stack.tif", "stack#3.png"])
def test_an_image_called_like_a_page_is_refused(first, model, stack, tmp_path):
    path, pages = stack
    Image.fromarray(pages[0]).save(tmp_path / "stack#3.png")
    other = {"stack.tif": "stack#3.png", "stack#3.png": "stack.tif"}[first]
    with pytest.raises(ValueError, match=f"{first}' and .*{other}', both with 'stack#3'"):
        predict_folder(model, [tmp_path / first, tmp_path / other], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "stack#3.png").rename(tmp_path / "stack#4.png")  # of 4 pages none is called so
    assert find_jobs([path, tmp_path / "stack#4.png"], "out")


def test_a_stack_that_the_disk_has_no_room_for_is_told(model, stack, tmp_path, monkeypatch):
    """Written without its room, the file would end the process, by SIGBUS."""

    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    with pytest.raises(FullDiskError) as raised:
        predict_folder(model, stack[0], tmp_path / "out", output_format="labels.npy")
    assert raised.value.filename == str(tmp_path / "out" / "stack.npy")


def test_all_that_is_written_of_a_stack(model, stack, tmp_path):
    path, pages = stack
    formats = ["labels.npy", "probabilities", "objects"]
    predict_folder(model, path, tmp_path / "out", output_format=formats)
    scores = np.stack([predict_image(model, page) for page in pages])
    assert files(tmp_path / "out") == [
        "objects.csv", "predictions.json", "stack.npy", "stack_objects.tif",
        "stack_probabilities.tif", "summary.csv",
    ]  # fmt: skip
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "stack.npy"), scores.argmax(-1))
    written = tifffile.imread(tmp_path / "out" / "stack_probabilities.tif")
    np.testing.assert_array_equal(written, scores)
    numbers = {line[0] for line in table(tmp_path / "out" / "objects.csv")[1:]}
    assert numbers == {f"stack#{page}" for page in range(4)}


def test_a_stack_with_a_page_that_fails_is_set_aside_whole(tmp_path, model, rng):
    pages = [Image.fromarray(rng.integers(0, 256, size, "uint8")) for size in ((9, 12), (8, 8))]
    pages[0].save(tmp_path / "stack.tif", save_all=True, append_images=pages[1:])
    options = {"output_format": "labels.npy"}
    result = predict_folder(model, tmp_path / "stack.tif", tmp_path / "out", **options)
    assert "holds images of one size" in result.failed[str(tmp_path / "stack.tif")]
    assert files(tmp_path / "out") == ["errors.csv", "predictions.json", "summary.csv"]
    assert predict_folder(model, tmp_path / "stack.tif", tmp_path / "other").done
    with tifffile.TiffFile(tmp_path / "other" / "stack.tif") as file:
        assert [page.shape for page in file.pages] == [(9, 12), (8, 8)]


def test_the_georeference_is_kept(model, tmp_path, rng):
    """As rasterio, which reads GeoTIFFs by GDAL, sees it."""
    import rasterio
    from rasterio.transform import from_origin

    where = {"crs": "EPSG:32633", "transform": from_origin(500000, 5400000, 0.5, 0.5)}
    size = {"width": 40, "height": 24, "count": 3, "dtype": "uint8"}
    pixels = rng.integers(0, 256, (3, 24, 40), "uint8")
    with rasterio.open(tmp_path / "field.tif", "w", driver="GTiff", **where, **size) as file:
        file.write(pixels)
    formats = ["labels.tif", "probabilities", "overlay.tif"]
    predict_folder(model, tmp_path / "field.tif", tmp_path / "out", output_format=formats)
    expected = predict_image(model, np.moveaxis(pixels, 0, -1))
    with rasterio.open(tmp_path / "out" / "field.tif") as file:
        assert file.crs == where["crs"]
        assert file.transform == where["transform"]
        np.testing.assert_array_equal(file.read(1), expected.argmax(-1))
    with rasterio.open(tmp_path / "out" / "field_probabilities.tif") as file:
        assert file.transform == where["transform"]
        np.testing.assert_array_equal(np.moveaxis(file.read(), 0, -1), expected)


def test_numbers_of_numpy_are_numbers(model, tmp_path, rng):
    deep = rng.integers(0, 4096, (12, 16)).astype("uint16")
    tifffile.imwrite(tmp_path / "a.tif", deep)
    known = classes_of(model)
    objects = {"threshold": np.float32(0.25), "minimum_area": np.int64(2), "border": np.int8(2)}
    numbers = Classes(known.names, known.palette, np.uint8(255), objects=objects).to_config()
    assert json.loads(json.dumps(numbers)) == numbers
    out = tmp_path / "out"
    given = {"white": deep.max(), "max_pixels": np.int64(999), "gray": np.bool_(True)}
    given |= {"scales": (np.float32(0.5), np.int64(1)), "tile_size": np.int32(8)}
    assert not predict_folder(model, tmp_path / "a.tif", out, **given).failed
    plain = {"white": int(deep.max()), "max_pixels": 999, "gray": True, "scales": (0.5, 1)}
    again = predict_folder(model, tmp_path / "a.tif", out, **plain, tile_size=8)
    assert len(again.skipped) == 1


def gated(size=(24, 24)):
    """A classifier with squeeze and excitation, of which no pixel's window is known."""
    image = keras.Input((*size, 3))
    maps = keras.layers.Conv2D(4, 3, strides=2, padding="same")(image)
    gate = keras.layers.GlobalAveragePooling2D(keepdims=True)(maps)
    gate = keras.layers.Conv2D(4, 1, activation="sigmoid")(gate)
    maps = keras.layers.Multiply()([maps, gate])
    pooled = keras.layers.GlobalAveragePooling2D()(maps)
    return keras.Model(image, keras.layers.Dense(2, activation="softmax")(pooled))


def test_windows_of_a_gated_classifier_are_drawn_where_they_are(tmp_path, rng):
    model = fully_convolutional(gated())
    model.save(tmp_path / "gated.keras")
    model = keras.saving.load_model(tmp_path / "gated.keras")  # which knows no window any more
    Image.fromarray(rng.integers(0, 256, (40, 52, 3), "uint8")).save(tmp_path / "a.png")
    result = predict_folder(model, tmp_path / "a.png", tmp_path / "out")
    assert not result.failed
    rows, columns = read_mask(tmp_path / "out" / "a.png").shape
    assert (rows, columns) == (1 + (40 - 24) // 2, 1 + (52 - 24) // 2)
    overlay = Image.open(tmp_path / "out" / "a_overlay.png")
    assert overlay.width >= 2 * columns and overlay.height >= 2 * rows


def test_a_coarse_map_of_a_fixed_size_is_laid_over_the_whole_image(rng):
    image = keras.Input((24, 32, 3))
    maps = keras.layers.Conv2D(4, 3, strides=4, padding="same")(image)
    gate = keras.layers.GlobalAveragePooling2D(keepdims=True)(maps)
    model = keras.Model(image, keras.layers.Multiply()([maps, gate]))
    labels = np.zeros((6, 8), int)
    labels[2, 3] = 1
    picture = draw_classes(model, np.zeros((24, 32, 3), "uint8"), labels, Classes.default(4))
    shown = np.argwhere(np.asarray(picture)[:24, :32, 0] > 0)
    assert shown.min(0).tolist() == [8, 12] and shown.max(0).tolist() == [11, 15]
