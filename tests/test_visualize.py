import csv
import sys

import forked
import keras
import matplotlib
import numpy as np
import pytest
import scipy.stats
from matplotlib.figure import Figure
from PIL import Image

import keras_fcn
from keras_fcn.datasets import SOURCES
from keras_fcn.visualize import (
    PALETTES,
    VOID_COLOR,
    comparison,
    entropy_map,
    error_map,
    overlay,
    paint,
    probability_map,
    training_curves,
    voc_palette,
    write_label_map,
    write_png,
)
from keras_fcn.visualize.pictures import ERROR_COLORS

PALETTE = [[255, 0, 0], [0, 255, 0], [0, 0, 255]]


def test_voc_palette_is_the_development_kits():
    palette = voc_palette(21)
    assert palette[15].tolist() == [192, 128, 128]  # person
    assert palette[20].tolist() == [0, 64, 128]  # tv/monitor
    assert len(np.unique(voc_palette(256), axis=0)) == 256


def test_label_map_png_holds_the_classes_and_shows_their_colours(rng, tmp_path):
    labels = rng.integers(0, 3, (7, 9))
    write_label_map(tmp_path / "labels.png", labels, PALETTE)
    assert [file.name for file in tmp_path.iterdir()] == ["labels.png"]
    picture = Image.open(tmp_path / "labels.png")
    np.testing.assert_array_equal(np.asarray(picture), labels)
    np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), np.asarray(PALETTE)[labels])


def test_more_classes_than_a_palette_has_make_16_bits(rng, tmp_path):
    labels = rng.integers(0, 300, (7, 9))
    write_label_map(tmp_path / "labels.png", labels, voc_palette(300))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "labels.png")), labels)
    write_label_map(tmp_path / "void.png", labels + 65535 - 299, voc_palette(3))
    assert np.asarray(Image.open(tmp_path / "void.png")).max() <= 65535
    for wrong in (-1, 65536):
        with pytest.raises(ValueError, match=r"labels from 0 to 65535. Received: "):
            write_label_map(tmp_path / "labels.png", np.array([[0, wrong]]), PALETTE)


def test_files_of_the_user_beside_are_left_alone(tmp_path):
    (tmp_path / ".labels.png").symlink_to(tmp_path / "target")
    (tmp_path / "target").write_text("mine")
    write_label_map(tmp_path / "labels.png", np.zeros((2, 2), int), PALETTE)
    assert (tmp_path / "target").read_text() == "mine"
    assert (tmp_path / ".labels.png").is_symlink()


def test_overlay_of_a_gray_image_without_channels_and_of_labels_that_are_none():
    image, labels = np.full((4, 5), 100, "uint8"), np.ones((4, 5), int)
    picture = overlay(image, labels, PALETTE, "abc")
    assert picture.getpixel((0, 0)) == (50, 178, 50)
    with pytest.raises(ValueError, match=r"0 to 2, or `ignore`. Received: 1 to 255"):
        overlay(image, np.where(np.eye(4, 5), 255, 1), PALETTE, "abc")
    with pytest.raises(ValueError, match=r"an image of \(4, 5, 4\)"):
        overlay(np.zeros((4, 5, 4)), labels, PALETTE, "abc")


def test_our_own_file_is_replaced_and_others_are_kept(tmp_path):
    path = tmp_path / "labels.png"
    write_label_map(path, np.zeros((2, 2), int), PALETTE)
    write_label_map(path, np.ones((2, 2), int), PALETTE)
    assert np.asarray(Image.open(path)).all()
    Image.new("L", (2, 2)).save(path)
    with pytest.raises(FileExistsError, match="did not write it"):
        write_label_map(path, np.ones((2, 2), int), PALETTE)
    assert not np.asarray(Image.open(path)).any()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(1, 1), (40, 60), (50, 400)])
