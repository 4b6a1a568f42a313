"""What an error tells its reader to do is done here, as it is printed, and it works.

`test_no_remedy_is_left_out` finds every message of the package with a remedy in it, and asks
for the test that follows it, or for the reason why none does.
"""

import ast
import functools
import re
import shlex
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import scipy.special
import tifffile
from PIL import Image

import keras_fcn
from keras_fcn import catalogue, load_model
from keras_fcn.classes import Classes
from keras_fcn.commands import main
from keras_fcn.datasets.files import read_image
from keras_fcn.datasets.findings import FINDINGS
from keras_fcn.remedies import choose, given, on_the_command_line, on_the_page, remake, spell
from keras_fcn.training import Recipe
from keras_fcn.training.network import build

NAMES = "abcde"  # of the images
ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("name", "value", "python", "shell"),
    [
        ("ignore", 255, "`ignore=255`", "`--ignore 255`"),
        ("num_classes", 3, "`num_classes=3`", "`--classes 3`"),
        ("values", {0: 0, 255: 1}, "`values={0: 0, 255: 1}`", "`--values 0=0 255=1`"),
        ("colors", {(1, 2, 3): 0}, "`colors={(1, 2, 3): 0}`", "`--colors 1,2,3=0`"),
        ("split", "all[:80%]", "`split='all[:80%]'`", "`--split 'all[:80%]'`"),
        ("ignore", -1, "`ignore=-1`", "`--ignore -1`"),
        ("values", {-1: 0, 1: -1}, "`values={-1: 0, 1: -1}`", "`--values -1=0 1=-1`"),
        ("mask_suffix", "-mask", "`mask_suffix='-mask'`", "`--mask-suffix=-mask`"),
        ("tile_size", None, "`tile_size`", "`--tile-size`"),
        ("filters", (4, 8), "`filters=(4, 8)`", "`--filters 4 8`"),
        ("gray", True, "`gray=True`", "`--gray`"),
        ("batch_norm", False, "`batch_norm=False`", "`--no-batch-norm`"),
        ("instances", "two", "`instances='two'`", "`--instances two`"),
        ("instances", "numbers", "`instances='numbers'`", "`--objects`"),
    ],
)
def test_arguments_are_named_as_the_caller_types_them(name, value, python, shell):
    assert spell(name, value) == python
    with on_the_command_line():
        assert spell(name, value) == shell
        assert choose("python", "shell") == "shell"
        assert given(name, value) == (shell.strip("`") if value is not None else "no --tile-size")
    assert choose("python", "shell") == "python"
    assert given(name, value) == (python.strip("`") if value is not None else "tile_size=None")


def test_the_page_names_its_field_and_the_options_of_its_command():
    with on_the_command_line():
        with on_the_page():
            assert spell("white", 4095) == "`White: 4095`"
            assert spell("white") == "`White`"
            assert given("white", 0) == "White: 0"
            assert given("white", None) == "no White"
            assert spell("max_pixels", 9) == "`--max-pixels 9`"
            assert choose("python", "shell") == "shell"
            assert choose("python", "shell", "page") == "page"
            assert remake("f(model)", "a/m.keras", "b").endswith("and choose 'a/m_b.keras'")
            assert remake("f(model)", None, "b") == "`f(model)`"
        assert spell("white", 4095) == "`--white 4095`"


# Beginnings or parts of messages, as they stand in the code with … for what is put in, that
# tests of this file follow.
FOLLOWED = []


def follows(*messages):
    """Mark a test as one that does what these messages say."""
    FOLLOWED.extend(messages)
    return lambda test: test


@pytest.fixture(scope="module")
def model():
    return keras_fcn.UNet(num_classes=2, filters=(4, 8))


@pytest.fixture
def place(tmp_path, monkeypatch, model, rng):
    """A folder with an image and its mask, and the model "mine.keras", which is not read anew."""
    monkeypatch.chdir(tmp_path)
    read = catalogue.load_model
    monkeypatch.setattr(
        catalogue, "load_model", lambda name: model if str(name) == "mine.keras" else read(name)
    )
    for folder in ("images", "masks"):
        Path(folder).mkdir()
    for name in NAMES:
        Image.fromarray(rng.integers(0, 256, (8, 12, 3), "uint8")).save(f"images/{name}.png")
        Image.fromarray(np.eye(8, 12).astype("uint8")).save(f"masks/{name}.png")
    return tmp_path


def write(path, pixels, dtype="uint8"):
    array = np.asarray(pixels).astype(dtype)
    if Path(path).suffix == ".npy":
        np.save(path, array)
    elif Path(path).suffix == ".tif":
        tifffile.imwrite(path, array)
    else:
        Image.fromarray(array).save(path)


def say(words, capsys):
    """Return the exit status of a command, and what it printed, without line breaks."""
    try:
        status = main(shlex.split(words) if isinstance(words, str) else words)
    except SystemExit as error:  # of usage
        status = error.code
    output = capsys.readouterr()
    return status, " ".join(re.sub("│", " ", output.out + output.err).split())


PREDICT = "predict images --weights mine.keras"
EVALUATE = "evaluate --weights mine.keras --images images --masks masks"
CHECK = "check-data --images images --masks masks"
PLAN = "plan --data ."


def a_stack_and_a_page_of_it():
    write("images/s.tif", np.zeros((2, 8, 12, 3)))
    write("images/s#0.png", np.zeros((8, 12, 3)))


def two_of_a_name():
    write("images/a.jpg", np.zeros((8, 12, 3)))


def file_of_someone_else():
    Path("predictions").mkdir()
    write("predictions/a.png", np.zeros((8, 12)))


def table_of_someone_else():
    Path("predictions").mkdir()
    Path("predictions/summary.csv").write_text("mine")


def scores_of_someone_else():
    Path("out").mkdir()
    Path("out/scores.csv").write_text("mine")


def predictions_with_other_options():
    main([*PREDICT.split(), "--gray"])


def one_image_alone():
    for name in NAMES[1:]:
        Path(f"images/{name}.png").unlink()
        Path(f"masks/{name}.png").unlink()
    Path("images/a.png").unlink()


def image_of_twelve_bits():
    one_image_alone()
    write("images/a.tif", np.linspace(0, 4095, 96).reshape(8, 12), "uint16")


def image_of_floats(top=1):
    one_image_alone()
    write("images/a.tif", np.linspace(0, top, 96).reshape(8, 12), "float32")


def mask_with_another_label():
    write("masks/a.png", np.eye(8, 12) * 7)


def masks_of_black_and_white():
    for name in NAMES:
        write(f"masks/{name}.png", np.eye(8, 12) * 255)


def masks_that_number_objects():
    for number, name in enumerate(NAMES):
        pixels = np.zeros((8, 12))
        for cell in range(number + 3):
            pixels[2:6, 3 * cell : 3 * cell + 2] = cell + 1
        write(f"masks/{name}.png", pixels, "uint16")


def masks_of_other_names():
    for name in NAMES:
        Path(f"masks/{name}.png").rename(f"masks/{name}_manual.png")


def masks_of_others_and_an_image_alone():
    masks_of_other_names()
    write("images/z.png", np.zeros((8, 12, 3)))


def splits_of_one_name():
    for split in ("train", "val"):
        for folder in ("images", "masks"):
            Path(split, folder).mkdir(parents=True)
            shutil.copy(f"{folder}/a.png", f"{split}/{folder}/a.png")
    for folder in ("images", "masks"):
        shutil.rmtree(folder)
    Path("list.txt").write_text("a\n")


def list_in_utf_16():
    Path("list.txt").write_bytes("a\nb\nc\n".encode("utf-16"))


def four_bands():
    one_image_alone()
    write("images/a.npy", np.zeros((8, 12, 4)))


