"""Search for a network and how to train it, with KerasTuner.

`HyperUNet` and `HyperFCN` are hypermodels for any tuner of KerasTuner. `tune` searches
on a data set, goes on after an interruption, and writes into its output folder

    tuning.json    the parameters, versions, seed and command, and the search space; when
                   the search is done all trials, the best one, and the `Recipe` it stands for
    trials.csv     the trials so far, the best first
    search/        KerasTuner's files, where the search goes on; removed when it is done
    best.keras     the best model of the search, without its optimizer, when it is done
"""

import concurrent.futures
import contextlib
import csv
import dataclasses
import io
import json
import math
import os
import re
import shutil
import warnings
from pathlib import Path

import keras
from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table

import keras_fcn
from keras_fcn.arguments import check_choice, check_positive_integer
from keras_fcn.training import (
    CLASS_WEIGHTS,
    FACTORIES,
    MONITOR,
    OPTIMIZERS,
    Task,
    check_output,
    compile_model,
    count_labels,
    count_steps,
    describe_run,
    log_class_weights,
    make_optimizer,
    training_set,
    validation_set,
    write_json,
)
from keras_fcn.unet import UPSAMPLINGS

try:
    import keras_tuner
except ImportError as error:
    raise ImportError(
        "The hypermodels and `keras-fcn tune` need KerasTuner. Run "
        "`pip install 'keras-fcn[tuner]'`."
    ) from error

WIDTH = 120  # of the table in a file, characters
OBJECTIVE = keras_tuner.Objective(MONITOR, "max")
# What a recipe takes over from the search: all of the data, but not how long to train.
DATA = [
    field.name
    for field in dataclasses.fields(Task)
    if field.name not in ("epochs", "steps", "seed")
]


class _HyperModel(keras_tuner.HyperModel):
    """What the hypermodels share: the count of parameters and the compile settings."""

    def __init__(
        self, input_shape, num_classes, ignore_class, pixels, max_parameters, name, tunable
    ):
        super().__init__(name=name, tunable=tunable)
        if max_parameters is not None:
            check_positive_integer("max_parameters", max_parameters)
        self.input_shape = input_shape
        self.num_classes = num_classes
        self.ignore_class = ignore_class
        self.pixels = pixels
        self.max_parameters = max_parameters

    def build(self, hp):
        """Return the compiled model that the values stand for.

        Raises:
            keras_tuner.errors.FailedTrialError: when it has too many parameters.
        """
        network = self.network(hp)
        factory = getattr(keras_fcn, FACTORIES[network.pop("model")])
        arguments = {"input_shape": self.input_shape, "num_classes": self.num_classes, **network}
        if self.max_parameters is not None:
            self._check_parameters(factory, arguments)
        model = factory(**arguments)
        self.compile(hp, model)
        return model

    def compile(self, hp, model):
        """Compile the model with the optimizer and the loss that the values stand for.

        Overwrite this method for other settings, and other hyperparameters of them.
        """
        solver = self.solver(hp)
        optimizer = make_optimizer(solver["optimizer"], solver["learning_rate"], solver["momentum"])
        weights = log_class_weights(self.pixels) if solver["class_weights"] == "log" else None
        compile_model(model, optimizer, weights, self.ignore_class)

    def solver(self, hp):
        """Return the values that are about training, as arguments of `Recipe`."""
        optimizer = hp.Choice("optimizer", list(OPTIMIZERS))
        learning_rate = hp.Float("learning_rate", 1e-4, 1e-2, sampling="log", default=1e-3)
        with _only_with(hp, "momentum", "optimizer", "sgd"):
            momentum = hp.Choice("momentum", [0.9, 0.99])
        class_weights = "none"
        if self.pixels is not None:
            class_weights = hp.Choice("class_weights", list(CLASS_WEIGHTS))
        return {
            "optimizer": optimizer,
            "learning_rate": learning_rate,
            "momentum": momentum if optimizer == "sgd" else None,
            "class_weights": class_weights,
        }

    def recipe(self, hp):
        """Return all that the values stand for, as arguments of `keras_fcn.training.Recipe`."""
        return {**self.network(hp), **self.solver(hp)}

    def _check_parameters(self, factory, arguments):
        parameters = _count_parameters(factory, {**arguments, "weights": None})
        if parameters > self.max_parameters:
            raise keras_tuner.errors.FailedTrialError(
                f"The network should have at most {self.max_parameters:,} parameters, "
                f"`max_parameters`. Received: one with {parameters:,}. It is left out; if it is "
                "the smallest of the search space, raise the limit."
            )


