"""Stacks: which files are some, and their images are those of files of their own."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from keras_fcn.datasets.images import FileError, read_image
from keras_fcn.datasets.stacks import count_pages, read_stack


def numbers(*shape, dtype="uint8"):
    high = np.iinfo(dtype).max if dtype != "float32" else 255
    return np.random.default_rng(0).integers(0, high, shape).astype(dtype)


def save_pages(path, pages, **options):
    first, *rest = [Image.fromarray(page) for page in pages]
    first.save(path, save_all=True, append_images=rest, **options)


# what is written, how, the channels of the network, and the images (n, height, width, bands)
STACKS = {
    "gray array": (numbers(5, 40, 50), {}, 1, lambda x: x[..., None]),
    "gray array for colours": (numbers(5, 40, 50), {}, 3, lambda x: np.stack([x] * 3, -1)),
    "16 bits": (numbers(5, 40, 50, dtype="uint16"), {}, 1, lambda x: np.rint(x[..., None] / 257)),
    "colours": (numbers(5, 40, 50, 3), {"photometric": "rgb"}, 3, lambda x: x),
    "bands written row by row": (numbers(5, 40, 50, 4), {}, 4, lambda x: x),
    "ImageJ": (
        numbers(5, 40, 50),
        {"imagej": True, "metadata": {"axes": "ZYX"}},
        1,
        lambda x: x[..., None],
    ),
    "an old ImageJ": (
        numbers(5, 40, 50),
        {"description": "ImageJ=1.53\nimages=5\n", "metadata": None, "photometric": "minisblack"},
        1,
        lambda x: x[..., None],
    ),
    "ImageJ, two channels": (
        numbers(5, 2, 40, 50),
        {"imagej": True, "metadata": {"axes": "ZCYX"}},
        2,
        lambda x: np.moveaxis(x, 1, -1),
    ),
    "OME, channels first": (
        numbers(2, 5, 40, 50),
        {"ome": True, "metadata": {"axes": "CZYX"}},
        2,
        lambda x: np.moveaxis(x, 0, -1),
    ),
    "times and depths": (
        numbers(2, 3, 40, 50),
        {"imagej": True, "metadata": {"axes": "TZYX"}},
        1,
        lambda x: x.reshape(6, 40, 50, 1),
    ),
    "small white": (
        numbers(5, 40, 50),
        {"photometric": "miniswhite"},
        1,
        lambda x: 255 - x[..., None],
    ),
}


@pytest.mark.parametrize("name", STACKS)
def test_stacks(name, tmp_path):
    pixels, options, channels, images = STACKS[name]
    path = tmp_path / ("a.ome.tif" if "ome" in options else "a.tif")
    tifffile.imwrite(path, pixels, **options)
    expected = images(pixels)
    assert count_pages(path, channels) == len(expected)
    np.testing.assert_array_equal(np.stack(list(read_stack(path, channels))), expected)


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "CMYK"])
def test_pages_of_other_programs(mode, tmp_path):
    pages = [Image.fromarray(page).convert(mode) for page in numbers(4, 30, 20, 3)]
    pages[0].save(
        tmp_path / "a.tif", save_all=True, append_images=pages[1:], compression="tiff_lzw"
    )
    assert count_pages(tmp_path / "a.tif", 3) == 4
    for page, image in zip(pages, read_stack(tmp_path / "a.tif", 3), strict=True):
        np.testing.assert_array_equal(image, page.convert("RGB"))


def test_pages_of_several_sizes(tmp_path):
    pages = [numbers(30, 20), numbers(9, 11), numbers(30, 20)]
    save_pages(tmp_path / "a.tif", pages)
    assert count_pages(tmp_path / "a.tif", 1) == 3
    images = list(read_stack(tmp_path / "a.tif", 1))
    assert [image.shape for image in images] == [(30, 20, 1), (9, 11, 1), (30, 20, 1)]


def test_pages_are_turned_as_files_are(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    page = numbers(30, 20)
    Image.fromarray(page).save(tmp_path / "one.tif", exif=exif)
    save_pages(tmp_path / "two.tif", [page, page], exif=exif)
    expected = read_image(tmp_path / "one.tif")
    np.testing.assert_array_equal(next(read_stack(tmp_path / "two.tif")), expected)


@pytest.mark.parametrize(
    ("pixels", "options", "channels"),
    [
        (numbers(40, 50), {}, 1),
        (numbers(40, 50, 3), {"photometric": "rgb"}, 3),
        (numbers(4, 40, 50), {"photometric": "minisblack"}, 4),  # bands
        (numbers(40, 50, 4), {}, 4),  # a page for each row
        (numbers(2, 40, 50), {"imagej": True, "metadata": {"axes": "CYX"}}, 2),
    ],
)
def test_files_of_one_image(pixels, options, channels, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", pixels, **options)
    assert count_pages(tmp_path / "a.tif", channels) is None
    assert read_image(tmp_path / "a.tif", channels).shape == (40, 50, channels)


def test_what_is_no_tiff_is_no_stack(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"II*\0 cut short")
    (tmp_path / "b.tif").write_text("text")
    for name in ("a.tif", "b.tif", "none.tif", "."):
        assert count_pages(tmp_path / name, 1) is None


def test_the_limit_of_pixels_is_of_an_image(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", numbers(5, 40, 50))
    assert len(list(read_stack(tmp_path / "a.tif", 1, max_pixels=2000))) == 5
    with pytest.raises(FileError, match=r"2,000 pixels, and a limit of 1,999"):
        list(read_stack(tmp_path / "a.tif", 1, max_pixels=1999))


def test_dark_pages_are_asked_about_once(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", numbers(5, 40, 50, dtype="uint16") // 16)
    with pytest.warns(UserWarning, match=r"12 bits.*`white=4095`") as warned:
        list(read_stack(tmp_path / "a.tif", 1))
    assert len(warned) == 1
