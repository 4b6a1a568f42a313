"""`keras-fcn tune`: search for a network and how to train it."""

import argparse
from pathlib import Path

from keras_fcn.commands.shared import add_data_options, task_arguments


def add(commands):
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
    add_data_options(tune)

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
    tune.set_defaults(run=run)


def run(options):
    from keras_fcn.tuning import Search, tune

    given, output = task_arguments(options)
    result = tune(Search(**given), output)
    print(
        f"{result['file']}: mean IoU {result['mean_iou']:.3f} in trial {result['trial']}\n"
        f"To train it for longer: keras-fcn train --from-tuning {output} --output DIR"
    )
