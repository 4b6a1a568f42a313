import numpy as np
import pytest
from PIL import Image

from keras_fcn.visualize import overlay, voc_palette, write_label_map

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
