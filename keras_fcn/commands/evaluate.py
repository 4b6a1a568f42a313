"""`keras-fcn evaluate`: compare predictions with masks."""

import json
import warnings

from keras_fcn.commands.shared import (
    add_folders,
    add_mask_options,
    add_model,
    check_channels,
    load_model,
    mapping,
    test_time_augmentation,
)


def add(commands):
    evaluate = commands.add_parser(
        "evaluate",
        help="compare predictions with masks",
        description="Predicts every image and prints mean IoU and accuracies over all pixels, and "
        "the IoU of each class.",
    )
    add_model(evaluate)
    add_folders(evaluate)
    add_mask_options(evaluate)
    evaluate.add_argument("--json", action="store_true", help="print JSON instead of tables")
    evaluate.set_defaults(run=run)


def run(options):
    from rich.console import Console
    from rich.progress import track

    from keras_fcn.inference import predict_image
    from keras_fcn.metrics import SegmentationMetrics

    pairs = _list_pairs(options)
    model, classes, _ = load_model(options.weights)
    if len(classes) < 2:
        raise ValueError(
            "A model to evaluate should give scores of two classes or more. Received: one with "
            "one output channel."
        )
    averaging = test_time_augmentation(options)
    ignore = _ignore_label(options)
    metric = SegmentationMetrics(len(classes), ignore_class=ignore)
    console = Console(stderr=True)
    for image_path, mask_path in track(pairs, "Evaluating", transient=True, console=console):
        image, truth = _read_pair(image_path, mask_path, model.input_shape[-1], options)
        _check_labels(mask_path, truth, len(classes), ignore)
        prediction = predict_image(model, image, options.tile_size, **averaging).argmax(-1)
        metric.update_state(truth, prediction)
    scores = {name: float(value) for name, value in metric.result().items()}
    per_class = dict(zip(classes, metric.per_class_iou().tolist(), strict=True))
    if options.json:
        print(_to_json({**scores, "per_class_iou": per_class, "images": len(pairs)}))
    else:
        _print_scores(scores, per_class, len(pairs))


def _ignore_label(options):
    """The label given, else that of the weights' data, else 255."""
    from keras_fcn.cards import pretrained

    if options.ignore is not None:
        return options.ignore
    return pretrained().get(options.weights, {}).get("ignore_label", 255)


def _list_pairs(options):
    """Return the paths of images and masks, after a check of their names and of a sample."""
    from keras_fcn.datasets.check import check_sample
    from keras_fcn.datasets.folder import find_pairs

    listing = find_pairs((options.images, options.masks), "all")
    with warnings.catch_warnings():
        # of 255 in the masks, without --ignore; it is then the ignore label
        warnings.filterwarnings("ignore", "The masks hold the label 255")
        check_sample(
            listing,
            options.ignore,
            colors=mapping(options.colors),
            values=mapping(options.values),
        )
    return listing.pairs


def _read_pair(image_path, mask_path, channels, options):
    from keras_fcn.datasets.files import read_pair

    check_channels(channels)
    colors, values = mapping(options.colors), mapping(options.values)
    return read_pair(image_path, mask_path, channels, colors, values)


def _check_labels(path, labels, num_classes, ignore):
    """Raise for a label map with labels that the model does not know."""
    import numpy as np

    known = (labels >= 0) & (labels < num_classes) | (labels == ignore)
    wrong = np.unique(labels[~known]).tolist()
    if wrong:
        raise ValueError(
            f"The labels should be 0 to {num_classes - 1}, the classes of the model, or the ignore "
            f"label {ignore}. Received: {wrong[:8]} in '{path}'. If {wrong[0]} marks void pixels, "
            f"pass --ignore {wrong[0]}; else map the values of the masks with --values."
        )


def _to_json(scores):
    """Return JSON, in which scores that do not exist, NaN here, are null."""
    import math

    def clean(value):
        if isinstance(value, dict):
            return {name: clean(item) for name, item in value.items()}
        return None if isinstance(value, float) and math.isnan(value) else value

    return json.dumps(clean(scores))


def _print_scores(scores, per_class, images):
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table("class", "IoU")
    for name, iou in per_class.items():
        table.add_row(name, _percent(iou))
    console.print(table)
    table = Table("score", f"{images} images")
    for name, value in scores.items():
        table.add_row(name.replace("_", " "), _percent(value))
    console.print(table)


def _percent(share):
    return "-" if share != share else f"{100 * share:.1f}"  # NaN: of no pixel