# What the user does; what is wrong; what the message says; and the command that follows it: of
# what begins with "+" the words are in the message, and come to the command.
COMMANDS = [
    (PREDICT, None, "`--output-format` writes labels as", "+--output-format labels.tif",
     "--output-format labels.jpg"),
    (PREDICT, None, "writes probabilities as", "+--output-format probabilities.tif",
     "--output-format probabilities.png"),
    (PREDICT, None, "Pass the one or leave out the other", PREDICT, "--precision bfloat16"),
    (PREDICT, None, "is for integers of 8 bits", PREDICT, "--calibration images"),
    (PREDICT, two_of_a_name, "Predict them into two folders",
     "predict images/a.jpg --weights mine.keras --output other", ""),
    (PREDICT, a_stack_and_a_page_of_it, "Predict them into two folders",
     "predict images/s#0.png --weights mine.keras --output other", ""),
    ("predict images/a.png --weights mine.keras", None, "Choose another output folder",
     f"{PREDICT} --output other", "--output images"),
    (PREDICT, file_of_someone_else, "Choose another output folder, or move the file",
     f"{PREDICT} --output other", ""),
    (PREDICT, table_of_someone_else, "Choose another output folder, or move the file",
     f"{PREDICT} --output other", ""),
    (PREDICT, predictions_with_other_options, "another run, with other gray",
     f"{PREDICT} --output other", ""),
    (PREDICT, image_of_floats, "Pass the value that becomes 255", "+--white 1", ""),
    (PREDICT, image_of_twelve_bits, "--white 4095` for 12 bits; .* with another output folder",
     f"{PREDICT} --white 4095 --output other", ""),
    (PREDICT, image_of_twelve_bits, "Pass a larger `--white`", "+--white 4095", "--white 255"),
    (PREDICT, image_of_twelve_bits, "should be a finite number above 0", f"{PREDICT}",
     "--white 0"),
    (PREDICT, None, "raise the limit", "+--max-pixels 96", "--max-pixels 50"),
    (PREDICT, four_bands, "Save the bands that are wanted",
     lambda: write("images/a.npy", np.load("images/a.npy")[..., :3]), ""),
    (EVALUATE, mask_with_another_label, "marks void pixels, pass `--ignore 7`", "+--ignore 7",
     ""),
    (EVALUATE, mask_with_another_label, "else map the values of the masks to classes",
     f"{EVALUATE} --values 0=0 1=1 7=1", ""),
    (EVALUATE, masks_of_black_and_white, "`--values", "+--values 0=0 255=1", ""),
    (EVALUATE, masks_of_black_and_white, "`--values", "+--values 0=0 255=1", "--ignore 255"),
    (EVALUATE, scores_of_someone_else, "Choose another output folder, or move the file",
     f"{EVALUATE} --output other", "--output out"),
    (EVALUATE, None, "Thresholds are chosen for objects", None, "--choose-thresholds"),
    (EVALUATE, None, "Objects are scored by their numbers", f"{EVALUATE} --instances two",
     "--objects --instances two"),
    (EVALUATE, None, "takes each value once", f"{EVALUATE} --values 0=0 1=1",
     "--values 0=0 1=1 1=0"),
    ("evaluate --weights mine.keras --data . --split all", masks_of_other_names,
     "pass what the masks have in their names", "+--mask-suffix _manual", ""),
    (PLAN, masks_that_number_objects, "If so, pass `--instances", "+--instances two", ""),
    (PLAN, None, "should name each class", f"{PLAN} --class-names a b --classes 2",
     "--classes 3 --class-names a b"),
    (PLAN, None, "Give as many", f"{PLAN} --class-names a b --class-colors 0,0,0 9,9,9",
     "--class-names a b --class-colors 0,0,0"),
    (PLAN, mask_with_another_label, "Give the right number of classes, `--classes`",
     f"{PLAN} --classes 8", "--classes 2"),
    (PLAN, mask_with_another_label, "one for each class, `--class-names`",
     f"{PLAN} --class-names a b c d e f g h", "--class-names a b"),
    (PLAN, mask_with_another_label, "give it as `--ignore`",
     f"{PLAN} --classes 2 --ignore 7", "--classes 2"),
    (PLAN, masks_of_black_and_white, "`--values", "+--values 0=0 255=1", ""),
    (PLAN, None, "have no place there. Leave `--filters`, `--dropout` out",
     f"{PLAN} --model fcn8s", "--model fcn8s --filters 4 8 --dropout 0"),
    (PLAN, None, "has no place there. Leave `--fc-filters` out", PLAN, "--fc-filters 8"),
    (PLAN, None, "Pass `--encoder vgg16`", "+--encoder vgg16", "--weights imagenet"),
    (PLAN, None, "goes with `--optimizer sgd`", "+--optimizer sgd", "--momentum 0.5"),
    (PLAN, list_in_utf_16, "Save it as UTF-8",
     lambda: Path("list.txt").write_text("a\nb\nc\n", "utf-8"), "--split list.txt"),
    (PLAN, splits_of_one_name, "should differ between the splits",
     lambda: [path.rename(path.with_stem("b")) for path in Path("val").glob("*/a.png")],
     "--split list.txt --validation list.txt"),
    (PLAN, None, "Choose a larger part, as 'all'", f"{PLAN} --split all", "--split all[:5%]"),
    ("plan --data shapes/cells --validation val", None, "Choose a larger part",
     "plan --data shapes/cells --validation val --split train[:9]", "--split train[:0]"),
    ("plan", None, "Pass --data DIR|NAME", PLAN, ""),
    ("plan --data .", None, "should be one of", f"{PLAN} --model unet", "--model unett"),
    (CHECK, None, "given by --data DIR", "check-data --data .", "--data ."),
    ("evaluate --weights mine.keras --data shapes/cells --split val[:1]", None,
     "Leave `--values`, `--white` out", "evaluate --weights mine.keras --data shapes/cells "
     "--split val[:1]", "--values 0=0 1=1 --white 255"),
    ("plan --data shapes/cells", None, "Leave `--max-pixels` out, or pass the folder",
     f"{PLAN} --max-pixels 99", "--max-pixels 99"),
    ("export --weights mine.keras --format litert", None, "leave out `--int8`",
     "export --weights mine.keras --format litert --output x.tflite",
     "--int8 --calibration images"),
    ("tune --data . --output o --weights imagenet", None, "search an FCN: `--model fcn`", None,
     ""),
    ("predict images --weights imagenet", None, "Train one:", None, ""),
    (PREDICT, None, "512 is a good start", f"{PREDICT} --tile-size 512", "--tile-size 0"),
    (CHECK, None, "Write for example 0=0 255=1", f"{CHECK} --values 0=0 255=1 1=1",
     "--values 0:0"),
    (CHECK, None, "0,0,0=0 128,64,128=1", None, "--colors red=0"),
    (PLAN, None, "Write for example 128,64,128",
     f"{PLAN} --class-colors 128,64,128 0,0,0", "--class-colors red"),
    (PLAN, None, "Write for example flip=horizontal scale=0.25",
     f"{PLAN} --augment flip=horizontal scale=0.25", "--augment 90"),
    (PLAN, None, "Leave out none", f"{PLAN} --augment scale=0.25", "--augment none scale=0.25"),
    (PLAN, None, "takes flip, rotation", f"{PLAN} --augment none", "--augment turn=90"),
]  # fmt: skip


