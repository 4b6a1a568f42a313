"""One reader of images: what files say is heeded, refused with a remedy, or asked about."""

import struct
import warnings
import zlib

import numpy as np
import pytest
import tensorflow as tf
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from keras_fcn.datasets.doubts import TRANSPARENT
from keras_fcn.datasets.files import FileError, read_image, read_mask
from keras_fcn.datasets.images import count_bands
from keras_fcn.datasets.stacks import count_pages
from keras_fcn.remedies import on_the_command_line


def save(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


def save_deep_png(path, pixels):
    path.write_bytes(tf.io.encode_png(pixels).numpy())
    return path


def twelve_bits(rng, *shape):
    pixels = rng.integers(0, 4096, shape).astype("uint16")
    pixels.flat[0] = 4095
    return pixels


WRITERS = {
    "gray png": ((7, 9, 1), lambda path, pixels: save(path, pixels[..., 0]), ".png"),
    "rgb png": ((7, 9, 3), save_deep_png, ".png"),
    "gray tiff": ((7, 9, 1), lambda path, pixels: save(path, pixels[..., 0]), ".tif"),
    "rgb tiff": (
        (7, 9, 3),
        lambda path, pixels: tifffile.imwrite(path, pixels, photometric="rgb"),
        ".tif",
    ),
    "planar tiff": (
        (7, 9, 3),
        lambda path, pixels: tifffile.imwrite(
            path, np.moveaxis(pixels, -1, 0), photometric="rgb", planarconfig="separate"
        ),
        ".tif",
    ),
    "npy": ((7, 9, 3), lambda path, pixels: np.save(path, pixels), ".npy"),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_twelve_bits_in_sixteen_are_asked_about_and_read_with_white(tmp_path, rng, kind):
    shape, write, suffix = WRITERS[kind]
    pixels = twelve_bits(rng, *shape)
    path = tmp_path / f"image{suffix}"
    write(path, pixels)
    with pytest.warns(UserWarning, match=r"at most 12 bits.*`white=4095`"):
        dark = read_image(path)
    np.testing.assert_array_equal(dark, np.rint(pixels / 65535 * 255))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(read_image(path, white=4095), np.rint(pixels / 4095 * 255))
    with on_the_command_line(), pytest.warns(UserWarning, match=r"`--white 4095`"):
        read_image(path)
    with pytest.raises(FileError, match=r"Pass a larger `white`, as `white=4095`"):
        read_image(path, white=1023)


def ome(bits):
    return (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        f'<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" '
        f'SignificantBits="{bits}" SizeX="9" SizeY="7" SizeC="1" SizeZ="1" SizeT="1">'
        '<TiffData IFD="0"/></Pixels></Image></OME>'
    )


@pytest.mark.parametrize(
    "options",
    [
        {"extratags": [(281, "H", 1, 4095, True)]},
        {"imagej": True, "metadata": {"min": 0.0, "max": 4095.0}},
        {"description": ome(12), "metadata": None},
    ],
    ids=["MaxSampleValue", "ImageJ", "OME"],
)
def test_white_is_what_the_file_says(tmp_path, rng, options):
    pixels = twelve_bits(rng, 7, 9)
    tifffile.imwrite(tmp_path / "image.tif", pixels, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = read_image(tmp_path / "image.tif")
    np.testing.assert_array_equal(image[..., 0], np.rint(pixels / 4095 * 255))


@pytest.mark.parametrize("suffix", [".tif", ".npy"])
@pytest.mark.parametrize(
    ("dtype", "top"), [("int8", 127), ("int16", 32767), ("uint16", 65535), ("int32", 65535)]
)
def test_white_of_integers_is_the_largest_of_their_bits(tmp_path, dtype, top, suffix):
    pixels = np.linspace(0, top, 128).round().astype(dtype).reshape(8, 16)
    path = tmp_path / f"a{suffix}"
    tifffile.imwrite(path, pixels) if suffix == ".tif" else np.save(path, pixels)
    expected = (pixels.astype(float) * (255 / top)).round()
    np.testing.assert_array_equal(read_image(path, 1)[..., 0], expected)
    assert expected.max() == 255


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_three_bands_that_are_not_said_to_be_colours(tmp_path, rng, planar):
    pixels = rng.integers(0, 256, (8, 12, 3), "uint8")
    stored = pixels if planar == "contig" else np.moveaxis(pixels, -1, 0).copy()
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stored, photometric="minisblack", planarconfig=planar)
    np.testing.assert_array_equal(read_image(path, 3), pixels)
    assert read_image(path, 1).shape == (8, 12, 1)
    assert count_bands(path) == 3


def test_arrays_of_gray_and_of_colours_become_each_other(tmp_path, rng):
    pixels = rng.integers(0, 256, (8, 12, 3), "uint8")
    gray = pixels[..., :1]
    path = tmp_path / "a.npy"
    for stored in (gray, np.moveaxis(gray, -1, 0), gray[..., 0]):
        np.save(path, stored)
        np.testing.assert_array_equal(read_image(path, 3), np.repeat(gray, 3, -1))
        np.testing.assert_array_equal(read_image(path, 1), gray)
    expected = np.asarray(Image.fromarray(pixels).convert("L"))
    for stored in (pixels, np.moveaxis(pixels, -1, 0)):
        np.save(path, stored)
        np.testing.assert_array_equal(read_image(path, 1)[..., 0], expected)
        np.testing.assert_array_equal(read_image(path, 3), pixels)
    with pytest.raises(FileError, match="where 5 bands are wanted"):
        read_image(path, 5)


def test_a_display_range_is_no_white(tmp_path, rng):
    """ImageJ's range of one image, as automatic contrast sets it, would differ from the next's."""
    pixels = np.minimum(twelve_bits(rng, 7, 9), 3000)
    metadata = {"min": 10.0, "max": 3127.0}
    tifffile.imwrite(tmp_path / "image.tif", pixels, imagej=True, metadata=metadata)
    with pytest.warns(UserWarning, match="at most 12 bits"):
        read_image(tmp_path / "image.tif")


@pytest.mark.filterwarnings("ignore:Transparency, the last band")  # where channels do not fit
@pytest.mark.parametrize("bands", [2, 4, 5, 8])
@pytest.mark.parametrize("suffix", [".tif", ".npy"])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_bands_for_networks_of_as_many_channels(tmp_path, rng, bands, suffix, first, planar):
    pixels = rng.integers(0, 256, (30, 40, bands)).astype("uint8")
    stored = np.moveaxis(pixels, -1, 0) if first else pixels
    path = tmp_path / f"image{suffix}"
    if suffix == ".npy":
        np.save(path, stored)
    elif planar == "contig" and bands == 4:  # red, green, blue and transparency
        config = "separate" if first else "contig"
        tifffile.imwrite(path, stored, photometric="rgb", planarconfig=config)
    elif planar == "contig":
        tifffile.imwrite(path, stored)
    else:
        stored = np.moveaxis(pixels, -1, 0)
        tifffile.imwrite(path, stored, photometric="minisblack", planarconfig="separate")
    np.testing.assert_array_equal(read_image(path, channels=bands), pixels)
    for channels in {6, *([] if bands == 4 and planar == "contig" else [1, 3])}:  # RGB and alpha
        with pytest.raises(FileError):
            read_image(path, channels=channels)


def test_a_fourth_band_is_kept_or_refused_but_transparency_is_dropped(tmp_path, rng):
    pixels = rng.integers(0, 256, (7, 9, 4)).astype("uint8")
    band, clear = tmp_path / "band.tif", tmp_path / "clear.png"
    tifffile.imwrite(band, pixels, photometric="rgb", extrasamples=["unspecified"])
    with pytest.raises(FileError, match="4 bands, where 3 are wanted"):
        read_image(band, channels=3)
    np.testing.assert_array_equal(read_image(band, channels=4), pixels)
    assert read_image(band).shape == (7, 9, 4)
    save(clear, pixels)
    with pytest.warns(UserWarning, match=TRANSPARENT[:20]):
        np.testing.assert_array_equal(read_image(clear), pixels[..., :3])
    np.testing.assert_array_equal(read_image(clear, channels=4), pixels)
    assert (count_bands(band), count_bands(clear)) == (4, 3)


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "P"])
def test_a_colour_that_is_transparent_is_transparency(tmp_path, mode):
    """PNG's tRNS, of which no band tells."""
    path = tmp_path / "a.png"
    picture = Image.fromarray(np.eye(6, 8, dtype="uint8") * 255).convert(mode)
    clear = (255, 255, 255) if mode == "RGB" else picture.getpixel((0, 0))
    picture.save(path, transparency=clear)
    bands = 1 if mode in "1L" else 3
    with pytest.warns(UserWarning, match=TRANSPARENT[:20]):
        np.testing.assert_array_equal(read_image(path)[..., 0], np.eye(6, 8) * 255)
    assert count_bands(path) == bands
    np.testing.assert_array_equal(read_image(path, bands + 1)[..., -1], 255 - 255 * np.eye(6, 8))
    if mode != "RGB":
        labels = np.eye(6, 8, dtype=bool)
        np.testing.assert_array_equal(read_mask(path) == read_mask(path)[0, 0], labels)


