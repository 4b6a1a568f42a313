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
import os
import shutil
import warnings
from pathlib import Path

import keras
import keras_tuner

from keras_fcn.atomic import read_json, replacing, write_json
from keras_fcn.catalogue import set_classes
from keras_fcn.training.labels import count_steps, read_data, training_set, validation_set
from keras_fcn.training.log import MONITOR
from keras_fcn.training.plan import Machine, plan_splits, plan_task
from keras_fcn.training.recipe import recall
from keras_fcn.training.run import (
    check_scope,
    describe_run,
    read_record,
    update_record,
    working_in,
)
from keras_fcn.tuning.hypermodels import HyperFCN, HyperUNet
from keras_fcn.tuning.private import TUNERS, restore_state
from keras_fcn.tuning.report import Reporting, describe_trial
from keras_fcn.tuning.settings import DATA, Search

OBJECTIVE = keras_tuner.Objective(MONITOR, "max")
RECORD = "tuning.json"


def tune(search: Search, output: str | os.PathLike) -> dict:
    """Search for the best network and training; go on where an interrupted search stopped.

    After an interruption, `kill -9` included, the same call goes on with the trial that
    was cut short, which starts anew. A trial that fails does not end the search. The random
    numbers of Python, NumPy and Keras go on from the search's seed.

    Args:
        search: `Search`.
        output: folder of the search, new or empty, or that of the interrupted search.

    Returns:
        Dict of the best model's `file`, its `trial`, its `mean_iou` on the validation
        images, whole, and its `epoch`, counted from 1.

    Raises:
        FileExistsError: when `output` holds a finished search, or files of something else.
        ValueError: when it holds a search of other parameters, when the data has labels
            that are no class, when no network is small enough, when every trial failed, or
            within the scope of a strategy of TensorFlow.
        FileNotFoundError: when the data does not exist.

    Example:

    >>> search = Search("shapes/cells", trials=20, crop_size=96)
    >>> tune(search, "runs/search")["file"]  # doctest: +SKIP
    'runs/search/best.keras'
    """
    output = Path(output)
    _check_one_process()
    check_scope(alone=True)  # KerasTuner begins a new graph for each trial, and ends the scope
    with working_in(output):
        record = read_record(output, search.parameters, RECORD, "best.keras", ["search"])
        keras.utils.set_random_seed(search.seed)
        given = search.parameters
        if record is None:
            search, data = _plan(search)
        else:
            search = recall(Search, record["parameters"], output / RECORD)
            data = read_data(search)
        hypermodel = _make_hypermodel(search, data)
        space = _first_space(hypermodel)
        if record is None:
            described = {**describe_run(search, data), "given": given, "space": space}
            described["versions"]["keras_tuner"] = keras_tuner.__version__
            write_json(output / RECORD, described)
        restore_state(output / "search")
        tuner = _make_tuner(search, hypermodel, output)
        with tuner.live, _quiet():
            tuner.search(
                training_set(search, data.splits["train"]),
                validation_data=validation_set(data.splits["validation"]),
                epochs=search.epochs,
                steps_per_epoch=search.steps,
                shuffle=False,  # the training set is shuffled
                verbose=0,
            )
            return _finish(tuner, output, data.classes)


def _plan(search):
    """Return the search with crops, batches and splits planned, and its data."""
    search, _ = plan_splits(search)
    data = read_data(search)
    search, _ = plan_task(search, data, Machine.here())
    steps = search.steps or count_steps(data.images["train"], search.batch_size)
    return dataclasses.replace(search, steps=steps), data


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


def _make_hypermodel(search, data):
    arguments = {
        "input_shape": (None, None, data.channels),
        "num_classes": 1 if search.num_classes == 1 else data.num_classes,
        "ignore_class": data.ignore,
        "pixels": data.training,
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
    tuner.trials = search.trials
    tuner.seed = search.seed
    tuner.count_trials()
    return tuner


def _finish(tuner, output, classes):
    """Write the best model and the result; return the result."""
    best = tuner.oracle.get_best_trials(1)[0]
    _, rows = tuner._trials()
    if best.status != "COMPLETED":
        message = (
            f"A trial should end with a score. All {len(rows)} failed, the last for: "
            f"{rows[-1]['message']} The tracebacks are in '{output / 'search'}'. For another "
            "search choose another output folder."
        )
        update_record(output, RECORD, failed=message)
        raise ValueError(message)
    model = tuner.load_model(best)
    uncompiled = keras.models.clone_model(model)
    uncompiled.set_weights(model.get_weights())
    set_classes(uncompiled, classes)

    row = describe_trial(best)
    result = {"file": "best.keras", **{name: row[name] for name in ("trial", "mean_iou", "epoch")}}
    data = {name: value for name, value in _read(output)["parameters"].items() if name in DATA}
    recipe = {**data, **tuner.hypermodel.recipe(best.hyperparameters)}
    with replacing(output / "best.keras") as beside:
        uncompiled.save(beside)
        update_record(output, RECORD, trials=rows, result=result, recipe=recipe)
    shutil.rmtree(output / "search")
    return {**result, "file": str(output / "best.keras")}


def _read(output):
    return read_json(output / RECORD, parameters=dict)