def _count_parameters(factory, arguments):
    """Count the parameters of a network without giving them memory."""

    def count():
        with keras.StatelessScope(initialize_variables=False):
            return factory(**arguments).count_params()

    # Keras keeps a list of the variables that a scope has left without a value, and gives them
    # one at the next layer it builds in the same thread
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        return thread.submit(count).result()


class HyperUNet(_HyperModel):
    """Search space of U-Nets for KerasTuner.

    | hyperparameter  | values                                   | default     |
    | --------------- | ---------------------------------------- | ----------- |
    | `width`         | 16, 32, 64: filters of the first level,  | 16          |
    |                 | each level has twice those above it      |             |
    | `depth`         | 3 to 5 levels                            | 3           |
    | `batch_norm`    | False, True                              | False       |
    | `dropout`       | 0, 0.25, 0.5                             | 0.5         |
    | `upsampling`    | "transpose", "bilinear"                  | "transpose" |
    | `optimizer`     | "adamw", "muon", "sgd"                   | "adamw"     |
    | `learning_rate` | 1e-4 to 1e-2, logarithmic                | 1e-3        |
    | `momentum`      | 0.9, 0.99; with `optimizer="sgd"` only   | 0.9         |
    | `class_weights` | "log", "none"; if `pixels` are given     | "log"       |

    The default network is the smallest, 16 filters at 3 levels; 64 filters at 5 levels
    are the paper's. Each entry gives way to one of the same name in the tuner's
    `hyperparameters=`; for `momentum` with or without its condition. With
    `tune_new_entries=False` only what is there is searched.

    Args:
        input_shape: `(height, width, channels)`, by default any size, RGB.
        num_classes: number of classes.
        ignore_class: the label of void pixels, or None.
        pixels: labelled pixels of each class in the training set, for `class_weights`;
            by default all classes weigh alike.
        max_parameters: most parameters of a network. A trial with more ends as failed,
            with a message, before it is trained. KerasTuner gives a search up after
            `max_consecutive_failed_trials`, 3 by default: pass more to the tuner.
        name, tunable: see `keras_tuner.HyperModel`.

    Raises:
        ValueError: when `max_parameters` is no integer from 1 up.
        keras_tuner.errors.FailedTrialError: from the tuner's constructor, when the
            default network has more than `max_parameters`.

    Models are compiled by `compile(hp, model)`: `WeightedCrossentropy`, which takes void
    labels, and `SegmentationMetrics`. Overwrite it for other settings.

    Source: Ronneberger, Fischer and Brox 2015 (64 filters, 5 levels, SGD of momentum
    0.99); O'Malley et al., KerasTuner, 2019.

    Example:

    >>> import keras_tuner
    >>> tuner = keras_tuner.RandomSearch(
    ...     HyperUNet(num_classes=2, ignore_class=255, max_parameters=2_000_000),
    ...     objective=keras_tuner.Objective("val_mean_iou", "max"),
    ...     max_trials=20, max_consecutive_failed_trials=20, directory="runs",
    ... )  # doctest: +SKIP
    >>> tuner.search(training, validation_data=validation, epochs=10)  # doctest: +SKIP

    >>> model = HyperUNet(num_classes=2).build(keras_tuner.HyperParameters())
    >>> model.count_params()
    117058
    """

    def __init__(
        self,
        input_shape=(None, None, 3),
        num_classes=2,
        ignore_class=None,
        pixels=None,
        max_parameters=None,
        name=None,
        tunable=True,
    ):
        super().__init__(
            input_shape, num_classes, ignore_class, pixels, max_parameters, name, tunable
        )

    def network(self, hp):
        """Return the network that the values stand for, as arguments of `Recipe`."""
        width = hp.Choice("width", [16, 32, 64])
        depth = hp.Int("depth", 3, 5)
        return {
            "model": "unet",
            "filters": tuple(width * 2**level for level in range(depth)),
            "batch_norm": hp.Boolean("batch_norm"),
            "dropout": hp.Choice("dropout", [0.0, 0.25, 0.5], default=0.5),
            "upsampling": hp.Choice("upsampling", list(UPSAMPLINGS)),
        }