@follows(
    "… writes … as …. Received: …. Pass …",
    "Pass the one or leave out the other.",
    "… is for integers of 8 bits.",
    "The outputs are named after the images",
    "The tables name an image by its stem",
    "A prediction should not replace an image.",
    "'…' exists, and keras_fcn did not write it.",
    "'…' holds the predictions of another run",
    "… should be a finite number above 0. Received: …. Leave it out for files of 8 bits.",
    "The labels should be 0 to …, the classes of the model",
    "'…' exists, and no evaluation of keras_fcn wrote it.",
    "Thresholds are chosen for objects.",
    "Objects are scored by their numbers, classes",
    "… takes each value once.",
    "… takes none, or names with values.",
    "A split should have at least one image with its mask.",
    "… should name each class.",
    "Each class should have one name and one colour.",
    "Each network has arguments of its own.",
    "ImageNet's weights are those of VGG16.",
    "A file list should be a text in UTF-8.",
    "Names of a file list should differ between the splits.",
    "The training should have data.",
    "The U-Nets of a search start from scratch.",
    "Options of how files are read are for folders.",
    "… is for … and …. Received: …. Pass one of them or leave out ….",
    "each value or colour of the masks should come with its label",
    "a colour should be three integers, RED,GREEN,BLUE.",
    "an augmentation should be none, or a name and its value",
    "`tile_size` should be an integer of at least 1",
    "A split should have at least one image. Received:",
    "The model takes pixels in [0, 255]. Received: … values",
)
@pytest.mark.parametrize(("command", "spoil", "message", "mended", "options"), COMMANDS)
def test_a_command_is_mended_as_it_says(command, spoil, message, mended, options, place, capsys):
    if spoil is not None:
        spoil()
    capsys.readouterr()
    given = f"{command} {options}"
    status, said = say(given, capsys)
    assert re.search(message, said), said
    assert status or "warning" in said
    if mended is None:
        return
    if callable(mended):
        mended()
        mended = given
    elif mended.startswith("+"):
        assert f"{mended[1:]}`" in said  # as it is printed
        name = mended[1:].split()[0]
        mended = f"{re.sub(f' {name} [^-]*', ' ', given)} {mended[1:]}"
    status, said = say(mended, capsys)
    assert not re.search(message, said), said
    assert status == 0, said


def save_rgb(*colors):
    for name in NAMES:
        write(f"masks/{name}.png", np.array(colors)[np.eye(8, 12, dtype=int)])


def save_palettes():
    for number, name in enumerate(NAMES):
        color = (0, 255, 0) if number % 2 else (255, 0, 0)
        picture = Image.fromarray(np.eye(8, 12).astype("uint8"), mode="P")
        picture.putpalette(np.array([(0, 0, 0), color], "uint8").tobytes())
        picture.save(f"masks/{name}.png")


def several_masks():
    shutil.rmtree("masks")
    Path("masks").mkdir()
    for name in NAMES:
        for number in range(2):
            write(f"masks/{name}_mask_{number}.png", np.eye(8, 12, 4 * number))


def masks_of_two_kinds():
    for name in NAMES[:3]:
        write(f"masks/{name}.png", 255 * np.eye(8, 12))


def masks_of_white_0():
    for name in NAMES:
        Path(f"masks/{name}.png").unlink()
        labels = np.eye(8, 12, dtype="uint8")
        tifffile.imwrite(f"masks/{name}.tif", labels, photometric="miniswhite")


def masks_of(*labels):
    for name in NAMES:
        write(f"masks/{name}.png", np.array(labels)[np.arange(96).reshape(8, 12) % len(labels)])


def large():
    write("images/a.png", np.zeros((8, 13, 3)))
    write("masks/a.png", np.eye(8, 13))


# Kinds of findings whose fix is an option: what is done to the data, and the options with which
# it is checked.
WITH_OPTIONS = {
    "image alone": (masks_of_others_and_an_image_alone, ""),
    "mask alone": (masks_of_other_names, ""),
    "0 and 255": (masks_of_black_and_white, ""),
    "one class": (masks_of_black_and_white, "--ignore 255"),
    "off range": (lambda: masks_of(0, 128), "--classes 2"),
    "palettes differ": (save_palettes, ""),
    "void": (lambda: masks_of(0, 1, 255), ""),
    "from 1": (lambda: masks_of(1, 2), ""),
    "class missing": (lambda: masks_of(0, 2), ""),
    "gaps": (lambda: masks_of(0, 128, 255), ""),
    "objects": (masks_that_number_objects, ""),
    "white is 0": (masks_of_white_0, ""),
    "mixed": (masks_of_two_kinds, ""),
    "dark": (image_of_twelve_bits, ""),
    "floats": (lambda: image_of_floats(9), ""),
    "bright": (image_of_twelve_bits, "--white 100"),
    "rgb": (lambda: save_rgb((0, 0, 0), (255, 0, 0)), ""),
    "gray as rgb": (lambda: save_rgb((0, 0, 0), (255, 255, 255)), ""),
    "unknown color": (lambda: save_rgb((0, 0, 0), (255, 0, 0)), "--colors 0,0,0=0"),
    "unknown value": (lambda: masks_of(0, 1, 2), "--values 0=0 1=1"),
    "several masks": (several_masks, ""),
    "large": (large, "--max-pixels 96"),
}
MORE = {  # what a fix of these kinds leaves to the reader
    "unknown color": "--colors 0,0,0=0 255,0,0=1",
    "unknown value": "--values 0=0 1=1 2=2",
    "palettes differ": "--colors 0,0,0=0 255,0,0=1 0,255,0=1",
}


@pytest.mark.parametrize("kind", WITH_OPTIONS)
def test_the_fix_of_a_finding_that_is_an_option_mends_it(kind, place, capsys):
    spoil, options = WITH_OPTIONS[kind]
    spoil()
    rule = FINDINGS[kind][1]
    status, said = say(f"{CHECK} {options}", capsys)
    assert rule in said, said
    told = said.partition(rule)[2].partition("Fix: ")[2].partition("level")[0]
    typed = MORE.get(kind) or re.search(r"`(--[\w-]+ [^`]+)`", told)[1]
    assert typed.split()[0] in told
    options = re.sub(rf"{typed.split()[0]} [^-]*", "", options)
    if kind == "one class":
        options = ""  # "without --ignore"
    status, said = say(f"{CHECK} {options} {typed}", capsys)
    if kind == "image alone":  # "remove images that have no mask"
        Path("images/z.png").unlink()
        status, said = say(f"{CHECK} {options} {typed}", capsys)
    assert rule not in said, said
    assert status == 0, said


def of_the_masks(change):
    """Return a function that mends all masks by a function of a picture."""

    def mend():
        for path in list(Path("masks").iterdir()):
            picture = Image.open(path)
            picture.load()
            path.unlink()
            change(picture).save(path.with_suffix(".png"))

    return mend


def replace(path, pixels, dtype="uint8"):
    """Return a function that writes a file in place of those of its stem."""

    def change():
        for other in Path(path).parent.glob(f"{Path(path).stem}.*"):
            if other.is_dir():
                other.rmdir()
            else:
                other.unlink()
        write(path, pixels, dtype)

    return change


def link(target):
    Path("masks/a.png").unlink()
    Path("masks/a.png").symlink_to(target)


def convert(path, suffix):
    Image.open(path).save(Path(path).with_suffix(suffix))
    Path(path).unlink()


def move_all(from_folder, to_folder):
    for path in list(Path(from_folder).iterdir()):
        path.rename(Path(to_folder, path.name))


def swap():
    Path("images").rename("kept")
    Path("masks").rename("images")
    Path("kept").rename("masks")


GOOD_IMAGE = replace("images/a.png", np.arange(96 * 3).reshape(8, 12, 3) % 256)
GOOD_MASK = replace("masks/a.png", np.eye(8, 12))
BLACK = np.zeros((8, 12))
SIGNED = np.linspace(-5, 90, 96).reshape(8, 12)
HOLES = np.where(SIGNED < 0, np.nan, SIGNED)


def turned():
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.open("images/a.png").save("images/a.png", exif=exif)


def turned_for_good():
    picture = np.asarray(Image.open("images/a.png"))
    Image.fromarray(picture).save("images/a.png")