def test_tiffs_of_other_kinds_of_colours(tmp_path, rng):
    """Palettes, CMYK and Lab are shown as colours; in miniswhite files the largest is black."""
    pixels = rng.integers(0, 256, (30, 40, 3)).astype("uint8")
    # of YCbCr Pillow 12 reads what it has compressed as JPEG, and not its own raw files
    for mode, options in (
        ("P", {}),
        ("PA", {}),
        ("CMYK", {}),
        ("YCbCr", {"compression": "jpeg"}),
        ("LAB", {}),
    ):
        path = tmp_path / "a.tif"
        Image.fromarray(pixels).convert(mode).save(path, **options)
        np.testing.assert_array_equal(read_image(path), Image.open(path).convert("RGB"))
        assert count_bands(path) == 3
    gray = pixels[..., 0]
    for dtype, full in (("uint8", 255), ("uint16", 65535)):
        stored = (full - gray.astype(dtype)).astype(dtype)
        tifffile.imwrite(tmp_path / "b.tif", stored, photometric="miniswhite")
        np.testing.assert_array_equal(read_image(tmp_path / "b.tif", white=255)[..., 0], gray)


def test_floats_need_a_white(tmp_path, rng):
    pixels = rng.random((30, 40, 3)).astype("float32")
    for path in (tmp_path / "a.npy", tmp_path / "a.tif"):
        if path.suffix == ".npy":
            np.save(path, pixels)
        else:
            tifffile.imwrite(path, pixels, photometric="rgb")
        with pytest.raises(FileError, match=r"floats in \[.*as `white=1`"):
            read_image(path)
        np.testing.assert_array_equal(read_image(path, white=1), np.rint(pixels * 255))
    for value, message in ((np.nan, "finite"), (np.inf, "finite"), (-1, "0 or more")):
        np.save(tmp_path / "a.npy", np.where(pixels > 0.5, pixels, value))
        with pytest.raises(FileError, match=message):
            read_image(tmp_path / "a.npy", white=1)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_exif_orientations(tmp_path, orientation, suffix):
    """As Pillow turns them, and as stored where only that fits the mask."""
    from PIL import ImageOps

    pixels = np.arange(48, dtype="uint8").reshape(6, 8) * 5
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"lossless": True} if suffix == ".webp" else {}
    path = save(tmp_path / f"a{suffix}", np.dstack([pixels] * 3), exif=exif, **lossless)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
    np.testing.assert_array_equal(read_image(path), expected)
    stored = read_image(path, mask_shape=(6, 8))
    assert stored.shape == (6, 8, 3)
    if orientation > 4 and suffix != ".jpg":
        np.testing.assert_array_equal(stored[..., 0], pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32"])
def test_gray_tiffs_are_turned_whole_and_their_masks_alike(tmp_path, orientation, dtype):
    """Pillow 12 scrambles them where they lie in the file in one piece."""
    stored = np.arange(48).reshape(6, 8)
    turns = [
        lambda x: x, lambda x: x[:, ::-1], lambda x: x[::-1, ::-1], lambda x: x[::-1],
        lambda x: x.T, lambda x: np.rot90(x, -1), lambda x: x[::-1, ::-1].T, np.rot90,
    ]  # fmt: skip
    upright = turns[orientation - 1](stored)
    tag = [(274, "H", 1, orientation, True)]
    tifffile.imwrite(tmp_path / "a.tif", stored.astype(dtype), extratags=tag)
    white = None if dtype == "uint8" else 255
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif", white=white)[..., 0], upright)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.tif"), upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored.astype("uint8")).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), upright)


