"""`keras-fcn tune`: search for a network and how to train it."""

from pathlib import Path

from keras_fcn.commands.fields import add_fields, collect
from keras_fcn.commands.train import DATA
from keras_fcn.tuning.settings import MODELS, TUNERS, Search

SEARCH = ("trials", "tuner", "model", "weights", "max_parameters", "epochs", "steps", "seed")
CHOICES = {"tuner": TUNERS, "model": MODELS, "weights": ("imagenet",)}
EXAMPLE = "keras-fcn tune --data data --trials 10 --output runs/search"


def add(commands):
    """Add `keras-fcn tune` to the commands."""
    tune = commands.add_parser(
        "tune",
        help="search for a network and how to train it",
        description="Searches with KerasTuner, and writes all trials, DIR/tuning.json and "
        "DIR/trials.csv, and the best model, DIR/best.keras. Interrupted, the same command goes "
        "on. `keras-fcn train --from-tuning DIR` trains the best network for longer.",
    )
    tune.add_argument("--output", required=True, type=Path, metavar="DIR", help="where to write")
    add_fields(tune.add_argument_group("data"), Search, DATA, required=("data",))
    add_fields(tune.add_argument_group("search"), Search, SEARCH, choices=CHOICES)
    tune.set_defaults(run=run)


def run(options):
    """Run `keras-fcn tune`."""
    from keras_fcn.tuning import tune

    result = tune(Search(**collect(options, Search)), options.output)
    print(
        f"{result['file']}: mean IoU {result['mean_iou']:.3f} in trial {result['trial']}\n"
        f"To train it for longer: keras-fcn train --from-tuning {options.output} --output DIR"
    )
