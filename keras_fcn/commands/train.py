"""`keras-fcn train`: train a network."""

import argparse
from pathlib import Path

from keras_fcn.commands.shared import add_data_options, task_arguments


def add(commands):
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
    add_data_options(train)

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
    train.set_defaults(run=run)


def run(options):
    from keras_fcn.training import Recipe, train, tuned_arguments

    given, output = task_arguments(options)
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
