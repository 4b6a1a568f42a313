"""`keras-fcn evaluate`: compare predictions with masks."""

import json
import sys
import warnings
from pathlib import Path

from keras_fcn.commands import completion
from keras_fcn.commands.fields import mapping
from keras_fcn.commands.shared import (
    add_file_options,
    add_mask_options,
    add_model,
    prediction_options,
)
from keras_fcn.remedies import spell

EXAMPLE = "keras-fcn evaluate --weights runs/first/model.keras --data data --split 'all[80%:]'"


def add(commands):
    """Add `keras-fcn evaluate` to the commands."""
    evaluate = commands.add_parser(
        "evaluate",
        help="compare predictions with masks",
        description="Predicts every image and prints mean IoU and accuracies over all pixels, and "
        "the IoU of each class. What can't be read or does not fit is set aside with its error, "
        "and the rest goes on.",
    )
    add_model(evaluate)
    evaluate.add_argument("--images", type=Path, metavar="DIR", help="a folder of images")
    evaluate.add_argument(
        "--masks", type=Path, metavar="DIR", help="0001.png belongs to 0001.jpg in --images"
    )
    source = evaluate.add_argument(
        "--data",
        metavar="DIR|NAME",
        help="instead: a folder of images and masks, or a data set, as camvid or shapes/cells",
    )
    source.completer = completion.data
    evaluate.add_argument(
        "--split",
        metavar="SPLIT",
        help="what of --data to evaluate on, as val or 'all[80%%:]', unseen in training",
    )
    add_mask_options(evaluate)
    add_file_options(evaluate)
    evaluate.add_argument(
        "--objects",
        action="store_true",
        help="score objects; the masks number them, 0 is background",
    )
    evaluate.add_argument(
        "--choose-thresholds",
        action="store_true",
        help="with --objects: choose how objects are found by their F1 on these images, and store "
        "that in the .keras file; take validation images",
    )
    evaluate.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="also write DIR/scores.csv, the scores of each image, DIR/worst.png, the images of "
        "the lowest, and DIR/errors.csv, what was set aside; the same command again scores only "
        "what is new",
    )
    evaluate.add_argument("--json", action="store_true", help="print JSON instead of tables")
    evaluate.set_defaults(run=run)


def run(options):
    """Run `keras-fcn evaluate`; return the exit status."""
    from keras_fcn.catalogue import classes_of, load_model
    from keras_fcn.evaluation import evaluate
    from keras_fcn.evaluation_report import without_nan

    _check_data_options(options)
    model = load_model(options.weights)
    _check_model(options, model)
    ignore = options.ignore
    data, own_ignore = _open_data(options, model)
    if not (options.objects or options.instances):  # whose classes have names of no data
        _compare_classes(options, classes_of(model))
    if ignore is None and classes_of(model).ignore is None:
        ignore = own_ignore
    if options.choose_thresholds:
        _choose_thresholds(options, model, data)
    result = evaluate(
        model,
        data,
        ignore=ignore,
        objects=options.objects,
        output=options.output,
        **prediction_options(options),
    )
    if options.json:
        print(json.dumps(without_nan(result)))
    else:
        _print_scores(result)
    return 1 if "failed" in result else 0


def _check_model(options, model):
    """Raise for a model that can't be compared with masks, or that can't keep its thresholds."""
    from keras_fcn.catalogue import classes_of, set_classes
    from keras_fcn.inference.tiles import example_size

    image, made = example_size(model) or (None, None)
    if image != made:
        raise ValueError(
            "The model's map should have the size of the image, as the masks have. Received: "
            f"{options.weights!r}, which makes a map of {made[0]}x{made[1]} of {image[0]}x"
            f"{image[1]} pixels. There is no command for that: in Python call "
            f"`keras_fcn.evaluate(keras_fcn.load_model({options.weights!r}), pairs)`, of pairs of "
            "an image and a label map of the size of its map."
        )
    if not options.choose_thresholds:
        return
    set_classes(model, classes_of(model))  # raises where it has no place for them
    if not options.weights.endswith(".keras"):
        copy = f"{options.weights}.keras"
        call = f"import keras_fcn; keras_fcn.load_model('{options.weights}').save('{copy}')"
        raise ValueError(
            "Thresholds are stored in a .keras file. Received: --choose-thresholds with the "
            f"weights {options.weights!r}, which come with the package. Save a copy, by `python "
            f'-c "{call}"`, and pass --weights {copy}.'
        )


