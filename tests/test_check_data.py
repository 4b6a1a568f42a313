import argparse
import re
import warnings

import numpy as np
import pytest
import tifffile
from PIL import Image

from keras_fcn.commands import check_data as check_data_command
from keras_fcn.commands import main
from keras_fcn.datasets import check_data, load, print_report
from keras_fcn.datasets.findings import FINDINGS, Finding


@pytest.fixture
def folders(tmp_path, rng):
    """Three images with masks of classes 0 to 2."""
    images, masks = tmp_path / "images", tmp_path / "masks"
    images.mkdir()
    masks.mkdir()
    for name in "abc":
        save(images / f"{name}.png", rng.integers(0, 256, (8, 12, 3)))
        save(masks / f"{name}.png", np.arange(96).reshape(8, 12) % 3)
    return images, masks


def save(path, pixels, **options):
    Image.fromarray(np.asarray(pixels).astype("uint8")).save(path, **options)


def save_palette(path, labels, colors):
    picture = Image.fromarray(np.asarray(labels).astype("uint8"), mode="P")
    picture.putpalette(np.asarray(colors, "uint8").tobytes())
    picture.save(path)


def kinds(report):
    return {finding.kind for finding in report.findings}


def snapshot(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_good_data_has_no_findings_and_its_classes_are_counted(folders, tmp_path, capsys):
    before = snapshot(tmp_path)
    report = check_data(*folders, num_classes=3)
    assert report.findings == ()
    assert (report.pairs, report.masks) == (3, 3)
    assert report.pixels == {0: 96, 1: 96, 2: 96}
    assert report.occurrences == {0: 3, 1: 3, 2: 3}
    assert print_report(report) == 0
    assert "33.33%" in capsys.readouterr().out
    assert snapshot(tmp_path) == before


def rgb(images, masks):
    save(masks / "a.png", np.random.default_rng(0).integers(0, 2, (8, 12, 3)) * 255)


def gray_as_rgb(images, masks):
    save(masks / "a.png", np.ones((8, 12, 3)))


def binary(images, masks):
    for name in "abc":
        save(masks / f"{name}.png", np.eye(8, 12) * 255)


def off_range(images, masks):
    save(masks / "b.png", np.full((8, 12), 7))


def void(images, masks):
    save(masks / "b.png", np.arange(96).reshape(8, 12) % 2 * 255)


def size(images, masks):
    save(masks / "b.png", np.zeros((8, 13)))


def image_alone(images, masks):
    (masks / "c.png").unlink()


def mask_alone(images, masks):
    (images / "c.png").unlink()


def duplicate(images, masks):
    save(images / "a.bmp", np.zeros((8, 12)))


def truncated_mask(images, masks):
    data = (masks / "a.png").read_bytes()
    (masks / "a.png").write_bytes(data[: len(data) // 2])


def truncated_image(images, masks):
    data = (images / "a.png").read_bytes()
    (images / "a.png").write_bytes(data[: len(data) // 2])


def empty_file(images, masks):
    (masks / "a.png").write_bytes(b"")


def not_an_image(images, masks):
    (images / "a.png").write_text("<html>404</html>")


def jpeg(images, masks):
    (masks / "a.png").unlink()
    save(masks / "a.jpg", np.zeros((8, 12)))


def jpeg_named_png(images, masks):
    save(masks / "a.png", np.zeros((8, 12)), format="JPEG")


def transparent(images, masks):
    save(masks / "a.png", np.zeros((8, 12, 4)))


def floats(images, masks):
    (masks / "a.png").unlink()
    Image.fromarray(np.full((8, 12), 0.5, "float32")).save(masks / "a.tif")


def stack(images, masks):
    (masks / "a.png").unlink()
    page = Image.new("L", (12, 8))
    page.save(masks / "a.tif", save_all=True, append_images=[page])


def nothing(images, masks):
    for path in [*images.iterdir(), *masks.iterdir()]:
        path.unlink()


def all_empty(images, masks):
    for name in "abc":
        save(masks / f"{name}.png", np.zeros((8, 12)))


def broken_link(images, masks):
    (masks / "a.png").unlink()
    (masks / "a.png").symlink_to("gone.png")


def folder_named_as_image(images, masks):
    (images / "a.png").unlink()
    (images / "a.png").mkdir()


def swapped(images, masks):
    for name in "abc":
        (images / f"{name}.png").rename(images.parent / "kept.png")
        (masks / f"{name}.png").rename(images / f"{name}.png")
        (images.parent / "kept.png").rename(masks / f"{name}.png")


def one_hot(images, masks):
    (masks / "a.png").unlink()
    np.save(masks / "a.npy", np.eye(3)[np.arange(96).reshape(8, 12) % 3])


def palettes(images, masks):
    save_palette(masks / "a.png", np.eye(8, 12), [[0, 0, 0], [255, 0, 0]])
    save_palette(masks / "b.png", np.eye(8, 12), [[0, 0, 0], [0, 255, 0]])


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        (rgb, "rgb"),
        (gray_as_rgb, "gray as rgb"),
        (binary, "0 and 255"),
        (off_range, "off range"),
        (void, "off range"),
        (size, "size"),
        (image_alone, "image alone"),
        (mask_alone, "mask alone"),
        (duplicate, "duplicate"),
        (truncated_mask, "unreadable"),
        (truncated_image, "unreadable"),
        (empty_file, "unreadable"),
        (not_an_image, "unreadable"),
        (jpeg, "lossy"),
        (jpeg_named_png, "lossy"),
        (transparent, "alpha"),
        (floats, "fraction"),
        (stack, "frames"),
        (nothing, "no pairs"),
        (all_empty, "all masks empty"),
        (palettes, "palettes differ"),
        (broken_link, "broken link"),
        (folder_named_as_image, "not a file"),
        (swapped, "swapped"),
        (one_hot, "one-hot"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_errors_are_found_with_a_fix(folders, damage, kind, capsys):
    damage(*folders)
    report = check_data(*folders, num_classes=3)
    (finding,) = [finding for finding in report.findings if finding.kind == kind]
    assert finding in report.errors
    assert finding.fix in str(finding)
    assert print_report(report) == 1
    assert "error" in capsys.readouterr().out


def half_empty(images, masks):
    save(masks / "a.png", np.zeros((8, 12)))


def half_void(images, masks):
    save(masks / "a.png", np.full((8, 12), 255))


def gray_levels(images, masks):
    for name in "abc":
        save(masks / f"{name}.png", np.arange(96).reshape(8, 12) % 3 * 100)


def dark(images, masks):
    (images / "a.png").unlink()
    Image.fromarray(np.full((8, 12), 4095, "uint16")).save(images / "a.tif")


def from_one(images, masks):
    for name in "abc":
        save(masks / f"{name}.png", np.arange(96).reshape(8, 12) % 3 + 1)


def gap(images, masks):
    for name in "abc":
        save(masks / f"{name}.png", np.arange(96).reshape(8, 12) % 2 * 2)


def upside_down(images, masks):
    exif = Image.Exif()
    exif[0x0112] = 3
    save(images / "a.png", np.random.default_rng(0).integers(0, 256, (8, 12, 3)), exif=exif)


def mixed(images, masks):
    for name in "ab":
        save(masks / f"{name}.png", 255 * np.eye(8, 12))


def white_is_zero(images, masks):
    (masks / "a.png").unlink()
    tifffile.imwrite(masks / "a.tif", np.eye(8, 12, dtype="uint8"), photometric="miniswhite")


def objects(images, masks):
    for number, name in enumerate("abc"):
        pixels = np.zeros((8, 12))
        for cell in range(number + 2):
            pixels[2:6, 3 * cell : 3 * cell + 2] = cell + 1
        save(masks / f"{name}.png", pixels)


@pytest.mark.parametrize(
    ("damage", "arguments", "kind"),
    [
        (half_empty, {}, "empty mask"),
        (half_void, {"ignore": 255}, "void mask"),
        (void, {}, "void"),
        (gray_levels, {}, "gaps"),
        (dark, {}, "dark"),
        (half_empty, {"num_classes": 4}, "class absent"),
        (from_one, {}, "from 1"),
        (gap, {}, "class missing"),
        (upside_down, {}, "turned"),
        (objects, {}, "objects"),
        (white_is_zero, {}, "white is 0"),
        (mixed, {}, "mixed"),
    ],
)
def test_warnings_do_not_fail(folders, damage, arguments, kind, capsys):
    damage(*folders)
    report = check_data(*folders, **arguments)
    assert kind in kinds(report)
    assert print_report(report) == 0
    capsys.readouterr()


def test_the_fixes_of_the_messages_mend(folders):
    images, masks = folders
    binary(images, masks)
    assert not check_data(*folders, num_classes=2, values={0: 0, 255: 1}).findings
    assert not check_data(*folders, num_classes=1, values={0: 0, 255: 1}).findings
    rgb(images, masks)
    report = check_data(*folders, values={0: 0, 255: 1})
    assert kinds(report) == {"rgb"}
    black, white = (0, 0, 0), (255, 255, 255)
    assert kinds(check_data(*folders, colors={black: 0, white: 1})) == {"unknown color"}


def test_palette_files_are_noted_and_read_as_indices(folders):
    masks = folders[1]
    for name in "abc":
        save_palette(masks / f"{name}.png", np.eye(8, 12), [[0, 0, 0], [255, 0, 0]])
    report = check_data(*folders, num_classes=2)
    assert [finding.level for finding in report.findings] == ["note"]
    assert report.pixels == {0: 3 * 88, 1: 3 * 8}
    red_first = check_data(*folders, colors={(255, 0, 0): 0, (0, 0, 0): 1})
    assert red_first.pixels == {0: 3 * 8, 1: 3 * 88}


def test_a_palette_is_noted_of_the_indices_that_are_stored(folders):
    """Also where values are mapped: index 7 has two colours, whatever class it becomes."""
    for name, color in zip("abc", [(9, 9, 9), (9, 9, 9), (200, 0, 0)], strict=True):
        colors = [(0, 0, 0), *[(1, 1, 1)] * 6, color]
        save_palette(folders[1] / f"{name}.png", 7 * np.eye(8, 12), colors)
    (error,) = check_data(*folders, values={0: 0, 7: 1}).errors
    assert error.kind == "palettes differ"
    assert "index 7 is [200, 0, 0], and [9, 9, 9]" in str(error)


@pytest.mark.parametrize(
    ("labels", "ignore", "values"),
    [
        ([0, 1], None, {0: 1, 1: 0}),
        ([0, 255], None, {0: 1, 255: 0}),
        ([0, 254, 255], None, {0: 2, 254: 1, 255: 0}),
        ([0, 1, 255], 255, {0: 1, 1: 0, 255: 255}),
    ],
)
def test_masks_whose_white_is_0_are_swapped_by_the_numbers_that_they_hold(
    folders, labels, ignore, values
):
    stored = np.array(labels, "uint8")[np.arange(96).reshape(8, 12) % len(labels)]
    for name in "abc":
        (folders[1] / f"{name}.png").unlink()
        tifffile.imwrite(folders[1] / f"{name}.tif", stored, photometric="miniswhite")
    report = check_data(*folders, ignore=ignore)
    (finding,) = (finding for finding in report.findings if finding.kind == "white is 0")
    assert f"`values={values}`" in finding.fix
    assert not check_data(*folders, ignore=ignore, values=values).findings


def test_masks_whose_white_is_0_among_others_are_saved_again(folders):
    """What swaps the numbers of the one would swap those of the others, too."""
    white_is_zero(*folders)
    (finding,) = check_data(*folders).findings
    assert finding.kind == "white is 0"
    assert "save these again" in finding.fix
    assert finding.details == (str(folders[1] / "a.tif"),)


def test_an_image_in_two_splits_is_found_whatever_its_file(tmp_path, rng):
    for split, names in (("train", "abcd"), ("val", "xyz")):
        for name in names:
            for folder in ("images", "masks"):
                (tmp_path / folder / split).mkdir(parents=True, exist_ok=True)
            save(tmp_path / "images" / split / f"{name}.png", rng.integers(0, 256, (8, 12, 3)))
            save(tmp_path / "masks" / split / f"{name}.png", np.eye(8, 12))
    assert not check_data(tmp_path).findings
    images = tmp_path / "images"
    twins = images / "train" / "d.png", images / "val" / "z.tif"
    repeated = images / "train" / "a.png", images / "train" / "b.png"
    save(repeated[1], Image.open(repeated[0]))
    save(twins[1], Image.open(twins[0]))  # in other bytes, by another name
    twins[1].with_suffix(".png").unlink()
    (finding,) = check_data(tmp_path).findings
    assert (finding.kind, finding.level) == ("copies", "warning")
    assert finding.details == (
        f"{twins[0]} (of 'train') and {twins[1]} (of 'val')",
        f"{repeated[0]} (of 'train') and {repeated[1]} (of 'train')",
    )
    for path in (twins[0], repeated[0]):
        path.unlink()
        (tmp_path / "masks" / "train" / path.name).unlink()
    assert not check_data(tmp_path).findings


def test_markup_in_file_names_is_printed_as_it_is(folders, capsys):
    (folders[0] / "a.png").rename(folders[0] / "[red]a.png")
    assert print_report(check_data(*folders)) == 1
    assert "[red]a.png" in re.sub(r"[\s│]", "", capsys.readouterr().out)


def test_a_broken_link_hides_no_other_finding(folders):
    broken_link(*folders)
    save(folders[1] / "b.png", np.zeros((8, 13)))
    assert {"broken link", "size"} <= kinds(check_data(*folders))


def test_a_class_is_printed_with_its_name(folders, capsys):
    (folders[1].parent / "classes.csv").write_text("label,name\n0,sky\n1,tree\n2,road\n3,car\n")
    report = check_data(*folders)
    assert report.names == ("sky", "tree", "road", "car")
    assert print_report(report) == 0
    output = capsys.readouterr().out
    assert all(name in output for name in report.names)


def test_a_class_beside_the_void_label_alone_is_an_error_with_a_way_on(folders):
    for values in ([0, 255], [0, 1], [7, 255]):
        for name in "abc":
            save(folders[1] / f"{name}.png", np.array(values)[np.eye(8, 12, dtype=int)])
        (error,) = check_data(*folders, ignore=values[1]).errors
        assert error.kind == "one class"
        assert f"no label but {values[0]} and the void label {values[1]} in 3 masks" in str(error)
        mapping = {values[0]: 0, values[1]: 1}
        assert f"`values={mapping}` without `ignore`" in error.fix
        assert not check_data(*folders, values=mapping).findings


def test_masks_of_void_alone_are_an_error_without_a_word_of_the_void_label(folders):
    for name in "abc":
        save(folders[1] / f"{name}.png", np.full((8, 12), 255))
    assert {error.kind for error in check_data(*folders).errors} == {"all masks void"}
    assert {error.kind for error in check_data(*folders, ignore=255).errors} == {"all masks void"}
    with pytest.raises(ValueError, match="another label than the ignore label"):
        load(folders[0].parent, "all")


@pytest.mark.parametrize(("usual", "rare"), [([0, 0], 1), ([255, 255], 1), ([0, 255], 1)])
def test_a_sample_does_not_speak_for_all_masks(tmp_path, usual, rare):
    """Of 40 masks 16 are looked at, and the rare class is in none of these."""
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for number in range(40):
        save(tmp_path / "images" / f"{number}.png", np.arange(96).reshape(8, 12) * 2)
        labels = np.array(usual)[np.eye(8, 12, dtype=int)]
        labels[0, 0] = rare if number == 1 else labels[0, 0]
        save(tmp_path / "masks" / f"{number}.png", labels)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The masks hold the label 255")
        assert len(list(load(tmp_path, "all"))) == 40
    save(tmp_path / "masks" / "1.png", np.array(usual)[np.eye(8, 12, dtype=int)])
    with pytest.raises(ValueError, match=r"another (class|label) than|these hold 0 and 255 only"):
        load(tmp_path, "all")


def test_a_label_without_a_name_is_an_error(folders):
    path = folders[1].parent / "classes.csv"
    path.write_text("label,name\n0,sky\n1,tree\n")
    (error,) = check_data(*folders).errors
    assert error.kind == "off range"
    assert "label 2 with 2 classes in classes.csv in 3 masks" in str(error)
    assert not check_data(*folders, ignore=2).findings
    save(folders[1] / "b.png", np.full((8, 12), 255))
    assert kinds(check_data(*folders, ignore=2)) == {"void"}
    path.write_text("label,name\n0,sky\n1,tree\n2,car\n3,road\n255,void\n")
    assert kinds(check_data(*folders)) == {"void", "void mask", "class absent"}


def test_one_sigmoid_is_of_two_classes(folders):
    for name in "abc":
        save(folders[1] / f"{name}.png", np.eye(8, 12))
    assert not check_data(*folders, num_classes=1).findings


def test_a_folder_in_the_layout_of_a_training(folders, capsys):
    root = folders[0].parent
    assert check_data(root, num_classes=3).pairs == 3
    assert main(["check-data", "--data", str(root)]) == 0
    assert "images with masks: 3" in capsys.readouterr().out
    assert main(["check-data", "--images", str(root)]) == 1
    assert "--masks DIR. Received: --images" in capsys.readouterr().err
    assert main(["check-data", "--data", str(folders[0])]) == 1
    assert "laid out as one of" in capsys.readouterr().err


def test_masks_of_objects_are_checked_as_classes(folders):
    objects(*folders)
    report = check_data(folders[0].parent, instances="border")
    assert report.names == ("background", "object", "border")
    assert not report.errors
    assert set(report.pixels) <= {0, 1, 2}


def test_masks_with_a_suffix_are_noted(folders):
    images, masks = folders
    for path in list(masks.iterdir()):
        path.rename(images / f"{path.stem}_mask.png")
    report = check_data(images, images, num_classes=3)
    assert report.pairs == 3
    assert kinds(report) == {"named"}
    (images / "a_mask.png").rename(images / "a_truth.png")
    assert "image alone" in kinds(check_data(images, images))
    assert check_data(images, images, mask_suffix="_truth").pairs == 1


@pytest.mark.parametrize("kind", FINDINGS)
def test_every_fix_is_spelled_for_the_caller(kind):
    """On the command line a fix names options, and each of them exists."""
    from keras_fcn.remedies import on_the_command_line

    with on_the_command_line():
        fix = Finding(kind, ()).fix
    assert not re.search(r"`\w+=", fix)
    parser = argparse.ArgumentParser()
    check_data_command.add(parser.add_subparsers())
    help_text = parser._subparsers._group_actions[0].choices["check-data"].format_help()
    for option in re.findall(r"`(--[\w-]+)", fix):
        assert option in help_text


def test_missing_folder(tmp_path):
    with pytest.raises(NotADirectoryError, match="no folder"):
        check_data(tmp_path / "images", tmp_path)
