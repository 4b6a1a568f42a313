"""Masks: what is no class number is refused, and what numbers objects becomes classes."""

import re
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from keras_fcn.datasets import check_data, load, read_classes
from keras_fcn.datasets.files import FileError, list_files, read_image, read_mask, read_pair
from keras_fcn.datasets.masks import label_instances, read_instances, touching


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels).astype("uint8")).save(path)
    return path


def one_hot(count=4):
    return np.eye(count, dtype="uint8")[np.arange(1200).reshape(30, 40) % count]


@pytest.mark.parametrize(
    ("name", "pixels", "kind"),
    [
        ("a.npy", one_hot(), "one-hot"),
        ("a.npy", np.moveaxis(one_hot(), -1, 0), "one-hot"),
        ("a.npy", one_hot().astype("float32"), "one-hot"),
        ("a.npy", one_hot(30), "one-hot"),
        ("a.tif", one_hot(5), "one-hot"),
        ("a.tif", one_hot(5).astype("float32"), "one-hot"),
        ("a.npy", np.full((6, 8), 0.5), "fraction"),
        ("a.tif", np.full((6, 8), 0.5, "float32"), "fraction"),
        ("a.npy", np.full((6, 8), 2**32 + 1), "label range"),
        ("a.tif", np.full((6, 8), 2**31 + 1, "uint32"), "label range"),
        ("a.npy", np.full((6, 8), 2**63 + 1, "uint64"), "label range"),
    ],
)
def test_labels_that_are_none(tmp_path, name, pixels, kind):
    write = np.save if name.endswith("npy") else tifffile.imwrite
    write(tmp_path / name, pixels)
    with pytest.raises(FileError) as error:
        read_mask(tmp_path / name)
    assert error.value.kind == kind


def test_one_hot_masks_in_a_picture(tmp_path):
    with pytest.raises(FileError, match="argmax"):
        read_mask(save(tmp_path / "a.png", one_hot(3)))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "int64"])
@pytest.mark.parametrize("name", ["a.npy", "a.tif", "b.npy"])
def test_integers_are_labels(tmp_path, dtype, name):
    labels = (np.arange(48).reshape(6, 8) % 2).astype(dtype)
    stored = labels[..., None] if name[0] == "b" else labels
    (np.save if name.endswith("npy") else tifffile.imwrite)(tmp_path / name, stored)
    np.testing.assert_array_equal(read_mask(tmp_path / name), labels)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32"])
@pytest.mark.parametrize("name", ["a.npy", "a.tif"])
def test_labels_below_0_stay_as_they_are(tmp_path, dtype, name):
    labels = (np.arange(48).reshape(6, 8) % 3 - 1).astype(dtype)
    (np.save if name.endswith("npy") else tifffile.imwrite)(tmp_path / name, labels)
    np.testing.assert_array_equal(read_mask(tmp_path / name), labels)


def write_gray(path, pixels, bits, white_is_zero):
    """Write a gray PNG, or a TIFF that says which number is white."""
    if path.suffix == ".tif" and bits > 8:
        photometric = "miniswhite" if white_is_zero else "minisblack"
        tifffile.imwrite(path, pixels.astype(f"uint{bits}"), photometric=photometric)
        return
    digits = ["".join(f"{number:0{bits}b}" for number in row) for row in pixels]
    packed = [int(row, 2).to_bytes(len(row) // 8) for row in digits]
    if path.suffix == ".tif":  # by hand, for tifffile packs 2 and 4 bits in its later versions
        write_tiff(path, b"".join(packed), pixels.shape, bits, 0 if white_is_zero else 1)
        return
    rows = b"".join(b"\0" + row for row in packed)
    size = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], bits, 0, 0, 0, 0)
    parts = [(b"IHDR", size), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in parts
        )
    )


def write_tiff(path, strip, shape, bits, photometric):
    """Write a TIFF of one channel and one strip."""
    tags = {
        256: shape[1], 257: shape[0], 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1,
        278: shape[0], 279: len(strip),
    }  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 3, 1, value) for tag, value in tags.items())
    head = struct.pack("<2sHI", b"II", 42, 8 + len(strip))
    path.write_bytes(head + strip + struct.pack("<H", len(tags)) + entries + bytes(4))


