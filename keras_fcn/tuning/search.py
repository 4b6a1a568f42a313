"""Search for a network and how to train it, with KerasTuner.

`tune` searches on a data set, goes on after an interruption, and writes into its output folder

    tuning.json    the parameters, versions, seed and command, and the search space; when
                   the search is done all trials, the best one, and the `Recipe` it stands for
    trials.csv     the trials so far, the best first
    search/        KerasTuner's files, where the search goes on; removed when it is done
    best.keras     the best model of the search, without its optimizer, when it is done
"""

import contextlib
import dataclasses
import io
import json
import os
import shutil
import warnings
from pathlib import Path

import keras
import keras_tuner

from keras_fcn.arguments import check_choice, check_positive_integer
from keras_fcn.training.labels import count_labels, count_steps, training_set, validation_set
from keras_fcn.training.recipe import Task
from keras_fcn.training.run import MONITOR, check_output, describe_run, write_json
from keras_fcn.tuning.hypermodels import HyperFCN, HyperUNet
from keras_fcn.tuning.report import Reporting, describe_trial, restore_state

OBJECTIVE = keras_tuner.Objective(MONITOR, "max")
# What a recipe takes over from the search: all of the data, but not how long to train.
DATA = [
    field.name
    for field in dataclasses.fields(Task)
    if field.name not in ("epochs", "steps", "seed")
]


@dataclasses.dataclass(frozen=True)
class Search(Task):
    """What is searched, on what, and how.

    Args:
        data, split, validation, num_classes, ignore, values, colors, crop_size,
            batch_size, augment, steps, seed: see `keras_fcn.training.Task`.
        epochs: of each trial, with Hyperband of its longest ones.
        trials: number of trials.
        tuner: `"random"`; `"hyperband"`: many short trials, of which the best go on;
            `"bayesian"`, whose first third is random; or `"grid"`, all combinations in
            order, of which `trials` should leave few out.
        model: `"unet"` for `HyperUNet`, or `"fcn"` for `HyperFCN`.
        weights: for `"fcn"`, None or `"imagenet"`.
        max_parameters: most parameters of a network, or None.

    Raises:
        ValueError: for an argument out of its range, or `weights` for a U-Net.

    Example:

    >>> Search("shapes/cells", trials=20, tuner="hyperband").epochs
    10
    """

    epochs: int = 10
    trials: int = 20
    tuner: str = "random"
    model: str = "unet"
    weights: str | None = None
    max_parameters: int | None = None

    def __post_init__(self):
        super().__post_init__()
        check_positive_integer("trials", self.trials)
        if self.max_parameters is not None:
            check_positive_integer("max_parameters", self.max_parameters)
        check_choice("tuner", self.tuner, tuple(TUNERS))
        check_choice("model", self.model, ("unet", "fcn"))
        check_choice("weights", self.weights, (None, "imagenet"))
        if self.weights and self.model == "unet":
            raise ValueError(
                "The U-Nets of a search start from scratch. Received: "
                f"weights={self.weights!r}. Leave it out, or search an FCN."
            )


def tune(search, output):
    """Search for the best network and training; go on where an interrupted search stopped.

    After an interruption, `kill -9` included, the same call goes on with the trial that
    was cut short, which starts anew. A trial that fails does not end the search.

    Args:
        search: `Search`.
        output: folder of the search, new or empty, or that of the interrupted search.

    Returns:
        Dict of the best model's `file`, its `trial`, its `mean_iou` on the validation
        images, whole, and its `epoch`, counted from 1.

    Raises:
        FileExistsError: when `output` holds a finished search, or files of something else.
        ValueError: when it holds a search of other parameters, when the data has labels
            that are no class, when no network is small enough, or when every trial failed.
        FileNotFoundError: when the data does not exist.

    Example:

    >>> search = Search("shapes/cells", trials=20, crop_size=96)
    >>> tune(search, "runs/search")["file"]  # doctest: +SKIP
    'runs/search/best.keras'
    """
    output = Path(output)
    _check_one_process()
    resumed = check_output(output, search.parameters, "tuning.json", "best.keras")
    keras.utils.set_random_seed(search.seed)
    labels = count_labels(search)
    hypermodel = _make_hypermodel(search, labels)
    space = _first_space(hypermodel)
    if not resumed:
        output.mkdir(parents=True, exist_ok=True)
        record = {**describe_run(search, labels), "space": space}
        record["versions"]["keras_tuner"] = keras_tuner.__version__
        write_json(output / "tuning.json", record)
    restore_state(output / "search")
    tuner = _make_tuner(search, hypermodel, output)
    with tuner.live, _quiet():
        tuner.search(
            training_set(search),
            validation_data=validation_set(search, labels.ignore),
            epochs=search.epochs,
            steps_per_epoch=count_steps(search, labels),
            shuffle=False,  # the training set is shuffled
            verbose=0,
        )
        return _finish(tuner, output)