def _compare_classes(options, classes):
    """Warn where model and data both name their classes, and differ: numbers are compared."""
    from keras_fcn.classes import Classes
    from keras_fcn.datasets import read_classes

    names = classes.names
    source = options.data or (options.images, options.masks)
    ignore = classes.ignore if options.ignore is None else options.ignore
    found = read_classes(source, ignore=ignore)
    is_named = names != Classes.default(len(names)).names
    if is_named and found is not None and found.names[: len(names)] != names:
        warnings.warn(
            "Labels are compared by their numbers, so the classes of the data should be those of "
            f"the model. Received: {', '.join(found.names)} in the data, {', '.join(names)} in the "
            "model. If they mean the same, nothing is to mend; else map the labels, as "
            f"{spell('values', {0: 1, 1: 0})}.",
            stacklevel=2,
        )


def _choose_thresholds(options, model, data):
    """Choose how the model's objects are found, and store it in its file."""
    import dataclasses

    import keras

    from keras_fcn.atomic import remove_leftovers, replacing
    from keras_fcn.catalogue import classes_of, set_classes
    from keras_fcn.evaluation import read_pairs
    from keras_fcn.inference import choose_thresholds

    pairs = (pair for _, pair in read_pairs(data) if not isinstance(pair, Exception))
    chosen = choose_thresholds(model, pairs, **prediction_options(options))
    known = dataclasses.replace(classes_of(model), objects=chosen)
    set_classes(model, known)
    print(json.dumps(chosen), file=sys.stderr)
    whole = keras.saving.load_model(options.weights)  # with its optimizer
    set_classes(whole, known)
    remove_leftovers(Path(options.weights).parent)
    with replacing(options.weights) as beside:
        whole.save(beside)


def _check_data_options(options):
    """Raise unless the options say which data, in one of the two ways."""
    if options.choose_thresholds and not options.objects:
        raise ValueError(
            "Thresholds are chosen for objects. Received: --choose-thresholds without --objects. "
            "Pass both."
        )
    if options.objects and options.instances:
        raise ValueError(
            "Objects are scored by their numbers, classes of them otherwise. Received: --objects "
            f"with --instances {options.instances}. Pass one of them."
        )
    given = {name for name in ("images", "masks", "data", "split") if getattr(options, name)}
    if given not in ({"images", "masks"}, {"data", "split"}):
        received = " ".join(f"--{name}" for name in sorted(given)) or "none of these"
        raise ValueError(
            "The images to evaluate on are given by --images DIR and --masks DIR, or by --data "
            f"DIR|NAME and --split SPLIT. Received: {received}."
        )


def _open_data(options, model):
    """Return the images with their masks, and the void label of the data."""
    from keras_fcn.datasets.catalogue import SOURCES, resolve_source

    channels = model.inputs[0].shape[-1]
    if options.data is None:
        return _open_folder((options.images, options.masks), "all", channels, options), 255
    source = resolve_source(options.data)
    if not isinstance(source, str):
        return _open_folder(source, options.split, channels, options), 255
    return _open_name(source, channels, options), SOURCES[source.partition("/")[0]].ignore


def _open_name(name, channels, options):
    """Return a data set; gray images in as many channels as the model takes."""
    import tensorflow as tf

    from keras_fcn.datasets import load
    from keras_fcn.datasets.catalogue import refuse_file_options

    reading = _reading(options)
    if options.calibration is not None:  # whose images are files
        del reading["white"], reading["max_pixels"]
    refuse_file_options(name, reading)
    instances = {"instances": reading["instances"]} if reading["instances"] else {}
    dataset = load(name, options.split, ignore=options.ignore, **instances)
    if dataset.element_spec[0].shape[-1] == 1 and channels == 3:
        return dataset.map(lambda image, labels: (tf.repeat(image, 3, axis=-1), labels))
    return dataset


def _open_folder(source, split, channels, options):
    """Return the images and masks of a folder, or of two."""
    from keras_fcn.datasets import Pairs

    with warnings.catch_warnings():
        # of 255 in the masks, without --ignore; it is then the ignore label
        warnings.filterwarnings("ignore", "The masks hold the label 255")
        return Pairs(source, split, channels, ignore=options.ignore, **_reading(options))


def _reading(options):
    """Return how files are read."""
    return {
        "values": mapping("values", options.values),
        "colors": mapping("colors", options.colors),
        "white": options.white,
        "max_pixels": options.max_pixels,
        "mask_suffix": options.mask_suffix,
        "instances": "numbers" if options.objects else options.instances,
    }


def _print_scores(result):
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    scores = dict(result)
    images, per_class = scores.pop("images"), scores.pop("per_class_iou", {})
    scores.pop("failed", None)  # a warning has told of it
    if per_class:
        table = Table("class", "IoU")
        for name, iou in per_class.items():
            table.add_row(Text(name), _percent(iou))  # not str: a name may look like markup
        console.print(table)
    table = Table("score", f"{images} images")
    for name, value in scores.items():
        table.add_row(name.replace("_", " "), _percent(value))
    console.print(table)


def _percent(share):
    return "-" if share != share else f"{100 * share:.1f}"  # NaN: of no pixel
