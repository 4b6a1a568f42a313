"""The command `keras-fcn`."""

import argparse
import json
import os
import sys
import warnings
from pathlib import Path


def main(arguments=None):
    """Run the command line; return the exit status."""
    options = _parser().parse_args(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        return options.run(options) or 0
    except (ValueError, OSError, ImportError) as error:
        print(f"keras-fcn: error: {error}", file=sys.stderr)
        return 1


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
    _add_model(predict)
    predict.add_argument("--output", type=Path, default=Path("predictions"), metavar="DIR")
    predict.set_defaults(run=_predict)

    _add_evaluate(commands)
    _add_train(commands)
    _add_tune(commands)
    _add_check_data(commands)

    models = commands.add_parser(
        "models",
        help="list the pretrained weights",
        description="Lists the pretrained weights, or prints the card of one as JSON: network, "
        "classes, data and its licence, scores, command, seed, hardware, sha256.",
    )
    models.add_argument("name", nargs="?", metavar="NAME", help="print the card of these weights")
    models.set_defaults(run=_models)
    return parser


def _add_evaluate(commands):
    evaluate = commands.add_parser(
        "evaluate",
        help="compare predictions with masks",
        description="Predicts every image and prints mean IoU and accuracies over all pixels, and "
        "the IoU of each class.",
    )
    _add_model(evaluate)
    _add_folders(evaluate)
    _add_mask_options(evaluate)
    evaluate.add_argument("--json", action="store_true", help="print JSON instead of tables")
    evaluate.set_defaults(run=_evaluate)


def _add_train(commands):
    train = commands.add_parser(
        "train",
        help="train a network",
        description="Trains a network, and writes the best model, DIR/model.keras, with its log, "
        "pictures and record. Interrupted, the same command goes on with the next epoch.",
        argument_default=argparse.SUPPRESS,  # so that the defaults are those of Recipe
    )
    train.add_argument(
        "--data",
        metavar="DIR|NAME",
        help="a folder of images and masks, or a data set, as camvid or shapes/cells",
    )
    train.add_argument("--output", required=True, type=Path, metavar="DIR")
    train.add_argument(
        "--from-tuning",
        type=Path,
        metavar="DIR",
        help="train what `keras-fcn tune` found, from fresh weights: network, optimizer, class "
        "weights, data, crops and batches are those of its best trial, unless given here. To go on "
        "from the weights of the search add --weights DIR/best.keras",
    )
    _add_data_options(train)

    network = train.add_argument_group("network")
    network.add_argument(
        "--model", metavar="MODEL", help="unet, fcn8s, fcn8s_at_once, fcn16s, fcn32s (default unet)"
    )
    network.add_argument(
        "--filters", nargs="+", type=int, metavar="N", help="U-Net: filters of each level"
    )
    network.add_argument(
        "--batch-norm", action=argparse.BooleanOptionalAction, help="batch normalisation"
    )
    network.add_argument(
        "--dropout",
        type=float,
        metavar="RATE",
        help="U-Net: of the two deepest levels (default 0.5)",
    )
    network.add_argument(
        "--upsampling", metavar="KIND", help="U-Net: transpose or bilinear (default transpose)"
    )
    network.add_argument("--encoder", metavar="ENCODER", help="U-Net: vgg16")
    network.add_argument("--fc-filters", type=int, metavar="N", help="FCN: filters of fc6 and fc7")
    network.add_argument(
        "--weights",
        type=lambda text: None if text == "none" else text,
        metavar="NAME|FILE",
        help="a name that `keras-fcn models` lists, imagenet, or a weights file (default none: "
        "from scratch)",
    )

    course = train.add_argument_group("course")
    course.add_argument("--epochs", type=int, metavar="N", help="(default 50)")
    course.add_argument(
        "--steps", type=int, metavar="N", help="steps in an epoch (default: each image once)"
    )
    course.add_argument("--optimizer", metavar="NAME", help="adamw, muon or sgd (default adamw)")
    course.add_argument(
        "--momentum", type=float, metavar="VALUE", help="of sgd (default 0.99, as in the papers)"
    )
    course.add_argument(
        "--learning-rate",
        type=float,
        metavar="RATE",
        help="the highest, of a cosine with warm-up (default 1e-3 for a U-Net from scratch, else "
        "1e-4)",
    )
    course.add_argument(
        "--class-weights",
        metavar="log|none",
        help="how to weigh rare classes up (default log: by the logarithm of their share)",
    )
    course.add_argument(
        "--early-stopping",
        type=int,
        metavar="PATIENCE",
        help="stop after so many epochs without a better mean IoU",
    )
    course.add_argument("--seed", type=int, metavar="N", help="(default 0)")
    course.add_argument("--mixed-precision", action="store_true", help="compute in bfloat16")
    course.add_argument(
        "--data-parallel", action="store_true", help="share each batch among all devices"
    )
    train.set_defaults(run=_train)


def _add_tune(commands):
    tune = commands.add_parser(
        "tune",
        help="search for a network and how to train it",
        description="Searches with KerasTuner, and writes all trials, DIR/tuning.json and "
        "DIR/trials.csv, and the best model, DIR/best.keras. Interrupted, the same command goes "
        "on. `keras-fcn train --from-tuning DIR` trains the best network for longer.",
        argument_default=argparse.SUPPRESS,  # so that the defaults are those of Search
    )
    tune.add_argument(
        "--data",
        required=True,
        metavar="DIR|NAME",
        help="a folder of images and masks, or a data set, as camvid or shapes/cells",
    )
    tune.add_argument("--output", required=True, type=Path, metavar="DIR")
    _add_data_options(tune)

    search = tune.add_argument_group("search")
    search.add_argument("--trials", required=True, type=int, metavar="N", help="number of trials")
    search.add_argument(
        "--tuner", metavar="NAME", help="random, hyperband, bayesian or grid (default random)"
    )
    search.add_argument("--model", metavar="MODEL", help="unet or fcn (default unet)")
    search.add_argument(
        "--weights", metavar="imagenet", help="FCN: start every trial from VGG16's weights"
    )
    search.add_argument(
        "--max-parameters", type=int, metavar="N", help="leave out networks with more parameters"
    )
    search.add_argument(
        "--epochs", type=int, metavar="N", help="epochs of the longest trials (default 10)"
    )
    search.add_argument(
        "--steps", type=int, metavar="N", help="steps in an epoch (default: each image once)"
    )
    search.add_argument("--seed", type=int, metavar="N", help="(default 0)")
    tune.set_defaults(run=_tune)


def _add_data_options(parser):
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
    _add_mask_options(data)
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


def _add_check_data(commands):
    check = commands.add_parser(
        "check-data",
        help="find what is wrong with images and masks",
        description="Reads every image and mask, writes nothing, and prints what each class covers "
        "and what is wrong, with the fix. The exit status is 1 if there are errors.",
    )
    _add_folders(check)
    check.add_argument("--classes", type=int, metavar="N", help="number of classes")
    _add_mask_options(check)
    check.set_defaults(run=_check_data)


def _add_model(parser):
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


def _add_folders(parser):
    parser.add_argument("--images", required=True, type=Path, metavar="DIR")
    parser.add_argument(
        "--masks", required=True, type=Path, metavar="DIR", help="0001.png belongs to 0001.jpg"
    )


def _add_mask_options(parser):
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


def _label_of_value(text):
    value, label = text.split("=")
    return int(value), int(label)


def _label_of_color(text):
    color, label = text.split("=")
    red, green, blue = map(int, color.split(","))
    return (red, green, blue), int(label)


def _augmentation(text):
    if text == "none":
        return None
    name, value = text.split("=")
    return name, value if name == "flip" else float(value)


def _predict(options):
    from rich.progress import track

    from keras_fcn.datasets.files import read_image
    from keras_fcn.inference import predict_image
    from keras_fcn.visualize import overlay, write_label_map, write_png

    _check_stems(options.images)
    model, classes, palette = _load_model(options.weights)
    averaging = _test_time_augmentation(options)
    channels = model.input_shape[-1]
    _check_channels(channels)
    options.output.mkdir(parents=True, exist_ok=True)
    written = []
    for path in track(options.images, "Predicting", transient=True):
        image = read_image(path, channels)
        label_map = predict_image(model, image, options.tile_size, **averaging).argmax(-1)
        label_file = options.output / f"{path.stem}.png"
        overlay_file = options.output / f"{path.stem}_overlay.png"
        write_label_map(label_file, label_map, palette)
        write_png(overlay_file, overlay(image, label_map, palette, classes))
        written.append(f"{path}: label map {label_file}, overlay {overlay_file}")
    print("\n".join(written))


def _evaluate(options):
    from rich.console import Console
    from rich.progress import track

    from keras_fcn.inference import predict_image
    from keras_fcn.metrics import SegmentationMetrics

    pairs = _list_pairs(options)
    model, classes, _ = _load_model(options.weights)
    if len(classes) < 2:
        raise ValueError(
            "A model to evaluate should give scores of two classes or more. Received: one with "
            "one output channel."
        )
    averaging = _test_time_augmentation(options)
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


def _test_time_augmentation(options):
    """Return what `--tta` adds to the arguments of `predict_image`."""
    from keras_fcn.cards import pretrained

    if not options.tta:
        return {}
    card = pretrained().get(options.weights, {})
    return card.get("test_time_augmentation", {"test_time_augmentation": True})


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
        check_sample(listing, options.ignore, _mapping(options.colors), _mapping(options.values))
    return listing.pairs


def _read_pair(image_path, mask_path, channels, options):
    from keras_fcn.datasets.files import read_pair

    _check_channels(channels)
    colors, values = _mapping(options.colors), _mapping(options.values)
    return read_pair(image_path, mask_path, channels, colors, values)


def _mapping(pairs):
    return None if pairs is None else dict(pairs)


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


def _train(options):
    from keras_fcn.training import Recipe, train, tuned_arguments

    given, output = _task_arguments(options)
    if "from_tuning" in given:
        found = tuned_arguments(given.pop("from_tuning"))
        if "optimizer" in given:
            del found["momentum"]  # of the optimizer that was found
        given = {**found, **given}
    elif "data" not in given:
        raise ValueError(
            "The training should have data. Received: neither --data nor --from-tuning. Pass "
            "--data DIR|NAME."
        )
    result = train(Recipe(**given), output)
    print(f"{result['file']}: mean IoU {result['mean_iou']:.3f} after epoch {result['epoch']}")


def _tune(options):
    from keras_fcn.tuner import Search, tune

    given, output = _task_arguments(options)
    result = tune(Search(**given), output)
    print(
        f"{result['file']}: mean IoU {result['mean_iou']:.3f} in trial {result['trial']}\n"
        f"To train it for longer: keras-fcn train --from-tuning {output} --output DIR"
    )


def _task_arguments(options):
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


def _check_data(options):
    from keras_fcn.datasets import check_data, print_report

    report = check_data(
        options.images,
        options.masks,
        num_classes=options.classes,
        ignore=options.ignore,
        colors=_mapping(options.colors),
        values=_mapping(options.values),
    )
    return print_report(report)


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
    return model, _class_names(Path(weights), num_classes), voc_palette(num_classes)


def _class_names(path, num_classes):
    """Return the names in the record that `keras-fcn train` left beside the model, else numbers."""
    record = path.with_name("training.json")
    if record.is_file():
        names = json.loads(record.read_text()).get("classes", [])
        if len(names) == num_classes:
            return names
    return [f"class {label}" for label in range(num_classes)]


def _check_channels(channels):
    if channels not in (1, 3):
        raise ValueError(
            "Image files have 1 or 3 channels. Received: a model that takes "
            f"{channels}. Call `keras_fcn.predict_image` with an array instead."
        )


def _models(options):
    from keras_fcn.cards import find_card, pretrained

    if options.name is not None:
        print(json.dumps(find_card(options.name), indent=2))
    else:
        _print_models(pretrained())


def _print_models(cards):
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "network", "parameters", "input", "classes", "scores")
    table.columns[0].no_wrap = True
    for name, card in cards.items():
        table.add_row(
            name,
            card["factory"],
            f"{card['parameters'] / 1e6:.1f} M",
            card["input"].partition(" ")[0],
            str(len(card["classes"])),
            _describe_metric(card["metric"]),
        )
    Console().print(table)
    print("Scores on validation images; in brackets with --tta. `keras-fcn models NAME`: its card.")


def _describe_metric(metric):
    """Return the scores of a card, one a line, and in brackets with test-time augmentation."""
    return "\n".join(
        f"{name.replace('_', ' ').replace('iou', 'IoU')} {metric[name]:.3f} ({averaged:.3f})"
        for name, averaged in metric["with_test_time_augmentation"].items()
    )