@pytest.mark.parametrize(
    ("suffix", "bits", "white_is_zero"),
    [(".png", bits, False) for bits in (1, 2, 4, 8, 16)]
    + [(".tif", bits, white) for bits in (1, 2, 4, 8, 16, 32) for white in (False, True)],
)
def test_numbers_of_gray_files_are_those_stored_and_images_as_shown(
    tmp_path, suffix, bits, white_is_zero
):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    stored = np.arange(48).reshape(6, 8) % min(2**bits, 7)
    path = tmp_path / "masks" / f"a{suffix}"
    write_gray(path, stored, bits, white_is_zero)
    np.testing.assert_array_equal(read_mask(path), stored)
    report = check_data(save(tmp_path / "images" / "a.png", np.eye(6, 8)).parent, path.parent)
    labels, pixels = np.unique(stored, return_counts=True)
    assert report.pixels == dict(zip(labels.tolist(), pixels.tolist(), strict=True))
    assert ("white is 0" in {finding.kind for finding in report.findings}) == white_is_zero
    if bits < 16:
        largest = 2**bits - 1
        shown = (largest - stored if white_is_zero else stored) * 255 // largest
        np.testing.assert_array_equal(read_image(path)[..., 0], shown)
        if bits > 1:  # as colours they are as shown, too
            table = {(value,) * 3: value for value in np.unique(shown).tolist()}
            np.testing.assert_array_equal(read_mask(path, colors=table), shown)


def test_gray_webp_is_saved_as_its_message_says(tmp_path):
    path = tmp_path / "a.webp"
    Image.fromarray(np.eye(6, 8, dtype="uint8")).save(path, lossless=True)
    with pytest.raises(FileError, match="save it as PNG") as error:
        read_mask(path)
    exec(re.search(r"`(Image[^`]+)`", str(error.value))[1], {"Image": Image, "path": path})
    np.testing.assert_array_equal(read_mask(path.with_suffix(".png")), np.eye(6, 8))


def test_the_colours_of_a_message_are_the_table_to_pass(tmp_path):
    colors = np.array([(10, 20, 30), (200, 0, 0)])
    path = save(tmp_path / "a.png", colors[np.arange(48).reshape(6, 8) % 2])
    with pytest.raises(FileError, match=r"`colors=\{\(10, 20, 30\): 0, \(200, 0, 0\): 1\}`"):
        read_mask(path)


def test_touching_agrees_with_dilated_objects(rng):
    from skimage.measure import label
    from skimage.morphology import dilation, disk

    instance_map = label(rng.random((40, 50)) < 0.3, connectivity=1)
    numbers = range(1, instance_map.max() + 1)
    near = [dilation(instance_map == number, disk(2)) for number in numbers]
    np.testing.assert_array_equal(touching(instance_map), np.sum(near, 0) >= 2)


def test_a_gap_between_objects_is_background():
    instance_map = np.zeros((9, 9), int)
    instance_map[:, :3], instance_map[:, 4:] = 1, 2
    assert label_instances(instance_map, "border")[0].tolist() == [1, 1, 2, 0, 2, 1, 1, 1, 1]


def test_masks_of_objects_become_an_instance_map(tmp_path):
    first, second = np.zeros((6, 8)), np.zeros((6, 8))
    first[:, :3], second[:, 3:5] = 255, 255
    paths = tuple(save(tmp_path / f"{n}.png", mask) for n, mask in enumerate((first, second)))
    instance_map = read_instances(paths)
    np.testing.assert_array_equal(instance_map, (first > 0) + 2 * (second > 0))
    border = label_instances(instance_map, "border")
    assert border[0].tolist() == [1, 2, 2, 2, 2, 0, 0, 0]
    image = save(tmp_path / "image.png", np.zeros((6, 8)))
    np.testing.assert_array_equal(read_pair(image, paths, instances="two")[1], instance_map > 0)
    with pytest.raises(FileError, match="`instances='border'`"):
        read_pair(image, paths)
    with pytest.raises(ValueError, match="'two', 'border', 'numbers'"):
        read_pair(image, paths, instances="three")


@pytest.mark.parametrize(
    ("mask", "found"),
    [
        ("1_mask.png", True),
        ("1_Mask.gif", True),
        ("1-label.tif", True),
        ("1_seg.png", True),
        ("1_L.png", True),
        ("1 labels.npy", True),
        ("1_manual.png", False),
        ("2_mask.png", False),
    ],
)
@pytest.mark.parametrize("together", [True, False])
def test_masks_with_a_suffix(tmp_path, mask, found, together):
    images = tmp_path if together else tmp_path / "images"
    masks = tmp_path if together else tmp_path / "masks"
    for path in (images / "1.png", images / "1_b.png", masks / mask):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    listing = list_files(images, masks)
    assert listing.pairs == ([(images / "1.png", masks / mask)] if found else [])
    listing = list_files(images, masks, mask_suffix=mask.rpartition(".")[0][1:])
    assert len(listing.pairs) == mask.startswith("1")