class HyperFCN(_HyperModel):
    """Search space of FCNs for KerasTuner.

    | hyperparameter  | values                                       | default |
    | --------------- | -------------------------------------------- | ------- |
    | `stride`        | 32, 16, 8: of the finest scores, by FCN-32s, | 32      |
    |                 | FCN-16s and FCN-8s                           |         |
    | `at_once`       | False, True: FCN-8s with scaled skips; with  | False   |
    |                 | `stride=8` only                              |         |
    | `fc_filters`    | 256, 1024, 4096: width of fc6 and fc7        | 256     |

    and `optimizer`, `learning_rate`, `momentum` and `class_weights` as of `HyperUNet`,
    whose arguments, errors and `hyperparameters=` are the same. What is above fc6 is
    VGG16's in every FCN, and dropout is 0.5. The paper has 4096 filters.

    Args:
        input_shape, num_classes, ignore_class, pixels, max_parameters, name, tunable:
            see `HyperUNet`.
        weights: None or `"imagenet"`, the weights from which every trial starts.

    Source: Long, Shelhamer and Darrell 2015, section 4 (strides, SGD).

    Example:

    >>> import keras_tuner
    >>> hp = keras_tuner.HyperParameters()
    >>> hp.Fixed("stride", 8)
    8
    >>> HyperFCN(num_classes=21).network(hp)["model"]
    'fcn8s'
    """

    def __init__(
        self,
        input_shape=(None, None, 3),
        num_classes=21,
        ignore_class=None,
        pixels=None,
        max_parameters=None,
        weights=None,
        name=None,
        tunable=True,
    ):
        super().__init__(
            input_shape, num_classes, ignore_class, pixels, max_parameters, name, tunable
        )
        self.weights = weights

    def network(self, hp):
        """Return the network that the values stand for, as arguments of `Recipe`."""
        stride = hp.Choice("stride", [32, 16, 8])
        with _only_with(hp, "at_once", "stride", 8):
            at_once = hp.Boolean("at_once")
        return {
            "model": "fcn8s_at_once" if stride == 8 and at_once else f"fcn{stride}s",
            "fc_filters": hp.Choice("fc_filters", [256, 1024, 4096]),
            "weights": self.weights,
        }