@pytest.mark.parametrize("bands", [1, 3, 5])
def test_overviews_and_valid_pixels_of_a_geotiff_are_no_images(tmp_path, bands):
    """As GDAL writes them: smaller copies, and a page that says where there is data."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 64, bands)).astype("uint8")
    photometric = "rgb" if bands == 3 else "minisblack"
    how = {"photometric": photometric, "metadata": None}
    how |= {"planarconfig": "contig"} if bands > 1 else {}
    stored = pixels if bands > 1 else pixels[..., 0]
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(stored, **how)
        file.write(np.ones((40, 64), bool), photometric=4, subfiletype=4, metadata=None)
        file.write(stored[::2, ::2], subfiletype=1, **how)
        file.write(stored[::4, ::4], subfiletype=1, **how)
    for channels in (None, bands):
        assert count_pages(tmp_path / "a.tif", channels) is None
        np.testing.assert_array_equal(read_image(tmp_path / "a.tif", channels), pixels)
    assert count_bands(tmp_path / "a.tif") == bands
    if bands == 1:
        np.testing.assert_array_equal(read_mask(tmp_path / "a.tif"), pixels[..., 0])


def test_a_piece_of_a_tiff_that_is_unpacked_to_far_more_is_refused(tmp_path):
    path = tmp_path / "a.tif"
    pixels = np.ones((16, 16, 3), "float32")
    tifffile.imwrite(path, pixels, tile=(16, 16), compression="zlib", photometric="rgb")
    np.testing.assert_array_equal(read_image(path, white=1), 255 * pixels)
    with tifffile.TiffFile(path) as file:
        tags = [file.pages[0].tags[f"Tile{name}"] for name in ("Offsets", "ByteCounts")]
    data, bomb = bytearray(path.read_bytes()), zlib.compress(bytes(2**27), 9)
    for tag, value in zip(tags, (len(data), len(bomb)), strict=True):
        data[tag.valueoffset : tag.valueoffset + 4] = value.to_bytes(4, "little")
    path.write_bytes(data + bomb)
    with pytest.raises(FileError, match=r"a\.tif', a piece of more than its 3,072 bytes"):
        read_image(path, white=1)


@pytest.mark.parametrize("options", [{}, {"bigtiff": True}, {"byteorder": ">"}])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])  # read by Pillow, and by tifffile
def test_pages_that_lead_back_are_refused(tmp_path, options, dtype):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path, **options) as file:
        for value in range(3):
            file.write(np.full((8, 6), value, dtype), photometric="minisblack", metadata=None)
    with tifffile.TiffFile(path) as file:
        tiff, places = file.tiff, [page.offset for page in file.pages]
        last = places[2] + tiff.tagnosize + len(file.pages[2].tags) * tiff.tagsize
    assert count_pages(path) == 3
    data = bytearray(path.read_bytes())
    for place in places:
        data[last : last + tiff.offsetsize] = struct.pack(tiff.offsetformat, place)
        path.write_bytes(data)
        for read in (read_image, read_mask):
            with pytest.raises(FileError, match=r"a\.tif', its pages lead back to one before"):
                read(path)
        assert count_pages(path) is None


def test_what_is_no_image_is_told_with_a_remedy_that_fits(tmp_path):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("<html>404</html>")
    (tmp_path / "text.npy").write_text("<html>404</html>")
    np.save(tmp_path / "pickle.npy", np.array([{}], object))
    Image.new("L", (8, 6)).save(tmp_path / "program.png", "EPS")  # Pillow would have it run
    frames = [Image.new("L", (8, 6), color) for color in (0, 255)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    expected = {
        "folder.png": "not a file",
        "link.png": "broken link",
        "empty.png": "unreadable",
        "text.png": "unreadable",
        "text.npy": "unreadable",
        "pickle.npy": "unreadable",
        "program.png": "unreadable",
        "moving.gif": "frames",
    }
    for name, kind in expected.items():
        for read in (read_image, read_mask, count_bands):
            if (name, read) == ("moving.gif", count_bands):
                continue  # reads the header only
            with pytest.raises(FileError) as error:
                read(tmp_path / name)
            assert error.value.kind == kind
            assert ("again" in str(error.value)) == (kind == "unreadable" and name != "program.png")
            assert ("PostScript" in str(error.value)) == (name == "program.png")
    with pytest.raises(FileNotFoundError, match=r"no file.*none\.png"):
        read_image(tmp_path / "none.png")


def test_large_images_are_refused_with_the_limit_that_takes_them(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    for name in ("a.png", "a.tif", "b.tif", "a.npy"):
        path, pixels = tmp_path / name, np.zeros((20, 30), "uint8")
        how = {"compression": "tiff_lzw"} if name == "b.tif" else {}
        np.save(path, pixels) if path.suffix == ".npy" else save(path, pixels, **how)
        for read in (read_image, read_mask):
            with pytest.raises(FileError, match=r"600 pixels, .*100.*`max_pixels=600`") as error:
                read(path)
            assert error.value.kind == "large"
            assert read(path, max_pixels=600).shape[:2] == (20, 30)
            with on_the_command_line(), pytest.raises(FileError, match="`--max-pixels 600`"):
                read(path)
    assert Image.MAX_IMAGE_PIXELS == 50


@pytest.mark.parametrize("name", ["a.npy", "a.tif"])
@pytest.mark.parametrize("bands", [4, 16])
def test_bands_are_no_pixels(tmp_path, name, bands):
    pixels = np.full((20, 30, bands), 255, "uint8")  # opaque, where the last band is alpha
    (np.save if name == "a.npy" else tifffile.imwrite)(tmp_path / name, pixels)
    for read in (read_image, count_bands):
        read(tmp_path / name, max_pixels=600)
        with pytest.raises(FileError, match=r"600 pixels, and a limit of 599.*`max_pixels=600`"):
            read(tmp_path / name, max_pixels=599)


def test_bands_that_would_fill_the_memory_count(tmp_path):
    """A file of one pixel may say that it has a million bands."""
    np.save(tmp_path / "a.npy", np.zeros((2, 2, 16_000), "uint8"))
    with pytest.raises(FileError, match="4,000 pixels, and a limit of 100"):
        read_image(tmp_path / "a.npy", channels=16_000, max_pixels=100)


def test_a_claim_of_many_pixels_is_refused_before_they_are_decoded(tmp_path):
    """A PNG of 60 bytes that claims 60000 x 60000 pixels."""
    import struct
    import zlib

    def chunk(kind, data):
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(data)
    with pytest.raises(FileError, match="3,600,000,000 pixels"):
        read_image(tmp_path / "bomb.png")


def test_names_of_all_kinds(tmp_path):
    for name in ("a b.png", "Zürich 東京 😀.png", "[x]*?.png", "-a.png"):
        assert read_image(save(tmp_path / name, np.zeros((2, 3), "uint8"))).shape == (2, 3, 1)


@pytest.fixture(scope="module")
def whole_files(tmp_path_factory):
    """Whole files of every format, as bytes."""
    folder = tmp_path_factory.mktemp("whole")
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3)).astype("uint8")
    for suffix in ("png", "jpg", "bmp", "webp", "tif"):
        save(folder / f"a.{suffix}", pixels)
    save(folder / "a.gif", pixels[..., 0])
    np.save(folder / "a.npy", pixels)
    tifffile.imwrite(folder / "b.tif", np.dstack([pixels, pixels]).astype("uint16"))
    save_deep_png(folder / "b.png", pixels.astype("uint16") * 257)
    return [(path.name, path.read_bytes()) for path in sorted(folder.iterdir())]


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damaged_files_give_one_kind_of_error(whole_files, tmp_path_factory, data):
    """Cut short, with bytes flipped, or filled with noise: an image, or a `FileError`."""
    name, content = data.draw(st.sampled_from(whole_files))
    content = bytearray(content)
    for _ in range(data.draw(st.integers(0, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    path = tmp_path_factory.getbasetemp() / f"damaged_{name}"
    path.write_bytes(content)
    for read in (read_image, read_mask, count_bands):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                read(path)
            except FileError:
                pass