# Kinds whose fix is work on the files: what is done to them, the words of the fix, and the work.
WITH_WORK = {
    "unreadable": (lambda: Path("images/a.png").write_bytes(b"?"), "export the file again",
                   GOOD_IMAGE),
    "not a file": (lambda: (Path("images/a.png").unlink(), Path("images/a.png").mkdir()),
                   "remove the folder", GOOD_IMAGE),
    "broken link": (lambda: link("gone.png"), "Put the file there",
                    lambda: write("masks/gone.png", np.eye(8, 12)) or link("../kept.png")
                    or Path("masks/gone.png").rename("kept.png")),
    "frames": (replace("images/a.tif", np.zeros((2, 8, 12, 3))), "a file of its own", GOOD_IMAGE),
    "not finite": (replace("images/a.npy", HOLES, "float32"), "numpy.nan_to_num",
                   replace("images/a.png", np.nan_to_num(HOLES))),
    "negative": (replace("images/a.tif", SIGNED, "int16"), "Add an offset",
                 replace("images/a.png", SIGNED + 5)),
    "lossy": (lambda: Image.fromarray(BLACK.astype("uint8")).save("masks/a.png", "JPEG"),
              "Export the masks again as PNG", GOOD_MASK),
    "alpha": (replace("masks/a.png", np.zeros((8, 12, 4))), "Remove the transparency", GOOD_MASK),
    "one-hot": (replace("masks/a.npy", np.eye(2)[np.eye(8, 12, dtype=int)]), "mask.argmax(-1)",
                lambda: replace("masks/a.png", np.load("masks/a.npy").argmax(-1))()),
    "fraction": (replace("masks/a.npy", np.eye(8, 12), "float32"), "as 8-bit PNG", GOOD_MASK),
    "label range": (replace("masks/a.npy", np.eye(8, 12) * 2**40, "int64"),
                    "Number the classes from 0", GOOD_MASK),
    "size": (replace("masks/a.png", np.eye(9, 12)), "at the image's size", GOOD_MASK),
    "duplicate": (lambda: write("images/a.bmp", BLACK), "Remove all but one",
                  Path("images/a.bmp").unlink),
    "copies": (lambda: shutil.copy("images/a.png", "images/b.png"), "all files of it but one",
               lambda: [Path(f"{folder}/b.png").unlink() for folder in ("images", "masks")]),
    "other kinds": (lambda: convert("masks/a.png", ".pgm"), "save them as one of these",
                    lambda: convert("masks/a.pgm", ".png")),
    "no pairs": (lambda: move_all("masks", "."), "name the masks after the images",
                 lambda: [Path(f"{name}.png").rename(f"masks/{name}_mask.png") for name in NAMES]),
    "swapped": (swap, "Give the folder of the images as the images", swap),
    "all masks empty": (lambda: masks_of(0), "exported as class numbers", GOOD_MASK),
    "all masks void": (lambda: masks_of(255), "draw the masks", lambda: masks_of(0, 1)),
    "empty mask": (replace("masks/a.png", BLACK), "draw the mask", GOOD_MASK),
    "void mask": (replace("masks/a.png", BLACK + 255), "draw the mask", GOOD_MASK),
    "class absent": (lambda: Path("classes.csv").write_text("label,name\n0,a\n1,b\n2,c\n"),
                     "Check the number of classes",
                     lambda: Path("classes.csv").write_text("label,name\n0,a\n1,b\n")),
    "turned": (turned, "Image.fromarray(numpy.asarray(Image.open(path))).save(path)",
               turned_for_good),
}  # fmt: skip


@pytest.mark.parametrize("kind", WITH_WORK)
def test_the_fix_of_a_finding_that_is_work_on_files_mends_it(kind, place, capsys):
    spoil, words, work = WITH_WORK[kind]
    spoil()
    rule = FINDINGS[kind][1]
    _, said = say(CHECK, capsys)
    assert rule in said, said
    assert words in said, said
    work()
    _, said = say(CHECK, capsys)
    assert rule not in said, said
    assert "errors: 0" in said, said


# What nothing but a note tells, or what is of one place: followed by itself.
OTHER_KINDS = {
    "bands": "of images for a network: test_a_command_is_mended_as_it_says",
    "no access": "nothing is closed to the user who runs the tests where that is root",
    "palette": "nothing to mend",
    "named": "nothing to mend",
}


def test_no_kind_of_finding_is_left_out():
    assert FINDINGS.keys() == {*WITH_OPTIONS, *WITH_WORK, *OTHER_KINDS}


IMAGE = np.random.default_rng(0).integers(0, 256, (8, 12, 3)).astype("uint8")
LABELS = np.eye(8, 12, dtype="uint8")
PALETTE = np.eye(3, dtype="uint8")
FIFTH = np.full((8, 12, 1), 0.2)
SCORES = np.random.default_rng(0).normal(size=(8, 12, 3))
SETTINGS = {"num_classes": 2, "filters": (2, 4)}


def classifier(size=9):
    layers = [keras.Input((size, size, 3)), keras.layers.Conv2D(2, 3), keras.layers.Flatten()]
    return keras.Sequential([*layers, keras.layers.Dense(2, activation="softmax")])


def two_outputs():
    image = keras.Input((None, None, 3))
    maps = [keras.layers.Conv2D(2, 1, activation="softmax")(image) for _ in range(2)]
    return keras.Model(image, maps)


def first_of(model):
    return keras.Model(model.inputs, model.outputs[0])


def without_input():
    dense = keras.layers.Dense(2, activation="softmax")
    return keras.Sequential([keras.layers.Conv2D(2, 3), keras.layers.Flatten(), dense])


def called(model):
    model(np.zeros((1, 9, 9, 3)))
    return model


def plain(name="last"):
    image = keras.Input((None, None, 3))
    layer = keras.layers.Conv2D(2, 1, activation="softmax", name=name)
    return keras.Model(image, layer(image))


def halved():
    """A network whose maps fit together at even sizes alone."""
    image = keras.Input((None, None, 3))
    half = keras.layers.UpSampling2D()(keras.layers.MaxPooling2D()(image))
    both = keras.layers.Concatenate()([image, half])
    return keras.Model(image, keras.layers.Conv2D(2, 1, activation="softmax")(both))


def of_one_size():
    image = keras.Input((8, 12, 3))
    scores = keras.layers.Dense(2, activation="softmax")(keras.layers.Reshape((96, 3))(image))
    return keras.Model(image, keras.layers.Reshape((8, 12, 2))(scores))


def curves_of(text):
    Path("log.csv").write_text(text)
    return keras_fcn.visualize.training_curves("log.csv")


def pages_to(output_format):
    """Predict a stack whose pages differ in size; raise what it is set aside for."""
    with tifffile.TiffWriter("stack.tif") as file:
        for rows in (8, 6):
            file.write(IMAGE[:rows], photometric="rgb")
    result = keras_fcn.predict_folder(unet(), "stack.tif", "out", output_format=output_format)
    for error in result.failed.values():
        raise ValueError(error)


def logits():
    model = keras_fcn.UNet(num_classes=1, filters=(2, 4), classifier_activation=None)
    kernel, bias = model.get_layer("score").get_weights()
    model.get_layer("score").set_weights([kernel, bias + 5])
    return model


def with_sigmoid(model):
    return keras.Sequential([model, keras.layers.Activation("sigmoid")])


def with_classes(model, classes):
    predictions = keras_fcn.layers.Predictions(None, classes=classes)
    return keras.Model(model.inputs, predictions(model.outputs[0]))


def channels_first(work):
    keras.config.set_image_data_format("channels_first")
    try:
        return work()
    finally:
        keras.config.set_image_data_format("channels_last")


def saved(name):
    (plain().save_weights if name.endswith("weights.h5") else plain().save)(name)
    return catalogue.load_model(name)


def converted(size):
    return predict(np.zeros((*size, 3), "uint8"), keras_fcn.fully_convolutional(classifier()))


@functools.cache
def unet():
    """A network that is compiled once."""
    return keras_fcn.UNet(**SETTINGS)


def predict(image, model=None, **options):
    return keras_fcn.predict_image(model or unet(), image, **options)


CLASSES = Classes(("ground", "cell"))
TWELVE_BITS = IMAGE.astype("uint16") * 16
LOSS = keras_fcn.losses.WeightedCrossentropy()
ONE_HOT = np.eye(3)[LABELS][None]
PROBABILITIES = np.full((1, 8, 12, 3), 1 / 3, "float32")