@pytest.mark.parametrize("together", [False, True])
def test_files_of_other_kinds_are_told(tmp_path, together):
    images, masks = tmp_path / "images", tmp_path / ("images" if together else "masks")
    for number in range(3):
        save(images / f"{number}.png", np.arange(48).reshape(6, 8))
        save(masks / f"{number}_mask.png", np.eye(6, 8))
    save(images / "3.ppm", np.eye(6, 8))
    save(masks / "3_mask.pgm", np.eye(6, 8))
    source = images if together else tmp_path
    with pytest.warns(UserWarning, match=r"others are left out. Received: .*3_mask\.pgm"):
        assert len(load(source, "all")) == 3
    for path in images.parent.glob("*/*.png"):
        path.unlink()
    if not together:
        with pytest.raises(ValueError, match=r"others are left out. Received: .*as PNG or"):
            load(source, "all")


def test_a_mask_that_has_its_images_name_wins(tmp_path):
    for name in ("images/1.png", "masks/1.png", "masks/1_mask.png"):
        save(tmp_path / name, np.zeros((2, 2)))
    listing = list_files(tmp_path / "images", tmp_path / "masks")
    assert listing.pairs == [(tmp_path / "images/1.png", tmp_path / "masks/1.png")]
    assert listing.masks_alone == [tmp_path / "masks/1_mask.png"]


def test_classes_of_a_folder(tmp_path):
    save(tmp_path / "images/1.png", np.zeros((2, 2)))
    save(tmp_path / "masks/1.png", np.eye(2))
    assert read_classes(tmp_path) is None
    found = read_classes(tmp_path, 2)
    assert (found.names, found.ignore, found.data) == (("class 0", "class 1"), 255, str(tmp_path))
    picture = Image.fromarray(np.eye(2, dtype="uint8"), mode="P")
    picture.putpalette([1, 2, 3, 40, 50, 60])
    picture.save(tmp_path / "masks/1.png")
    assert read_classes(tmp_path, 2).colors == ((1, 2, 3), (40, 50, 60))
    text = "label,name,red,green,blue\n1,cell,9,8,7\n0,ground,0,0,0\n255,void,1,1,1\n"
    (tmp_path / "classes.csv").write_text(text)
    found = read_classes(tmp_path)
    assert found.names == ("ground", "cell")
    assert found.colors == ((0, 0, 0), (9, 8, 7))
    assert read_classes((tmp_path / "images", tmp_path / "masks")).names == found.names
    assert read_classes(tmp_path, names=["a", "b"]).names == ("a", "b")
    (tmp_path / "classes.csv").rename(tmp_path / "masks" / "classes.csv")
    assert read_classes(tmp_path).names == found.names  # among the masks, too
    assert read_classes(tmp_path, colors={(5, 5, 5): 0, (6, 6, 6): 1}).names == found.names
    with pytest.raises(ValueError, match="3 classes and 2 names"):
        read_classes(tmp_path, 3, names=["a", "b"])