def test_overlay_mixes_colours_and_grows_by_the_legend(size, channels):
    image = np.full((*size, channels), 100, "uint8")
    labels = np.zeros(size, int)
    labels[:, size[1] // 2 :] = 2
    picture = np.asarray(overlay(image, labels, PALETTE, ["sky", "building", "tree"]))
    np.testing.assert_array_equal(picture[0, size[1] - 1], [50, 50, 178])
    assert picture.shape[0] > size[0]
    assert (picture[size[0] :] == [0, 0, 255]).all(axis=-1).any()  # the swatch of "tree"
    assert not (picture[size[0] :] == [0, 255, 0]).all(axis=-1).any()  # no "building" occurs


def test_palettes_are_those_of_the_data_sets():
    assert PALETTES["voc_segmentation"].tolist() == voc_palette(21).tolist()
    assert PALETTES["camvid"].tolist() == keras_fcn.pretrained()["unet_camvid"]["palette"]
    colors = dict(zip(SOURCES["cityscapes"].classes, PALETTES["cityscapes"].tolist(), strict=True))
    assert colors["road"] == [128, 64, 128]
    assert colors["traffic sign"] == [220, 220, 0]
    assert colors["sky"] == [70, 130, 180]
    assert colors["bicycle"] == [119, 11, 32]


@pytest.mark.parametrize("name", ["voc_segmentation", "camvid", "cityscapes"])
def test_every_class_has_a_colour_of_its_own(name):
    palette = PALETTES[name]
    assert palette.dtype == "uint8"
    assert palette.shape == (len(SOURCES[name].classes), 3)
    assert len(np.unique([*palette, VOID_COLOR, ERROR_COLORS[1]], axis=0)) == len(palette) + 2


def random_probabilities(rng, num_classes):
    return rng.dirichlet(np.full(num_classes, 0.5), (30, 40)).astype("float32")


def test_probability_map_is_the_colour_map_of_one_class(rng):
    probabilities = random_probabilities(rng, 4)
    picture = probability_map(probabilities, label=2)
    colors = matplotlib.colormaps["viridis"](probabilities[..., 2], bytes=True)[..., :3]
    np.testing.assert_array_equal(np.asarray(picture), colors)
    assert (picture.mode, picture.size) == ("RGB", (40, 30))
    assert probability_map(probabilities[..., :1], 0).size == (40, 30)  # a sigmoid output


@pytest.mark.parametrize("num_classes", [2, 11])
def test_entropy_is_that_of_scipy(rng, num_classes):
    probabilities = random_probabilities(rng, num_classes)
    picture = np.asarray(entropy_map(probabilities), int)
    entropy = scipy.stats.entropy(probabilities, axis=-1, base=num_classes)
    colors = matplotlib.colormaps["magma"](entropy, bytes=True)[..., :3]
    assert abs(picture - colors).max() <= 5  # two neighbouring colours of the 256
    assert (picture != colors).any(axis=-1).mean() < 0.01


def test_entropy_of_the_certain_and_of_the_uniform():
    certain, uniform = np.eye(5)[0], np.full(5, 0.2)
    picture = np.asarray(entropy_map(np.float32([[certain, uniform]])))
    colors = matplotlib.colormaps["magma"]([0, 255], bytes=True)[:, :3]
    np.testing.assert_allclose(picture[0], colors, atol=5)
    assert not picture[0, 0, :2].any()


def test_maps_take_what_predict_image_returns():
    model = keras_fcn.UNet(num_classes=3, filters=(2, 2))
    probabilities = keras_fcn.predict_image(model, np.zeros((9, 14, 3), "uint8"))
    assert entropy_map(probabilities).size == probability_map(probabilities, 1).size == (14, 9)


def test_scores_that_are_no_probabilities_are_refused(rng):
    probabilities = random_probabilities(rng, 3)
    with pytest.raises(ValueError, match=r"scipy\.special\.softmax"):
        probability_map(probabilities * 4 - 1, 0)
    with pytest.raises(ValueError, match=r"in \[0, 1\]. Received: values from nan"):
        entropy_map(np.full((2, 2, 2), np.nan))
    with pytest.raises(ValueError, match=r"Received: shape=\(30, 40\)"):
        probability_map(probabilities[..., 0], 0)
    with pytest.raises(ValueError, match=r"0 to 2\. Received: label=3"):
        probability_map(probabilities, 3)
    with pytest.raises(ValueError, match="add up to 1"):
        entropy_map(probabilities / 2)
    with pytest.raises(ValueError, match="1 classes"):
        entropy_map(np.ones((2, 2, 1)))


def test_painted_labels_have_their_colours_and_void_its_own(rng):
    labels = rng.integers(0, 3, (7, 9)).astype("uint8")
    labels[0] = 255
    colors = paint(labels, PALETTE, 255, VOID_COLOR)
    assert colors.dtype == "uint8"
    assert (colors[0] == VOID_COLOR).all()
    np.testing.assert_array_equal(colors[1:], np.asarray(PALETTE)[labels[1:]])
    for wrong in (3, -1):
        with pytest.raises(ValueError, match=f"0 to 2, or `ignore`. Received: .*{wrong}"):
            paint(np.array([[0, wrong]]), PALETTE, 255, VOID_COLOR)


def test_error_map_marks_the_wrong_pixels_and_no_other(rng):
    truth = rng.integers(0, 3, (20, 30)).astype("uint8")
    prediction = rng.integers(0, 3, (20, 30))
    truth[3:5] = 255
    picture = np.asarray(error_map(truth, prediction, ignore=255))
    void = truth == 255
    red = (picture == ERROR_COLORS[1]).all(axis=-1)
    np.testing.assert_array_equal((picture == VOID_COLOR).all(axis=-1), void)
    np.testing.assert_array_equal(red, (truth != prediction) & ~void)
    assert (picture[~red & ~void] == 255).all()
    np.testing.assert_array_equal(np.asarray(error_map(prediction, prediction)), 255)
    with pytest.raises(ValueError, match="one shape"):
        error_map(truth, prediction[:3])


def test_comparison_shows_four_panels_a_row_and_the_classes_that_occur():
    truth = np.zeros((20, 30), int)
    truth[:, 10:] = 2
    truth[0] = 255
    prediction = np.zeros((20, 30), int)
    gray = np.full((20, 30, 1), 90, "uint8")
    tall = np.zeros((50, 20, 3), "uint8"), np.zeros((50, 20), int), np.zeros((50, 20), int)
    figure = comparison([(gray, truth, prediction), tall], PALETTE, ["sky", "road", "tree"], 255)
    assert isinstance(figure, Figure)
    panels = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    assert [panel.shape for panel in panels] == [(20, 30, 3)] * 4 + [(50, 20, 3)] * 4
    assert (panels[0] == 90).all()
    np.testing.assert_array_equal(panels[1], paint(truth, PALETTE, 255, VOID_COLOR))
    np.testing.assert_array_equal(panels[2], paint(prediction, PALETTE, 255, VOID_COLOR))
    np.testing.assert_array_equal(panels[3], error_map(truth, prediction, 255))
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["image", "truth", "prediction", "errors", "", "", "", ""]
    assert figure.axes[3].get_xlabel() == "66.7% wrong"
    assert figure.axes[7].get_xlabel() == "0.0% wrong"
    legend = {
        text.get_text(): patch.get_facecolor()[:3]
        for text, patch in zip(
            figure.legends[0].get_texts(), figure.legends[0].get_patches(), strict=True
        )
    }
    assert list(legend) == ["sky", "tree", "wrong", "void"]
    assert legend["tree"] == (0, 0, 1)


def test_comparison_refuses_what_does_not_fit():
    image, labels = np.zeros((4, 4, 3), "uint8"), np.zeros((4, 4), int)
    with pytest.raises(ValueError, match=r"one \(image, truth, prediction\) or more"):
        comparison([], PALETTE, ["a", "b", "c"])
    with pytest.raises(ValueError, match=r"0 to 2, or `ignore`"):
        comparison([(image, labels + 255, labels)], PALETTE, ["a", "b", "c"])
    with pytest.raises(ValueError, match=r"argmax\(-1\)"):
        comparison([(image, labels, np.zeros((4, 4, 3)))], PALETTE, ["a", "b", "c"])


def read_curves(figure):
    """Return {title: {label: y values}}, with a check that epochs count from 1."""
    curves = {}
    for axes in figure.axes:
        lines = {line.get_label(): line.get_ydata().tolist() for line in axes.lines}
        assert all(line.get_xdata()[0] == 1 for line in axes.lines)
        curves[axes.get_title()] = lines
    return curves


def test_training_curves_show_every_number_of_the_log(tmp_path):
    log = tmp_path / "log.csv"
    with log.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", "accuracy", "loss", "val_accuracy", "val_loss"])
        writer.writerows([[0, 0.25, 2.5, 0.125, 3], [1, 0.5, 1.5, "NA", "NA"]])
    figure = training_curves(log)
    curves = read_curves(figure)
    assert list(curves) == ["loss", "accuracy"]
    assert curves["loss"]["training"] == [2.5, 1.5]
    assert curves["loss"]["validation"][0] == 3
    assert np.isnan(curves["loss"]["validation"][1])
    assert curves["accuracy"]["training"] == [0.25, 0.5]
    write_png(tmp_path / "curves.png", figure)
    assert Image.open(tmp_path / "curves.png").size == (800, 300)


def test_training_curves_of_what_keras_logs(tmp_path):
    logger = keras.callbacks.CSVLogger(tmp_path / "log.csv", separator=";")
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    history = model.fit(np.ones((4, 2)), np.ones(4), epochs=3, verbose=0, callbacks=[logger])
    curves = read_curves(training_curves(tmp_path / "log.csv"))
    assert list(curves) == ["loss"]
    np.testing.assert_allclose(curves["loss"]["training"], history.history["loss"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "columns epoch and loss. Received: .*''"),
        ("a,b\n1,2\n", "whose first line is 'a,b'"),
        ("epoch\n0\n", "whose first line is 'epoch'"),
        ("epoch,loss\n", "only the names"),
        ("epoch,loss\n0,1\n1\n", "2 numbers: epoch, loss. Received: .*log.csv"),
        ("epoch,loss\n0\n", "2 numbers: epoch, loss"),
        ("epoch,loss\n0,high\n", "'high'"),
    ],
)
def test_other_files_are_no_logs(tmp_path, text, message):
    log = tmp_path / "log.csv"
    log.write_text(text)
    with pytest.raises(ValueError, match=message):
        training_curves(log)
    with pytest.raises(FileNotFoundError):
        training_curves(tmp_path / "none.csv")


def test_figures_replace_our_own_files_only(tmp_path):
    path = tmp_path / "figure.png"
    write_png(path, Figure((2, 1), dpi=50))
    write_png(path, Figure((4, 1), dpi=50))
    assert Image.open(path).size == (200, 50)
    assert [file.name for file in tmp_path.iterdir()] == ["figure.png"]
    Figure().savefig(path)
    with pytest.raises(FileExistsError, match="did not write it"):
        write_png(path, Figure())


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'keras-fcn\[figures\]'"):
        entropy_map(np.full((2, 2, 2), 0.5))
    with pytest.raises(ImportError, match="figures"):
        training_curves("log.csv")


@pytest.mark.slow
def test_pictures_of_the_readme_are_made_by_a_command(pytestconfig, tmp_path):
    script = pytestconfig.rootpath / "tools" / "make_pictures.py"
    forked.run([script, "--output", tmp_path], check=True)
    for name in ("china_overlay.png", "unet.png", "fcn8s.png"):
        assert (tmp_path / name).stat().st_size < 300_000
        assert (pytestconfig.rootpath / "docs" / name).exists()