# The words of a message, what raises it, and all that it says to do instead.
CALLS = [
    ("`softmax` over one class is 1 everywhere.",
     lambda: keras_fcn.UNet(num_classes=1, filters=(2, 4)),
     [lambda: keras_fcn.UNet(**SETTINGS),
      lambda: keras_fcn.UNet(num_classes=1, filters=(2, 4), classifier_activation="sigmoid")]),
    ("keras_fcn builds models for the image data format",
     lambda: channels_first(lambda: keras_fcn.UNet(**SETTINGS)),
     [lambda: keras_fcn.UNet(**SETTINGS)]),
    ("The model takes one image of the shape", lambda: predict(np.moveaxis(IMAGE, -1, 0)),
     [lambda: predict(np.moveaxis(np.moveaxis(IMAGE, -1, 0), 0, -1))]),
    ("Pass the image alone, `image[0]`", lambda: predict(IMAGE[None]),
     [lambda: predict(IMAGE[None][0])]),
    ("If the fourth channel is opacity", lambda: predict(np.zeros((8, 12, 4), "uint8")),
     [lambda: predict(np.zeros((8, 12, 4), "uint8")[..., :3])]),
    ("The model takes pixels in [0, 255]. Received: an image of True and False.",
     lambda: predict(IMAGE > 99), [lambda: predict(np.uint8(255) * (IMAGE > 99))]),
    ("The model takes pixels in [0, 255]. Received: uint16 values", lambda: predict(TWELVE_BITS),
     [lambda: predict(TWELVE_BITS / 257), lambda: predict(TWELVE_BITS * (255 / 4095))]),
    ("which are all but black to it", lambda: predict(IMAGE / 255),
     [lambda: predict(255 * (IMAGE / 255)),
      lambda: predict(IMAGE / 255, keras_fcn.UNet(**SETTINGS, include_preprocessing=False))]),
    ("By its first layer the model", lambda: predict(IMAGE, normalized()),
     [lambda: predict(IMAGE * (1 / 255), normalized())]),
    ("An image should hold finite numbers.", lambda: predict(np.where(IMAGE < 9, np.nan, IMAGE)),
     [lambda: predict(np.nan_to_num(np.where(IMAGE < 9, np.nan, IMAGE)))]),
    ("`model` should be a built Keras model on images.", lambda: predict(IMAGE, without_input()),
     [lambda: predict(IMAGE, plain())]),
    ("A model to predict with should make one map", lambda: predict(IMAGE, two_outputs()),
     [lambda: predict(IMAGE, first_of(two_outputs()))]),
    ("a classifier becomes such a model by `keras_fcn.fully_convolutional(model)`",
     lambda: predict(np.zeros((9, 9, 3)), classifier()), [lambda: converted((9, 12))]),
    ("The image should be as large as the model's window.", lambda: converted((8, 12)),
     [lambda: converted((9, 12))]),
    ("The image should be of a size at which the maps that the model merges fit together.",
     lambda: predict(IMAGE[:7], halved()),
     [lambda: predict(IMAGE[:6], halved()), lambda: predict(IMAGE, halved())]),
    ("The image should be of the size for which the model was built, 8x12 pixels",
     lambda: predict(IMAGE[:7], of_one_size()),
     [lambda: predict(keras.ops.image.resize(IMAGE[:7], (8, 12)), of_one_size())]),
    ("One channel should be the probability of class 1, in [0, 1].",
     lambda: predict(IMAGE, logits(), output="labels"),
     [lambda: predict(IMAGE, with_sigmoid(logits()), output="labels")]),
    ("`y_true` should hold one label a pixel", lambda: LOSS(ONE_HOT, PROBABILITIES),
     [lambda: LOSS(ONE_HOT.argmax(-1), PROBABILITIES)]),
    ("A model keeps its classes in a layer", lambda: catalogue.set_classes(plain(), CLASSES),
     [lambda: catalogue.set_classes(with_classes(plain(), CLASSES), CLASSES)]),
    ("With `padding=\"valid\"` the image should be",
     lambda: keras_fcn.UNet(**SETTINGS, padding="valid")(IMAGE[None][:, :7]),
     [lambda: predict(IMAGE[:7], keras_fcn.UNet(**SETTINGS, padding="valid")),
      lambda: keras_fcn.UNet(**SETTINGS)(IMAGE[None][:, :7])]),
    ("`data` should be pairs of images and label maps.",
     lambda: keras_fcn.evaluate(unet(), "."),
     [lambda: keras_fcn.evaluate(unet(), keras_fcn.datasets.Pairs("."))]),
    ("Each element of `data` should be a pair of an image and a label map.",
     lambda: keras_fcn.evaluate(unet(), (IMAGE[None], LABELS[None])),
     [lambda: keras_fcn.evaluate(unet(), zip(IMAGE[None], LABELS[None], strict=True))]),
    ("A label map should have the size of the prediction. Received: one of (8, 12, 2)",
     lambda: keras_fcn.evaluate(unet(), [(IMAGE, np.eye(2)[LABELS])]),
     [lambda: keras_fcn.evaluate(unet(), [(IMAGE, np.eye(2)[LABELS].argmax(-1))])]),
    ("An image should have no masked pixels", lambda: predict(np.ma.masked_less(IMAGE, 9)),
     [lambda: predict(np.ma.masked_less(IMAGE, 9).filled(0))]),
    ("A label map should have no masked pixels",
     lambda: keras_fcn.evaluate(unet(), [(IMAGE, np.ma.masked_equal(LABELS, 1))]),
     [lambda: keras_fcn.evaluate(unet(), [(IMAGE, np.ma.masked_equal(LABELS, 1).filled(255))],
                                 ignore=255)]),
    ("A weights file does not say which network it belongs to.",
     lambda: saved("mine.weights.h5"), [lambda: saved("other.keras")]),
    ("`prediction` should be the probability of cell, in [0, 1].",
     lambda: keras_fcn.metrics.rand_information_scores(LABELS, IMAGE[..., 0]),
     [lambda: keras_fcn.metrics.rand_information_scores(LABELS, IMAGE[..., 0] / 255)]),
    ("The probabilities of two classes or more should add up to 1",
     lambda: keras_fcn.visualize.entropy_map(FIFTH),
     [lambda: keras_fcn.visualize.entropy_map(np.concatenate([1 - FIFTH, FIFTH], axis=-1))]),
    ("`probabilities` should be in [0, 1].", lambda: keras_fcn.visualize.entropy_map(SCORES),
     [lambda: keras_fcn.visualize.entropy_map(scipy.special.softmax(SCORES, axis=-1))]),
    ("A PNG file holds labels from 0 to",
     lambda: keras_fcn.visualize.write_label_map("l.png", LABELS - 1.0, np.zeros((2, 3))),
     [lambda: np.save("l.npy", LABELS - 1.0)]),
    ("An overlay takes an image (height, width, 3)",
     lambda: keras_fcn.visualize.overlay(np.zeros((8, 12, 5), "uint8"), LABELS, PALETTE, NAMES[:3]),
     [lambda: keras_fcn.visualize.overlay(
         np.zeros((8, 12, 5), "uint8")[..., [0, 2, 4]], LABELS, PALETTE, NAMES[:3])]),
    ("`model` should be a built Sequential or functional Keras model",
     lambda: keras_fcn.fully_convolutional(without_input()),
     [lambda: keras_fcn.fully_convolutional(classifier()),
      lambda: keras_fcn.fully_convolutional(called(without_input()))]),
    ("Every input of the classifier should be an image of fixed size",
     lambda: keras_fcn.fully_convolutional(plain()),
     [lambda: keras_fcn.fully_convolutional(classifier())]),
    ("A receptive field is that of one output.",
     lambda: keras_fcn.receptive_field(two_outputs()),
     [lambda: keras_fcn.receptive_field(first_of(two_outputs()))]),
    ("A label map has 8 bits, so it holds 256 classes at most.",
     lambda: keras_fcn.predict_folder(
         keras_fcn.UNet(num_classes=257, filters=(2, 2)), "images", "out"),
     [lambda: predict(IMAGE, keras_fcn.UNet(num_classes=257, filters=(2, 2)))]),
    ("`probabilities` should be (height, width, channels), in [0, 1].",
     lambda: keras_fcn.find_objects(SCORES),
     [lambda: keras_fcn.find_objects(predict(IMAGE))]),
    ("… should be a mapping {(red, green, blue): label}",
     lambda: keras_fcn.datasets.check_data("images", "masks", colors={"red": 1}),
     [lambda: keras_fcn.datasets.check_data(
         "images", "masks", colors={(0, 0, 0): 0, (255, 0, 0): 1})]),
    ("… should be a mapping {value: label}.",
     lambda: keras_fcn.datasets.check_data("images", "masks", values=[0, 1]),
     [lambda: keras_fcn.datasets.check_data("images", "masks", values={0: 0, 255: 1})]),
    ("… are of pixels that are integers.",
     lambda: keras_fcn.datasets.check_data("images", "masks", values={0: 0, 0.5: 1}),
     [lambda: keras_fcn.datasets.check_data("images", "masks", values={0: 0, 255: 1})]),
    ("The labels of … should be integers.",
     lambda: keras_fcn.datasets.check_data("images", "masks", values={0: 0, 1: 0.5}),
     [lambda: keras_fcn.datasets.check_data("images", "masks", values={0: 0, 1: 1})]),
    ("Masks that number objects have neither colours nor values of classes.",
     lambda: keras_fcn.datasets.Pairs(".", instances="two", values={0: 0, 1: 1}),
     [lambda: keras_fcn.datasets.Pairs(".", instances="two"),
      lambda: keras_fcn.datasets.Pairs(".", values={0: 0, 1: 1})]),
    ("'…' exists. Remove it, or choose another name.",
     lambda: keras_fcn.predict_into(unet(), IMAGE, "there.npy"),
     [lambda: keras_fcn.predict_into(unet(), IMAGE, "other.npy"),
      lambda: (Path("there.npy").unlink(),
               keras_fcn.predict_into(unet(), IMAGE, "there.npy"))]),
    ("A .keras file brings its network.",
     lambda: build(Recipe(".", weights="unet.keras", filters=(3, 4)), 2, 3),
     [lambda: build(Recipe(".", weights="unet.keras"), 2, 3),
      lambda: build(Recipe(".", filters=(3, 4)), 2, 3)]),
    ("The weights … take images of … channels.",
     lambda: build(Recipe(".", weights="unet.keras"), 2, 1),
     [lambda: build(Recipe(".", filters=(2, 4)), 2, 1)]),
    ("The layers with a filter for each class should be named score",
     lambda: (plain().save("plain.keras"), build(Recipe(".", weights="plain.keras"), 3, 3)),
     [lambda: (plain("score").save("score.keras"),
               build(Recipe(".", weights="score.keras"), 3, 3))]),
    ("The log should be a file of `keras.callbacks.CSVLogger`",
     lambda: curves_of("day,rain\n0,1\n"), [lambda: curves_of("epoch,loss\n0,1\n")]),
    ("The log should hold one epoch or more.",
     lambda: curves_of("epoch,loss\n"), [lambda: curves_of("epoch,loss\n0,1\n")]),
    ("Each line of the log should hold … numbers",
     lambda: curves_of("epoch,loss\n0,1\n1"), [lambda: curves_of("epoch,loss\n0,1\n")]),
    ("… should be a file written by `model.save_weights`",
     lambda: keras_fcn.UNet(**SETTINGS, weights="junk.weights.h5"),
     [lambda: keras_fcn.UNet(**SETTINGS, weights="unet.keras")]),
    ("An .npy file holds images of one size.", lambda: pages_to("labels.npy"),
     [lambda: pages_to("labels.tif")]),
    ("`saturation` and `hue` are of RGB images.",
     lambda: keras_fcn.datasets.Augmentation(hue=0.1)(IMAGE[..., :2], LABELS, (0, 1)),
     [lambda: keras_fcn.datasets.Augmentation()(IMAGE[..., :2], LABELS, (0, 1))]),
    ("'…' names a data set and a folder that is here",
     lambda: keras_fcn.datasets.resolve_source("camvid"),
     [lambda: keras_fcn.datasets.resolve_source("./camvid")]),
]  # fmt: skip

