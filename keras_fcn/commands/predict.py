"""`keras-fcn predict`: segment images."""

import sys
from pathlib import Path

from keras_fcn.commands.completion import choices
from keras_fcn.commands.errors import visible
from keras_fcn.commands.shared import add_image_options, add_model, prediction_options

SHOWN = 20  # images named on standard output
KINDS = ("labels", "overlay", "objects", "outlines", "probabilities")
TITLES = {"labels": "label map"}
EXAMPLE = "keras-fcn predict photo.jpg --weights unet_camvid"


def add(commands):
    """Add `keras-fcn predict` to the commands."""
    predict = commands.add_parser(
        "predict",
        help="segment images",
        description="Writes DIR/<stem>.png, a palette PNG whose pixel values are the classes, and "
        "DIR/<stem>_overlay.png, the image with the classes laid over it and a legend; and "
        "DIR/summary.csv, the pixels of each class. What can't be read is set aside in "
        "DIR/errors.csv, and the rest goes on. The same command again does what is missing. Of a "
        "TIFF file of several images each page is predicted, into TIFF files of as many pages.",
    )
    predict.add_argument(
        "images",
        nargs="+",
        metavar="PATH",
        help="an image, a folder with images, also deeper in it, or a pattern as 'slides/*/*.tif'; "
        "or an address of fsspec, as s3://bucket/photos",
    )
    add_model(predict)
    _add_output(predict)
    add_image_options(predict)
    _add_ray(predict)
    predict.set_defaults(run=run)


def _add_output(predict):
    """Add the options of what is written, and where."""
    predict.add_argument(
        "--output",
        default="predictions",
        metavar="DIR",
        help="where to write (default %(default)s), a folder or an address",
    )
    output_format = predict.add_argument(
        "--output-format",
        nargs="+",
        metavar="KIND[.SUFFIX]",
        help="write only these, of labels, overlay, probabilities (float32), objects (numbered) "
        "and outlines; as .png, .tif (tiled, compressed) or .npy, for example labels.tif "
        "probabilities.npy (default: labels.png overlay.png)",
    )
    output_format.completer = choices(KINDS)
    predict.add_argument(
        "--gray",
        action="store_true",
        help="label maps of plain class numbers, without colours, as OpenCV and scikit-image "
        "read them",
    )
    predict.add_argument(
        "--objects",
        action="store_true",
        help="also number the objects: DIR/<stem>_objects.png of 16 bits, DIR/<stem>_outlines.png "
        "and DIR/objects.csv",
    )


def _add_ray(predict):
    """Add the options of several processes."""
    predict.add_argument(
        "--ray",
        nargs="?",
        const=True,
        metavar="ADDRESS",
        help="predict in several processes by Ray: on this machine, or on those of the cluster at "
        "HOST:PORT or auto",
    )
    predict.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="with --ray: the processes, each of which loads the model (default: one for each GPU, "
        "else for every 2 processor cores)",
    )


def run(options):
    """Run `keras-fcn predict`; return the exit status."""
    from keras_fcn.catalogue import load_model
    from keras_fcn.inference import predict_folder

    model = load_model(options.weights)
    result = predict_folder(
        model,
        options.images,
        options.output,
        output_format=options.output_format,
        gray=options.gray,
        objects=options.objects,
        white=options.white,
        max_pixels=options.max_pixels,
        ray=options.ray,
        workers=options.workers,
        **prediction_options(options),
    )
    _print_result(result, options)
    return 1 if result.failed else 0


def _print_result(result, options):
    from keras_fcn.inference.addresses import below, place_of
    from keras_fcn.inference.formats import parse_formats

    output = place_of(options.output)
    kinds = parse_formats(options.output_format, options.objects)
    for image, files in list(result.done.items())[:SHOWN]:
        pairs = zip(kinds, files, strict=True)
        written = ", ".join(f"{TITLES.get(kind, kind)} {file}" for kind, file in pairs)
        print(visible(f"{image}: {written}"))
    if len(result.done) > SHOWN:
        print(f"and {len(result.done) - SHOWN} more in {output}")
    if result.skipped:
        print(f"{len(result.skipped)} were done before")
    if result.failed:
        image, error = next(iter(result.failed.items()))
        total = len(result.done) + len(result.skipped) + len(result.failed)
        told = (
            f"keras-fcn: {len(result.failed)} of {total} images failed and are in "
            f"{below(output, Path('errors.csv'))}, the first '{image}': {error}"
        )
        print(visible(told), file=sys.stderr)
