"""What the commands share: options, and the model that they name."""

import argparse
import re

from keras_fcn.commands.completion import choices, weights
from keras_fcn.commands.fields import INSTANCES, pixel_label


def add_weights(parser):
    """Add the option that says which model."""
    option = parser.add_argument(
        "--weights",
        required=True,
        metavar="NAME|FILE",
        help="a name that `keras-fcn models` lists, or a model saved as a .keras file",
    )
    option.completer = weights


def add_model(parser):
    """Add the options that say which model predicts, and how."""
    add_weights(parser)
    tile_size = parser.add_argument(
        "--tile-size",
        type=_tile_size,
        metavar="N|auto",
        help="predict large images in pieces of N pixels a side, auto: as large as fit into the "
        "free memory; the result is the same",
    )
    tile_size.completer = choices(("auto", "512"))
    parser.add_argument(
        "--tta",
        action="store_true",
        help="test-time augmentation: average over flips, rotations and scales as the card of the "
        "weights says, for a .keras file over the image and its mirror image",
    )
    parser.add_argument(
        "--engine",
        choices=("keras", "openvino", "onnx"),
        default="keras",
        help="what computes (default %(default)s)",
    )
    parser.add_argument(
        "--precision",
        choices=("float32", "bfloat16", "int8"),
        default="float32",
        help="bfloat16 and int8 are faster, with --engine openvino on processors that have them "
        "(default %(default)s)",
    )
    add_calibration(parser)


def add_calibration(parser):
    """Add the option that says which images a network in 8 bits is calibrated on."""
    parser.add_argument(
        "--calibration",
        metavar="DIR",
        help="for int8: a folder of at least 10 images such as the network is for, without masks",
    )


def add_mask_options(parser, void="that of the data set or the weights, else 255"):
    """Add what says what the pixels of the masks stand for."""
    parser.add_argument(
        "--ignore",
        type=int,
        metavar="LABEL",
        help=f"the label of void pixels (default: {void})",
    )
    parser.add_argument(
        "--values",
        nargs="+",
        type=pixel_label,
        metavar="VALUE=LABEL",
        help="what the pixels of the masks stand for, as 0=0 255=1",
    )
    parser.add_argument(
        "--colors",
        nargs="+",
        type=pixel_label,
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
        choices=INSTANCES,
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
        type=count,
        metavar="N",
        help="the most pixels that an image may have (default: about 179 million)",
    )


def count(text):
    """Return an integer of at least 1."""
    if not re.fullmatch(r"0*[1-9]\d*", text):
        raise argparse.ArgumentTypeError(
            f"it should be an integer of at least 1. Received: {text!r}."
        )
    return int(text)


def _tile_size(text):
    if text == "auto":
        return text
    if not re.fullmatch(r"0*[1-9]\d*", text):
        raise argparse.ArgumentTypeError(
            f"it should be an integer of at least 1, or auto. Received: {text!r}. 512 is a good "
            "start."
        )
    return int(text)


def prediction_options(options):
    """Return the arguments of `predict_image` that the options give."""
    from keras_fcn.cards import pretrained

    given = {"tile_size": options.tile_size, "engine": options.engine}
    given["precision"] = options.precision
    if options.calibration is not None:
        from keras_fcn.inference import Calibration

        given["calibration"] = Calibration(options.calibration, options.white, options.max_pixels)
    if options.tta:
        card = pretrained().get(options.weights, {})
        given |= card.get("test_time_augmentation", {"test_time_augmentation": True})
    return given