follows(*(message for message, *_ in CALLS))


@pytest.mark.parametrize(
    ("message", "call", "remedies"), CALLS, ids=[message[:40] for message, *_ in CALLS]
)
@pytest.mark.filterwarnings(
    "error:The model takes pixels", "error:'camvid' names a data set", "ignore:These layers of"
)
def test_a_call_is_mended_as_it_says(message, call, remedies, place):
    np.save("there.npy", LABELS)
    unet().save("unet.keras")
    Path("camvid").mkdir()
    Path("junk.weights.h5").write_bytes(b"junk")
    words = re.escape(message).replace("…", ".*")
    with pytest.raises((ValueError, OSError, UserWarning), match=words):
        call()
    for remedy in remedies:
        remedy()


def run_typed(said, before):
    """Do what the command of Python does that a message prints; return the new file."""
    command = re.search(rf"{before}`(python -c [^`]+)`, and pass `--weights ([^`]+)`", said)
    program, option, script = shlex.split(command[1])
    assert (program, option) == ("python", "-c")
    exec(script, {})
    return shlex.split(command[2])[0]


def normalized():
    """A network that was adapted to pixels in [0, 1]."""
    first = keras.layers.Normalization(mean=[0.5] * 3, variance=[0.05] * 3)
    return keras.Sequential([keras.Input((None, None, 3)), first, plain()])


def test_pixels_far_from_those_of_the_first_layer_can_be_scaled(place, capsys):
    normalized().save("own.keras")
    status, said = say("predict images --weights own.keras", capsys)
    assert status == 0
    assert said.count("By its first layer the model") == 1
    mended = run_typed(said, "Let the model scale the pixels: ")
    status, said = say(f"predict images --weights {mended} --output other", capsys)
    assert status == 0
    assert "By its first layer" not in said
    images = sorted(Path("images").iterdir())
    labels = predict(read_image(images[0], 3) / 255, load_model("own.keras"), output="labels")
    np.testing.assert_array_equal(Image.open(f"other/{images[0].stem}.png"), labels)


def shifted(channels, by=5.0):
    """A network of scores, which are no probabilities."""
    model = keras_fcn.UNet(num_classes=channels, filters=(2, 4), classifier_activation=None)
    kernel, bias = model.get_layer("score").get_weights()
    model.get_layer("score").set_weights([kernel, bias + by * (-1.0) ** np.arange(channels)])
    return model


# Commands that take more of a model than scores: which channels it has, and the command.
OF_SCORES = [
    (1, "predict images --weights {}"),
    (1, "predict images --weights {} --output-format probabilities.npy"),
    (1, "predict images --weights {} --ray --workers 2"),
    (1, "predict images --weights {} --objects"),
    (2, "predict images --weights {} --output-format outlines"),
    (1, "evaluate --weights {} --images images --masks masks"),
    (1, "evaluate --weights {} --images images --masks masks --objects"),
    (3, "evaluate --weights {} --images images --masks masks --objects --choose-thresholds"),
]


@follows("The scores of the model should be probabilities, in [0, 1].")
@pytest.mark.parametrize(("channels", "command"), OF_SCORES)
def test_scores_that_are_no_probabilities_are_told_before_the_first_image(
    channels, command, place, capsys
):
    shifted(channels).save("my scores.keras")
    before = sorted(place.rglob("*"))
    status, said = say(command.format("'my scores.keras'"), capsys)
    assert status == 1
    assert said.count("scores of the model should be") == 1
    assert sorted(place.rglob("*")) == before
    end = "sigmoid" if channels == 1 else "softmax"
    mended = run_typed(said, "Let the model end in one, by ")
    assert mended == f"my scores_{end}.keras"
    if "--ray" in command:
        command = command.partition(" --ray")[0]
    status, said = say(command.format(shlex.quote(mended)), capsys)
    assert status == 0, said
    label = 1 if channels == 1 else 0  # of the scores that are raised
    if Path("predictions/a.png").exists():
        assert set(np.unique(Image.open("predictions/a.png"))) == {label}


