"""`keras-fcn train`: train a network."""

from pathlib import Path

from keras_fcn.commands.fields import add_fields, collect
from keras_fcn.training.recipe import (
    CLASS_WEIGHTS,
    FACTORIES,
    LOSSES,
    OPTIMIZERS,
    UPSAMPLINGS,
    Recipe,
)

DATA = (
    "data", "split", "validation", "num_classes", "class_names", "class_colors", "ignore",
    "values", "colors", "instances", "mask_suffix", "white", "max_pixels", "crop_size",
    "batch_size", "augment",
)  # fmt: skip
NETWORK = (
    "model", "filters", "batch_norm", "dropout", "upsampling", "encoder", "fc_filters", "weights",
)  # fmt: skip
COURSE = (
    "epochs", "steps", "minutes", "optimizer", "momentum", "learning_rate", "encoder_share", "loss",
    "class_weights", "border_weights", "freeze_encoder", "early_stopping", "seed",
    "mixed_precision", "data_parallel", "deterministic",
)  # fmt: skip
CHOICES = {
    "model": tuple(FACTORIES),
    "encoder": ("vgg16",),
    "upsampling": UPSAMPLINGS,
    "optimizer": OPTIMIZERS,
    "loss": LOSSES,
    "class_weights": CLASS_WEIGHTS,
}
OF_THE_DATA = DATA[1 : DATA.index("crop_size")]
EXAMPLE = "keras-fcn train --data data --output runs/first"


def add(commands):
    """Add `keras-fcn train` to the commands."""
    train = commands.add_parser(
        "train",
        help="train a network",
        description="Trains a network, and writes the best model, DIR/model.keras, with its log, "
        "pictures and record. What is not given is planned from the data and the machine, as "
        "`keras-fcn plan` shows. Interrupted, the same command goes on.",
    )
    train.add_argument("--output", required=True, type=Path, metavar="DIR", help="where to write")
    train.add_argument(
        "--from-tuning",
        type=Path,
        metavar="DIR",
        help="train what `keras-fcn tune` found, from fresh weights: network, optimizer, class "
        "weights, data, crops and batches are those of its best trial, unless given here. To go on "
        "from the weights of the search add --weights DIR/best.keras",
    )
    train.add_argument(
        "--per-class", action="store_true", help="show the IoU of each class after each epoch"
    )
    add_recipe(train)
    train.set_defaults(run=run)


def add_recipe(parser):
    """Add the options of a `Recipe`."""
    for title, names in (("data", DATA), ("network", NETWORK), ("course", COURSE)):
        add_fields(parser.add_argument_group(title), Recipe, names, choices=CHOICES)


def make_recipe(options):
    """Return the `Recipe` that the options stand for."""
    from keras_fcn.datasets.catalogue import resolve_source
    from keras_fcn.training.run import tuned_arguments

    given = collect(options, Recipe)
    if getattr(options, "from_tuning", None):
        found = tuned_arguments(options.from_tuning)
        other = given.get("data", found["data"]) != found["data"]
        if other and isinstance(resolve_source(given["data"]), str):  # says itself what it holds
            found = {name: value for name, value in found.items() if name not in OF_THE_DATA}
        if "optimizer" in given:
            del found["momentum"]  # of the optimizer that was found
        given = {**found, **given}
    elif "data" not in given:
        raise ValueError(
            "The training should have data. Received: neither --data nor --from-tuning. Pass "
            "--data DIR|NAME."
        )
    return Recipe(**given)


def run(options):
    """Run `keras-fcn train`."""
    from keras_fcn import training

    result = training.train(make_recipe(options), options.output, options.per_class)
    print(f"{result['file']}: mean IoU {result['mean_iou']:.3f} after epoch {result['epoch']}")
