"""What the commands share: options, and the model that they name."""

import argparse
import contextlib
import json
import re
from pathlib import Path


def add_model(parser):
    parser.add_argument(
        "--weights",
        required=True,
        metavar="NAME|FILE",
        help="a name that `keras-fcn models` lists, or a model saved as a .keras file",
    )
    parser.add_argument(
        "--tile-size", type=int, metavar="N", help="predict large images in tiles of N pixels"
    )
    parser.add_argument(
        "--tta",
        action="store_true",
        help="test-time augmentation: average over flips, rotations and scales as the card of the "
        "weights says, for a .keras file over the image and its mirror image",
    )


def add_folders(parser):
    parser.add_argument("--images", required=True, type=Path, metavar="DIR")
    parser.add_argument(
        "--masks", required=True, type=Path, metavar="DIR", help="0001.png belongs to 0001.jpg"
    )


def add_mask_options(parser):
    parser.add_argument(
        "--ignore",
        type=int,
        metavar="LABEL",
        help="the label of void pixels (default: that of the data set or the weights, else 255)",
    )
    parser.add_argument(
        "--values",
        nargs="+",
        type=_label_of_value,
        metavar="VALUE=LABEL",
        help="what the pixels of the masks stand for, as 0=0 255=1",
    )
    parser.add_argument(
        "--colors",
        nargs="+",
        type=_label_of_color,
        metavar="R,G,B=LABEL",
        help="what the colours of the masks stand for, as 0,0,0=0 128,64,128=1",
    )


def add_file_options(parser):
    """Add what says how image files and masks are read."""
    add_image_options(parser)
    parser.add_argument(
        "--mask-suffix",
        metavar="TEXT",
        help="what masks have in their names besides those of the images (default: nothing, else "
        "_mask, _label and the like)",
    )
    parser.add_argument(
        "--instances",
        choices=("two", "border"),
        help="the masks number objects, or are several an image, one for each object: two for the "
        "classes background and object, border for a third class where objects touch",
    )


def add_image_options(parser):
    """Add what says how image files are read."""
    parser.add_argument(
        "--white",
        type=float,
        metavar="VALUE",
        help="the value of pixels of more than 8 bits that becomes 255, as 4095 for a 12-bit "
        "camera (default: what the file says, else 65535)",
    )
    parser.add_argument(
        "--max-pixels",
        type=int,
        metavar="N",
        help="the most pixels that an image may have (default: about 179 million)",
    )


def add_data_options(parser):
    """Add what says which data to learn from, and in which batches."""
    data = parser.add_argument_group("data")
    data.add_argument("--split", help='what to train on, as "all[:80%%]" (default "train")')
    data.add_argument("--validation", help='what to validate on, as "all[80%%:]" (default "val")')
    data.add_argument(
        "--classes",
        dest="num_classes",
        type=int,
        metavar="N",
        help="number of classes (default: as the data set or the masks show)",
    )
    add_mask_options(data)
    data.add_argument("--crop-size", type=int, metavar="N", help="side of the crops (default 256)")
    data.add_argument("--batch-size", type=int, metavar="N", help="crops in a step (default 4)")
    data.add_argument(
        "--augment",
        nargs="+",
        type=_augmentation,
        metavar="NAME=VALUE",
        help="flip, rotation, scale, contrast, brightness, elastic, saturation, hue, as of "
        "`keras_fcn.datasets.Augmentation`; or none (default: flip=horizontal scale=0.25 "
        "contrast=0.2 brightness=0.1)",
    )


def _label_of_value(text):
    match = re.fullmatch(r"(-?\d+)=(\d+)", text)
    if match is None:
        raise argparse.ArgumentTypeError(
            "each value of the masks should come with its label, VALUE=LABEL, both integers. "
            f"Received: {text!r}. Write for example 0=0 255=1."
        )
    return int(match[1]), int(match[2])


def _label_of_color(text):
    match = re.fullmatch(r"(\d+),(\d+),(\d+)=(\d+)", text)
    if match is None:
        raise argparse.ArgumentTypeError(
            "each colour of the masks should come with its label, RED,GREEN,BLUE=LABEL, all "
            f"integers. Received: {text!r}. Write for example 0,0,0=0 128,64,128=1, without spaces."
        )
    *color, label = map(int, match.groups())
    return tuple(color), label


def _augmentation(text):
    name, equals, value = text.partition("=")
    if text == "none":
        return None
    with contextlib.suppress(ValueError):
        if equals:
            return name, value if name == "flip" else float(value)
    raise argparse.ArgumentTypeError(
        f"an augmentation should be NAME=VALUE, or none. Received: {text!r}. Write for example "
        "flip=horizontal rotation=15 scale=0.25, each value but that of flip a number."
    )


def mapping(pairs):
    return None if pairs is None else dict(pairs)


def task_arguments(options):
    """Return the arguments of a `Recipe` or a `Search`, and the output folder."""
    from keras_fcn.datasets import Augmentation

    given = dict(vars(options))
    del given["run"]
    output = given.pop("output")
    for name in given.keys() & {"values", "colors"}:
        given[name] = dict(given[name])
    if "augment" in given:
        given["augment"] = _make_augmentation(given["augment"], Augmentation)
    return given, output


def _make_augmentation(pairs, factory):
    """Return the augmentation that `--augment` gives, with nothing besides."""
    if pairs == [None]:
        return None
    try:
        return factory(**{"flip": None, **dict(pairs)})
    except TypeError as error:
        raise ValueError(
            "`--augment` takes flip, rotation, scale, contrast, brightness, elastic, saturation "
            f"and hue, each as NAME=VALUE, or none. Received: {error}"
        ) from error


def test_time_augmentation(options):
    """Return what `--tta` adds to the arguments of `predict_image`."""
    from keras_fcn.cards import pretrained

    if not options.tta:
        return {}
    card = pretrained().get(options.weights, {})
    return card.get("test_time_augmentation", {"test_time_augmentation": True})


def load_model(weights):
    """Return the model, its class names and its palette."""
    import keras

    import keras_fcn
    from keras_fcn.visualize import voc_palette

    if not weights.endswith(".keras"):
        if Path(weights).exists():
            raise ValueError(
                "A weights file does not say which network it belongs to. Received: "
                f"'{weights}'. Save the whole model with `model.save('….keras')` and pass that."
            )
        model = keras_fcn.from_pretrained(weights)
        card = keras_fcn.pretrained()[weights]
        return model, card["classes"], card["palette"]
    if not Path(weights).exists():
        raise FileNotFoundError(f"There is no model file '{weights}'.")
    model = keras.saving.load_model(weights, compile=False)
    num_classes = model.output_shape[-1]
    return model, _class_names(Path(weights), num_classes), voc_palette(num_classes)


def _class_names(path, num_classes):
    """Return the names in the record that `keras-fcn train` left beside the model, else numbers."""
    record = path.with_name("training.json")
    if record.is_file():
        names = json.loads(record.read_text()).get("classes", [])
        if len(names) == num_classes:
            return names
    return [f"class {label}" for label in range(num_classes)]


def check_channels(channels):
    if channels not in (1, 3):
        raise ValueError(
            "Image files have 1 or 3 channels. Received: a model that takes "
            f"{channels}. Call `keras_fcn.predict_image` with an array instead."
        )