@pytest.mark.filterwarnings("ignore:These layers of")
def test_scores_that_are_no_probabilities_are_told_by_functions(place):
    from keras_fcn.page.answers import find_model

    scores, message = shifted(1), "scores of the model should be probabilities"
    scores.save("scores.keras")
    for call in (
        lambda: keras_fcn.predict_into(scores, IMAGE, "labels.npy"),
        lambda: keras_fcn.predict_folder(scores, "images", "out"),
        lambda: keras_fcn.evaluate(scores, [(IMAGE, LABELS)]),
        lambda: keras_fcn.evaluate(shifted(2), [(IMAGE, LABELS)], objects=True),
        lambda: find_model("scores.keras"),
        lambda: keras_fcn.inference.choose_thresholds(scores, [(IMAGE, LABELS)]),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert not Path("out").exists()
    # scores of two classes have labels, and scores as they are may be asked for
    assert keras_fcn.evaluate(shifted(2), [(IMAGE, LABELS * 0)])["mean_iou"] == 1
    keras_fcn.predict_into(scores, IMAGE, "scores.npy", output="probabilities")
    np.testing.assert_allclose(np.load("scores.npy"), predict(IMAGE, scores), rtol=1e-5)
    # a network that is trained gets its activation, or is refused
    trained = build(Recipe(".", weights="scores.keras"), 1, 3)
    expected = scipy.special.expit(predict(IMAGE, scores))
    np.testing.assert_allclose(predict(IMAGE, trained), expected, rtol=1e-4)
    keras.Model(scores.inputs, scores.layers[-2].output * 2).save("twice.keras")
    with pytest.raises(ValueError, match=message):
        build(Recipe(".", weights="twice.keras"), 1, 3)


@pytest.mark.parametrize(
    "end",
    [
        lambda x: keras.ops.sigmoid(x),
        lambda x: keras.layers.Activation("sigmoid", name="end")(x),
        lambda x: keras_fcn.layers.Predictions(None, name="end")(
            keras.layers.Activation("sigmoid")(x)
        ),
        lambda x: keras.layers.Rescaling(0.5, 0.5)(keras.layers.Activation("tanh")(x)),
        lambda x: keras.ops.clip(x, 0, 1),
        lambda x: keras.Sequential([keras.layers.Activation("sigmoid")])(x),
    ],
)
def test_probabilities_are_taken_however_a_model_makes_them(end, place):
    scores = shifted(1, 0)
    model = keras.Model(scores.inputs, end(scores.outputs[0]))
    assert keras_fcn.evaluate(model, [(IMAGE, LABELS)])["images"] == 1
    nested = keras.Sequential([keras.Input((None, None, 3)), model])
    assert keras_fcn.evaluate(nested, [(IMAGE, LABELS)])["images"] == 1


@follows("The one channel of a file should be the probability of class 1")
@pytest.mark.filterwarnings("ignore:Statistics for quantized")
def test_an_export_of_scores_says_so(place, capsys):
    shifted(1).save("scores.keras")
    status, said = say("export --weights scores.keras --format onnx", capsys)
    assert status == 0
    assert "as without a sigmoid" in said
    mended = run_typed(said, "Export ")
    status, said = say(f"export --weights {mended} --format onnx", capsys)
    assert status == 0
    assert "warning" not in said
    image = IMAGE[None].astype("float32")
    scores, probabilities = (
        keras_fcn.exports.open_export(path).predict(image)
        for path in ("scores.onnx", "scores_sigmoid.onnx")
    )
    np.testing.assert_array_equal(scores > 0, probabilities > 0.5)
    np.testing.assert_allclose(scipy.special.expit(scores), probabilities, rtol=1e-4)


@follows("The conversion to ONNX takes about")
def test_a_conversion_that_may_not_fit_into_memory_is_told(place, model, monkeypatch, capsys):
    monkeypatch.setattr(keras_fcn.inference.memory, "free_memory", lambda: 10_000)
    status, said = say("export --weights mine.keras --format onnx", capsys)
    assert status == 0
    assert "of the weights. Received: 'unet'" in said
    assert "Take `--format openvino`" in said
    status, said = say("export --weights mine.keras --format openvino", capsys)
    assert status == 0
    assert "memory" not in said
    message = re.escape("Take `engine='openvino'`")
    with pytest.warns(UserWarning, match=message):
        predict(IMAGE, model, engine="onnx")
    predict(IMAGE, model, engine="openvino")


@follows(
    "A model for predictions should make a map (batch, height, width, classes). Received: …, a "
    "classifier",
    "A model for predictions should take one image and make one map.",
)
@pytest.mark.parametrize(
    ("make", "before"),
    [(classifier, "Let it slide over the image: "), (two_outputs, "Save the part that you need: ")],
)
def test_a_file_that_makes_no_map_is_made_one_that_does(make, before, place, capsys):
    make().save("mine's.keras")
    status, said = say(["predict", "images", "--weights", "mine's.keras"], capsys)
    assert status == 1
    mended = run_typed(said, before)
    if make is classifier:
        for name in NAMES:
            write(f"images/{name}.png", np.zeros((9, 12, 3)))
    assert say(["predict", "images", "--weights", mended], capsys)[0] == 0


def test_a_model_gets_a_place_for_its_classes_as_it_is_typed(place, capsys):
    plain().save("plain.keras")
    command = "evaluate --weights {} --images images --masks masks --objects --choose-thresholds"
    status, said = say(command.format("plain.keras"), capsys)
    assert status == 1
    assert say(command.format(run_typed(said, "Append one: ")), capsys)[0] == 0


def test_what_no_command_does_is_done_in_python(place, capsys):
    keras_fcn.UNet(num_classes=257, filters=(2, 2)).save("257.keras")
    status, said = say("predict images --weights 257.keras", capsys)
    assert status == 1
    assert "There is no command for more" in said
    call = re.search(r"in Python call `([^`]+)`", said)[1]
    assert eval(call, {"keras_fcn": keras_fcn, "image": IMAGE}).shape == (8, 12, 257)
    keras_fcn.fully_convolutional(classifier(5)).save("slides.keras")
    status, said = say("evaluate --weights slides.keras --images images --masks masks", capsys)
    assert status == 1
    assert "There is no command for that" in said
    call = re.search(r"in Python call `([^`]+)`", said)[1]
    names = {"keras_fcn": keras_fcn, "pairs": [(IMAGE, LABELS[2:-2, 2:-2])]}
    assert eval(call, names)["images"] == 1


@follows("`augment` should be an `Augmentation`, or None.")
def test_an_augmentation_is_given_as_it_says():
    for call in (
        lambda augment: Recipe("data", augment=augment),
        lambda augment: keras_fcn.datasets.load("shapes/cells", "train", augment=augment),
    ):
        with pytest.raises(ValueError, match=r"Received: \{'scale': 0.25\}") as error:
            call({"scale": 0.25})
        call(eval(re.search(r"`(keras_fcn.datasets[^`]+)`", str(error.value))[1]))


# Tests of other files that follow the remedy of a message, or see it followed.
ELSEWHERE = {
    "Call it outside of the scope":
        "training::test_a_scope_of_the_caller_is_refused_before_anything_is_trained",
    "The layer … of the model needs blobs of the shapes": "caffe::test_fcn_gives_what_opencv_gives",
    "`model` should have layers with weights.": "caffe::test_fcn_gives_what_opencv_gives",
    "as this version of Keras reads them.": "caffe::test_a_damaged_conversion",
    "The PASCAL VOC weights belong to": "caffe::test_the_published_sizes",
    "A subclass of `keras.Model` should be made":
        "convolutionize::test_subclassed_models_are_followed_through_their_call",
    "The weights … belong to":
        "weights::test_other_number_of_classes_keeps_all_but_the_score_layer",
    "A model for predictions should take one image": "catalogue::test_any_model_of_maps_is_loaded",
    "A model for predictions should be functional": "catalogue::test_any_model_of_maps_is_loaded",
    "The folder of … should hold": "datasets::test_builders_say_what_their_folder_should_hold",
    "A file of the format … should end in": "exports::test_gives_what_keras_gives",
    "An export does not replace what exists.": "exports::test_command",
    "Images should be numbers of the shape": "exports::test_gives_what_keras_gives",
    "The zoo knows maps whose pixels": "exports::test_a_converted_classifier",
    "The zoo asks how much of the image":
        "bioimageio::test_the_zoo_takes_no_network_in_which_all_pixels_meet",
    "An exported file should be whole": "exports::test_the_file_knows_its_classes",
    "should be one that the processor computes in.":
        "engines::test_bfloat16_needs_the_engine_and_the_processor",
    "The engine … should give Keras's scores.": "engines::test_an_engine_that_is_wrong_is_refused",
    "The engine … should know the layers":
        "engines::test_a_layer_that_an_engine_does_not_know_is_told_in_a_line",
    "A network in integers of 8 bits needs images": "quantize::test_images_to_calibrate_on",
    "… should hold at least … images": "quantize::test_images_to_calibrate_on",
    "The images of … should be as large as": "quantize::test_images_to_calibrate_on",
    "A PNG file has 16 bits": "folders::test_more_objects_than_16_bits_in_32",
    "The output folder should stay": "trouble::test_a_lost_share_of_the_predictions",
    "One run at a time may write into a folder.": "folders::test_two_runs_at_once_are_refused",
    "Averages, by …, are of maps of the image's size.":
        "commands::test_a_map_of_another_size_is_refused_before_the_first_image",
    "Objects are measured in a map of the image's size.":
        "commands::test_a_map_of_another_size_is_refused_before_the_first_image",
    "The model's map should have the size of the image":
        "commands::test_a_map_of_another_size_is_refused_before_the_first_image",
    "Thresholds are stored in a .keras file.":
        "commands::test_thresholds_that_cant_be_stored_are_refused",
    "Class names should be a list": "training::test_one_text_is_not_taken_for_its_letters",
    "Classes that the data does not name keep":
        "training::test_classes_of_the_weights_stay_where_the_data_names_none",
    "A label should mean to the weights":
        "training::test_a_class_that_the_weights_know_as_void_is_asked_about",
    "Maps of objects should number each":
        "evaluation::test_a_mask_of_classes_is_no_map_of_objects",
    "Some instance map should number an object":
        "objects::test_thresholds_are_chosen_by_f1",
    "Images should be files of the kinds": "folders::test_files_of_other_kinds_are_told",
    "The validation images should be others":
        "training::test_images_that_are_trained_on_and_validated_on_are_told",
    "… should be one folder of images and masks":
        "training::test_a_pair_of_folders_is_no_data_to_train_on",
    "… should fit the 32 bits of label maps.":
        "training::test_a_void_label_that_label_maps_can_not_hold_is_refused",
    "The output folder should hold no finished run.":
        "training::test_a_finished_run_says_how_to_go_on",
    "The output folder should be new or empty": "training::test_folder_of_other_files_is_refused",
    "An interrupted run goes on with the parameters":
        "training::test_other_parameters_are_refused_with_a_way_on",
    "'…' should hold the parameters": "training::test_a_record_that_holds_something_else_is_named",
    "should be whole, as the run wrote it.": "training::test_a_damaged_file_of_a_run_is_named",
    "A network to train should have weights that are floats.":
        "training::test_quantized_weights_are_not_trained_on",
    "Loss and weights should stay finite.":
        "training::test_a_later_divergence_leaves_the_last_good_weights",
    "The log should have a row of numbers": "training::test_a_damaged_log_is_kept_beside",
    "The labels should be 0 to …, or the ignore label":
        "training::test_classes_are_asked_for_as_they_were_given",
    "should hold the files of the search.":
        "tuning::test_files_of_a_kill_in_the_middle_are_set_right",
    "The settings of objects should be those": "objects::test_settings_that_are_none_are_refused",
    "The search should be done.": "tuning::test_search_survives_kill_9_and_the_best_is_trained",
    "A search should have left": "tuning::test_search_survives_kill_9_and_the_best_is_trained",
    "The images should have … channels, as `input_shape":
        "tuning::test_images_of_other_channels_are_refused_before_a_trial_is_trained",
    "The network should have at most":
        "tuning::test_parameters_are_counted_before_they_take_memory",
    "Of the data sets, … numbers objects.": "commands::test_objects_of_data_without_them",
    "`tune` searches in one process.": "tuning::test_chief_and_two_workers_on_loopback",
    "… downloads VGG16's weights.": "weights::test_a_failed_download_says_where_to_put_the_file",
    "A picture should be less narrow": "page::test_pictures_too_narrow_or_too_long_are_refused",
    "which a JPEG file can be.": "page::test_pictures_too_narrow_or_too_long_are_refused",
    "The page should be bound to a free address.":
        "page::test_what_is_wrong_is_told_before_anything_takes_time",
    "A picture should have … MB or less.": "page::test_what_is_no_picture_is_explained",
    "as many as the machines have room for":
        "clusters::test_what_can_t_be_is_told_before_anything_is_started",
    "All processes should see the images":
        "clusters::test_what_can_t_be_is_told_before_anything_is_started",
    "alone. Pass both or leave it out.":
        "clusters::test_what_can_t_be_is_told_before_anything_is_started",
    "holds the … of another run, with other": "trouble::test_two_at_a_time_and_other_settings",
}  # fmt: skip

# Why the remedy of a message is followed by no test.
PACKAGE = "a package would have to be removed and installed"
DAMAGED = "the file of another publisher would have to be fetched, or this package installed anew"
BACKEND = "another backend needs a process of its own"
NOT_TRIED = {
    "Install it by `pip install": PACKAGE,
    "Install it: `pip install": PACKAGE,
    "Install with `pip install": PACKAGE,
    "Run `pip install": PACKAGE,
    "Reinstall the package": DAMAGED,
    "Fetch the file": DAMAGED,
    "VGG16's weights should be": DAMAGED,
    "it may be truncated": DAMAGED,
    "Load such a model with `model.load_weights`": DAMAGED,
    "works on the backend": BACKEND,
    "VOC2011's segmentation val": DAMAGED,
    "No image should be both trained and validated on.": DAMAGED,
    "Nothing is written; export to another format": "no other format is sure to take the model",
    "convert the part before it": "which part that is depends on the layer",
    "train again with a lower learning rate": "it may take days",
    "Call `keras_fcn.predict_image`": "it is what most tests call",
    "A model should be chosen.": "it is done with the mouse",
    "The address should be open to you.": "rights are its provider's to give",
    "The cluster of Ray should stay": "one of several machines would have to be lost",
}

VERBS = (
    "Pass Use Give Choose Set Install Run Call Save Build Leave Take Append Fetch Reinstall Remove "
    "Write Train Predict Crop Cut Scale Export Put Wait Add Name Map Move Enlarge Fill Divide Send "
    "Start Drop Delete Unset Press Bring Let Replace Load pass leave call use choose remove write "
    "apply take raise draw"
)
REMEDY = re.compile(
    rf"Received.*\b({VERBS.replace(' ', '|')})\b|^(?!.*Received).*\b(Install|Run)\b"
)


def text_of(node):
    """Return the text of an expression, with … for what is put in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(x.value if isinstance(x, ast.Constant) else "…" for x in node.values)
    if isinstance(node, ast.BinOp):
        return text_of(node.left) + text_of(node.right)
    return "…"


def messages():
    """Yield the place and the text of each error and warning of the package."""
    for path in sorted(Path(ROOT, "keras_fcn").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and node.args:
                name = ast.unparse(node.func)
                if name.endswith(("Error", "warn", "parser.error")):
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", text_of(node.args[0])


def test_no_remedy_is_left_out():
    """Each message that says what to do is followed by a test, or there is a reason."""
    known = [*FOLLOWED, *ELSEWHERE, *NOT_TRIED]
    texts = dict(messages())
    left = {
        place: text
        for place, text in texts.items()
        if REMEDY.search(text) and not any(words in text for words in known)
    }
    assert not left, "\n".join(f"{place} {text}" for place, text in left.items())


def test_what_follows_a_remedy_is_there():
    texts = dict(messages()).values()
    gone = [words for words in (*ELSEWHERE, *NOT_TRIED) if not any(words in x for x in texts)]
    assert not gone
    for test in ELSEWHERE.values():
        file, name = test.split("::")
        assert f"def {name}(" in Path(ROOT, "tests", f"test_{file}.py").read_text(), test