def _only_with(hp, name, parent, value):
    """Open a scope for the hyperparameter `name`, which has a meaning with this value only.

    There is none if the user gives the hyperparameter without a condition: for
    KerasTuner ours would be another one, sampled besides.
    """
    if any(known.name == name and not known.conditions for known in hp.space):
        return contextlib.nullcontext()
    return hp.conditional_scope(parent, [value])


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
    _restore_state(output / "search")
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
    tuner = type("Tuner", (_Reporting, TUNERS[search.tuner]), {})(
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


class _Reporting:
    """What `tune` adds to a tuner: the live table, and files that are whole at any time."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.progress = {}  # of the running trial
        console = Console()
        if not console.is_terminal:
            console.width = WIDTH
        self.live = Live(get_renderable=self._table, console=console, auto_refresh=False)

    def on_trial_begin(self, trial):
        super().on_trial_begin(trial)
        self.progress = {}
        self._report()

    def on_epoch_end(self, trial, model, epoch, logs=None):
        super().on_epoch_end(trial, model, epoch, logs)
        self.progress = {"epoch": epoch + 1, "mean_iou": logs[MONITOR]}
        self.live.refresh()

    def on_trial_end(self, trial):
        super().on_trial_end(trial)
        self._report()
        row = _describe_trial(self.oracle.trials[trial.trial_id])
        if row["message"]:
            self.live.console.print(f"trial {row['trial']} failed: {row['message']}")
        elif not self.live.console.is_terminal:  # where the table comes at the end
            self.live.console.print(f"trial {row['trial']}: mean IoU {_cell(row['mean_iou'])}")

    def _report(self):
        self.save()
        _save_state(Path(self.project_dir))
        names, rows = self._trials()
        _write_csv(Path(self.directory) / "trials.csv", names, rows)
        self.live.refresh()

    def _trials(self):
        """Return the names of the hyperparameters, and the trials, the best first."""
        names = list(dict.fromkeys(hp.name for hp in self.oracle.get_space().space))
        rows = [_describe_trial(trial) for trial in self.oracle.trials.values()]
        return names, sorted(rows, key=_rank)

    def _table(self):
        names, rows = self._trials()
        table = Table(box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
        for header in ("trial", "mean IoU", "epoch", *names):
            table.add_column(header.replace("_", " "), overflow="fold")
        for row in rows:
            running = row["status"] == "running"
            shown = {**row, **self.progress} if running else row
            score = row["status"] if shown["mean_iou"] is None else _cell(shown["mean_iou"])
            cells = [row["trial"], score, _cell(shown["epoch"])]
            cells += [_cell(row["values"].get(name)) for name in names]
            table.add_row(*cells, style="bold" if running else None)
        return table


def _describe_trial(trial):
    """Return what the records say of a trial: a dict as JSON stores it."""
    values = trial.hyperparameters.values
    done = trial.status == "COMPLETED"
    # Hyperband's later rounds go on from the epochs of earlier ones
    epoch = values.get("tuner/initial_epoch", 0) + trial.best_step + 1
    # "keras_tuner.src.errors.FailedTrialError: why", after the traceback
    reasons = re.findall(r"^(?:\w+\.)*(\w+: .+)", trial.message or "", re.MULTILINE)
    return {
        "trial": trial.trial_id,
        "status": trial.status.lower(),
        "mean_iou": float(trial.score) if done else None,
        "epoch": epoch if done else None,
        "values": {name: value for name, value in values.items() if "/" not in name},
        "message": reasons[-1] if reasons else None,
    }


def _rank(row):
    """Sort the running trial first, then from the best to the worst, then those that failed."""
    score = row["mean_iou"]
    return row["status"] != "running", math.inf if score is None else -score


def _cell(value):
    """Return a value as text of few digits."""
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _write_csv(path, names, rows):
    beside = path.with_name(f".{path.name}")
    with beside.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["trial", "status", "mean_iou", "epoch", *names, "message"])
        for row in rows:
            values = [row["values"].get(name) for name in names]
            head = [row[name] for name in ("trial", "status", "mean_iou", "epoch")]
            writer.writerow([*head, *values, row["message"]])
    beside.replace(path)


# KerasTuner writes its files one after the other and in place, so that a kill can leave them cut
# short or at odds. The copies of all, in one file, are always whole.


def _save_state(folder):
    """Copy KerasTuner's files, while they agree, into one file."""
    paths = [*folder.glob("*.json"), *folder.glob("trial_*/trial.json")]
    files = {str(path.relative_to(folder)): path.read_text() for path in paths}
    files.pop("state.json", None)
    write_json(folder / "state.json", files)


def _restore_state(folder):
    """Write KerasTuner's files as they were when they last agreed; remove them if never."""
    state = folder / "state.json"
    if not state.exists():
        shutil.rmtree(folder, ignore_errors=True)
        return
    files = json.loads(state.read_text())
    for path in folder.glob("trial_*/trial.json"):
        if str(path.relative_to(folder)) not in files:
            path.unlink()
    for name, text in files.items():
        (folder / name).write_text(text)


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

    row = _describe_trial(best)
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
