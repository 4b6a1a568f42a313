"""`keras-fcn export`: write a model as a file of another runtime."""

from pathlib import Path

from keras_fcn.commands.shared import add_calibration, add_weights

FORMATS = ("saved_model", "onnx", "litert", "openvino", "bioimageio")
SUFFIXES = dict(zip(FORMATS, ("_saved_model", ".onnx", ".tflite", ".xml", ".zip"), strict=True))
EXAMPLE = "keras-fcn export --weights unet_camvid --format onnx"


def add(commands):
    """Add `keras-fcn export` to the commands."""
    export = commands.add_parser(
        "export",
        help="write a model as a file for another runtime",
        description="Writes a model as a file that runs without Keras, for images of any size, "
        "with the names and colours of its classes; runs the file in its own runtime, and prints "
        "how far that is from Keras.",
    )
    add_weights(export)
    export.add_argument(
        "--format",
        required=True,
        choices=FORMATS,
        help="what to write: a SavedModel of TensorFlow, a file of ONNX, LiteRT or OpenVINO, or a "
        "package of the BioImage Model Zoo",
    )
    export.add_argument(
        "--output",
        type=Path,
        metavar="PATH",
        help="file, or folder for a SavedModel (default: the name of the weights, here)",
    )
    export.add_argument(
        "--int8",
        action="store_true",
        help="with --format openvino or onnx: integers of 8 bits, faster on processors that have "
        "them, and a quarter of the size",
    )
    add_calibration(export)
    export.set_defaults(run=run)


def run(options):
    """Run `keras-fcn export`."""
    from keras_fcn.catalogue import load_model
    from keras_fcn.exports import export

    output = options.output
    if output is None:
        output = Path(Path(options.weights).name.removesuffix(".keras") + SUFFIXES[options.format])
    difference = export(
        load_model(options.weights),
        output,
        options.format,
        "int8" if options.int8 else "float32",
        options.calibration,
    )
    print(f"{output}: run in its own runtime, at most {difference:.1e} from Keras")