@contextlib.contextmanager
def _quiet():
    """Leave the screen to the table: it has the reason of a failure, not the traceback."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.filterwarnings("ignore", "Skipping variable loading for optimizer")
        yield


def _check_one_process():
    if "KERASTUNER_ORACLE_IP" in os.environ:
        raise ValueError(
            "`tune` searches in one process. Received: the environment variable "
            "KERASTUNER_ORACLE_IP. Unset it, or for chief and workers pass HyperUNet or HyperFCN "
            "to a tuner of KerasTuner in a script of your own."
        )


def _make_hypermodel(search, labels):
    arguments = {
        "input_shape": (None, None, labels.channels),
        "num_classes": labels.num_classes,
        "ignore_class": labels.ignore,
        "pixels": labels.training,
        "max_parameters": search.max_parameters,
    }
    if search.model == "fcn":
        return HyperFCN(**arguments, weights=search.weights)
    return HyperUNet(**arguments)


def _first_space(hypermodel):
    """Return the search space as JSON; raise when no network of it is small enough."""
    hp = keras_tuner.HyperParameters()
    try:
        hypermodel.build(hp)  # the smallest
    except keras_tuner.errors.FailedTrialError as error:
        raise ValueError(str(error)) from error
    return hp.get_config()["space"]


def _make_tuner(search, hypermodel, output):
    """Return the tuner, with the trials of an interrupted search."""
    options = {
        "random": {},
        "hyperband": {
            "max_epochs": search.epochs,
            "hyperband_iterations": None,  # over and over, until there are enough trials
        },
        # of KerasTuner's 3 random trials for each dimension a short search would not get out
        "bayesian": {"num_initial_points": max(2, search.trials // 3)},
        "grid": {},
    }
    tuner = type("Tuner", (Reporting, TUNERS[search.tuner]), {})(
        hypermodel,
        objective=OBJECTIVE,
        seed=search.seed + 1,  # KerasTuner takes 0 for none
        max_consecutive_failed_trials=None,  # networks left out do not end the search
        directory=output,
        project_name="search",
        **options[search.tuner],
    )
    tuner.oracle.max_trials = search.trials  # Hyperband has no argument for it
    return tuner


class _GridSearch(keras_tuner.GridSearch):
    """Finds its place in the grid again after an interruption.

    KerasTuner 1.4.8 does not keep it, and stops or fails (its issue 1055).
    """

    def reload(self):
        super().reload()
        for trial_id in self.oracle.start_order:
            self.oracle._ordered_ids.insert(trial_id)
        self.oracle._populate_next = list(self.oracle.start_order)


TUNERS = {
    "random": keras_tuner.RandomSearch,
    "hyperband": keras_tuner.Hyperband,
    "bayesian": keras_tuner.BayesianOptimization,
    "grid": _GridSearch,
}


def _finish(tuner, output):
    """Write the best model and the result; return the result."""
    best = tuner.oracle.get_best_trials(1)[0]
    _, rows = tuner._trials()
    if best.status != "COMPLETED":
        raise ValueError(
            f"A trial should end with a score. All {len(rows)} failed, the last for: "
            f"{rows[-1]['message']} The tracebacks are in '{output / 'search'}'; choose another "
            "output folder for another search."
        )
    model = tuner.load_model(best)
    uncompiled = keras.models.clone_model(model)
    uncompiled.set_weights(model.get_weights())
    beside = output / ".best.keras"
    uncompiled.save(beside)

    row = describe_trial(best)
    result = {"file": "best.keras", **{name: row[name] for name in ("trial", "mean_iou", "epoch")}}
    record = json.loads((output / "tuning.json").read_text())
    data = {name: record["parameters"][name] for name in DATA}
    recipe = {**data, **tuner.hypermodel.recipe(best.hyperparameters)}
    write_json(
        output / "tuning.json", {**record, "trials": rows, "result": result, "recipe": recipe}
    )
    beside.replace(output / "best.keras")
    shutil.rmtree(output / "search")
    return {**result, "file": str(output / "best.keras")}
