"""The command `keras-fcn`."""

import argparse
import os
import sys
from pathlib import Path


def main(arguments=None):
    """Run the command line; return the exit status."""
    options = _parser().parse_args(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        options.run(options)
    except (ValueError, OSError) as error:
        print(f"keras-fcn: error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser():
    parser = argparse.ArgumentParser(
        prog="keras-fcn", description="Fully convolutional networks and U-Nets for Keras."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    predict = commands.add_parser(
        "predict",
        help="segment images",
        description="Writes DIR/<stem>.png, a palette PNG whose pixel values are the classes, and "
        "DIR/<stem>_overlay.png, the image with the classes laid over it and a legend.",
    )
    predict.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    predict.add_argument(
        "--weights",
        required=True,
        metavar="NAME|FILE",
        help="a name that `keras-fcn models` lists, or a model saved as a .keras file",
    )
    predict.add_argument("--output", type=Path, default=Path("predictions"), metavar="DIR")
    predict.add_argument(
        "--tile-size", type=int, metavar="N", help="predict large images in tiles of N pixels"
    )
    predict.set_defaults(run=_predict)

    models = commands.add_parser("models", help="list the pretrained weights")
    models.set_defaults(run=_models)
    return parser


def _predict(options):
    from rich.progress import track

    from keras_fcn.inference import predict_image
    from keras_fcn.visualize import overlay, write_label_map, write_png

    _check_stems(options.images)
    model, classes, palette = _load_model(options.weights)
    options.output.mkdir(parents=True, exist_ok=True)
    written = []
    for path in track(options.images, "Predicting", transient=True):
        image = _read_image(path, model.input_shape[-1])
        label_map = predict_image(model, image, options.tile_size).argmax(-1)
        label_file = options.output / f"{path.stem}.png"
        overlay_file = options.output / f"{path.stem}_overlay.png"
        write_label_map(label_file, label_map, palette)
        write_png(overlay_file, overlay(image, label_map, palette, classes))
        written.append(f"{path}: label map {label_file}, overlay {overlay_file}")
    print("\n".join(written))


def _check_stems(images):
    """Raise unless every image has a name, and so outputs, of its own."""
    by_stem = {}
    for path in images:
        other = by_stem.setdefault(path.stem, path)
        if other is not path:
            raise ValueError(
                "The outputs are named after the images, so their names should differ. Received: "
                f"'{other}' and '{path}'. Predict them into two folders."
            )


def _load_model(weights):
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
    return model, [f"class {i}" for i in range(num_classes)], voc_palette(num_classes)


def _read_image(path, channels):
    """Return the uint8 pixels `(height, width, channels)` of an image file, upright."""
    import numpy as np
    from PIL import Image, ImageOps

    modes = {1: "L", 3: "RGB"}
    if channels not in modes:
        raise ValueError(
            "Image files have 1 or 3 channels. Received: a model that takes "
            f"{channels}. Call `keras_fcn.predict_image` with an array instead."
        )
    with Image.open(path) as picture:
        picture = ImageOps.exif_transpose(picture).convert(modes[channels])
    return np.asarray(picture).reshape(picture.height, picture.width, channels)


def _models(options):
    from rich.console import Console
    from rich.table import Table

    from keras_fcn.weights import pretrained

    table = Table("name", "network", "classes", "dataset", "mean IoU")
    for name, card in pretrained().items():
        metric = card["metric"]
        table.add_row(
            name,
            card["factory"],
            str(len(card["classes"])),
            card["dataset"],
            f"{100 * metric['mean_iou']:.1f} ({metric['split']})",
        )
    Console().print(table)