def test_another_number_of_classes_keeps_what_is_known(tmp_path):
    save(tmp_path / "images/1.png", np.zeros((2, 2)))
    save(tmp_path / "masks/1.png", np.eye(2))
    colors = {(5, 5, 5): 0, (6, 6, 6): 1}
    assert read_classes(tmp_path, 3, colors=colors).colors == ((5, 5, 5), (6, 6, 6), (0, 128, 0))
    text = "label,name,red,green,blue\n0,sky,1,2,3\n1,sea,4,5,6\n2,land,7,8,9\n"
    (tmp_path / "classes.csv").write_text(text)
    assert read_classes(tmp_path, 2).names == ("sky", "sea")
    more = read_classes(tmp_path, 4)
    assert more.names == ("sky", "sea", "land", "class 3")
    assert more.colors == ((1, 2, 3), (4, 5, 6), (7, 8, 9), (128, 128, 0))
    assert read_classes("shapes/cells", 3).names == ("border", "cell", "class 2")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "label;name\n0;a\n",
        "label,name\n1,a\n",
        "label,name\n0,a\n0,b\n",
        "label,name\nzero,a\n",
        "label,name,red\n0,a,1\n",
        "label,name,color\n0,a,#0000ff\n",
        "label,name,r,g,b\n0,a,0,0,255\n",
        "label,name,red,green,blue\n0,a,1,2,300\n",
        "label,name,red,green,blue\n0,a\n",
        "label,name,red,green,blue\n0,a,1,2,-3\n",
        "label,name\n-1,void\n0,a\n",
        "label,name\n0,road, paved\n",
        "label,name\n0,Stra\udcdfe\n",
        "l\0a\0b\0e\0l\0",
        f"label,name\n{'9' * 5000},a\n",  # more digits than Python takes for a number
        f'label,name\n0,"a{"b" * 2**17}',  # more than its reader of tables takes for a field
    ],
)
def test_files_of_classes_that_break_a_rule(tmp_path, text):
    from keras_fcn.datasets.names import read_class_file

    (tmp_path / "classes.csv").write_text(text, "latin-1", "surrogateescape")
    with pytest.raises(ValueError, match=r"columns label,name.*classes\.csv"):
        read_class_file(tmp_path / "classes.csv")


@pytest.mark.parametrize("void", [-1, 255, 2])
def test_the_void_label_has_a_line_of_its_own(tmp_path, void):
    from keras_fcn.datasets.names import read_class_file

    (tmp_path / "classes.csv").write_text(f"label,name\n{void},void\n0,a\n 1 ,b\n")
    classes = read_class_file(tmp_path / "classes.csv", void)
    assert (classes.names, classes.ignore) == (("a", "b"), void)


@pytest.mark.parametrize(
    ("source", "names", "ignore"),
    [
        ("camvid", 11, 11),
        ("isbi2012", 2, 255),
        ("nuclei", 3, 255),
        ("nuclei/two", 2, 255),
        ("shapes/street", 5, 255),
        ("voc_segmentation/2012", 21, 255),
    ],
)
def test_classes_of_the_catalogue(source, names, ignore):
    found = read_classes(source)
    assert (len(found.names), found.ignore, found.data) == (names, ignore, source)


@pytest.mark.parametrize("palette", [[0, 0, 0, 255, 255, 255], [255, 255, 255, 0, 0, 0]])
def test_a_gif_is_what_it_shows(tmp_path, palette):
    """GIF numbers its colours by itself: index 0 may be black or white."""
    index = np.eye(6, 8, dtype="uint8")
    picture = Image.fromarray(index, mode="P")
    picture.putpalette(palette)
    picture.save(tmp_path / "a.gif", optimize=False)
    shown = np.array(palette).reshape(2, 3)[index, 0]
    np.testing.assert_array_equal(read_mask(tmp_path / "a.gif"), shown)
    values = read_mask(tmp_path / "a.gif", values={0: 0, 255: 1})
    np.testing.assert_array_equal(values, shown > 0)


@pytest.mark.parametrize(
    ("suffix", "options", "is_lossy"),
    [
        (".tif", {"compression": "jpeg"}, True),
        (".tif", {"compression": "tiff_lzw"}, False),
        (".jp2", {"irreversible": True}, True),
        (".jp2", {"irreversible": False}, False),
        (".webp", {}, True),
    ],
)
def test_loss_is_seen_in_formats_with_and_without(tmp_path, rng, suffix, options, is_lossy):
    labels = rng.integers(0, 4, (24, 32), "uint8")
    path = tmp_path / f"a{suffix}"
    Image.fromarray(labels).save(path, **options)
    if is_lossy:
        with pytest.raises(FileError, match="stored without loss"):
            read_mask(path)
    else:
        np.testing.assert_array_equal(read_mask(path), labels)


def test_colours_of_16_bits_are_those_of_8_or_refused(tmp_path):
    labels = np.eye(6, 8, dtype=int)
    path = tmp_path / "a.tif"
    colors = {(0, 0, 0): 0, (1, 2, 3): 1}
    table = np.array(list(colors), "uint16")
    tifffile.imwrite(path, table[labels] * 257, photometric="rgb")
    np.testing.assert_array_equal(read_mask(path, colors), labels)
    tifffile.imwrite(path, table[labels], photometric="rgb")  # all black to Pillow
    with pytest.raises(FileError, match="colours of 16 bits, up to 3"):
        read_mask(path, colors)
