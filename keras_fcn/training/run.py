"""The folder of a run: its record, its log, its checkpoints, and where it goes on.

A run writes into its output folder

    training.json        the recipe, versions, seed and command; the result when it is done
    log.csv              loss, scores and seconds of each epoch, the first is 0
    best.keras           the epoch with the best mean IoU on the validation images
    last.keras           the last epoch, with its optimizer: where an interrupted run goes on
    pictures/            input, truth and prediction of a few validation images, for each epoch
    tensorboard/         the same numbers, where `tensorboard` is installed
    model.keras          the best model, without its optimizer, when the run is done

How far a run came is what `last.keras` says, the iterations of its optimizer. An epoch's row is
in the log before, and `best.keras` is a copy of `last.keras`, made afterwards: what was being
done when the run was killed is known from these.
"""

import contextlib
import os
import shlex
import shutil
import sys
from pathlib import Path

import keras

from keras_fcn.atomic import read_json, replacing, write_json
from keras_fcn.lock import locked
from keras_fcn.remedies import choose, given, spell
from keras_fcn.training.log import best_epoch, read_log, total_seconds, write_log
from keras_fcn.training.recipe import Recipe, arguments_of, recall

LOCK = ".lock"
STATES = ("last.keras", "best.keras")


@contextlib.contextmanager
def working_in(output):
    """Hold the lock of an output folder, made if need be; it goes again if nothing came of it."""
    is_new = not output.exists()
    output.mkdir(parents=True, exist_ok=True)
    try:
        with locked(output, LOCK):
            yield
    finally:
        if is_new:
            with contextlib.suppress(OSError):  # it holds files
                output.rmdir()


def check_scope(alone):
    """Raise within a strategy of the caller's, if `alone`, or if it has several devices."""
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf

    strategy = tf.distribute.get_strategy()  # of one device where there is none
    if strategy.num_replicas_in_sync > 1 or (alone and tf.distribute.has_strategy()):
        raise ValueError(
            "`train` and `tune` choose the devices of their models. Received: a call within the "
            f"scope of {type(strategy).__name__}. Call it outside of the scope; "
            f"{spell('data_parallel', True)} trains on all devices."
        )


def read_record(output, parameters, record="training.json", result="model.keras", states=STATES):
    """Return the record of an interrupted run of these parameters; None for a new run.

    Args:
        output: path of the folder.
        parameters: dict of what the run depends on as it was given, as JSON stores it.
        record: name of the file that holds them from the beginning of a run.
        result: name of the file that a finished run has written.
        states: names of what an interrupted run leaves. Without any nothing is done, and
            the run begins anew, with other parameters if they are given.

    Raises:
        FileExistsError: when it holds a finished run, or files of something else.
        ValueError: when it holds a run of other parameters, or one that failed.
    """
    if (output / result).exists():
        raise FileExistsError(
            f"The output folder should hold no finished run. Received: '{output}', with "
            f"{result}. Choose another folder; {_go_on_from(output / result)}."
        )
    record = output / record
    if not record.exists():
        if any(path.name != LOCK for path in output.iterdir()):
            raise FileExistsError(
                f"The output folder should be new or empty, or that of an interrupted run. "
                f"Received: '{output}', which holds other files. Choose another folder."
            )
        return None
    recorded = read_json(record, given=dict, parameters=dict)
    if "failed" not in recorded and not any((output / name).exists() for name in states):
        return None
    _check_same(parameters, recorded, record)
    if "failed" in recorded:
        raise ValueError(recorded["failed"])
    return recorded


def _check_same(parameters, recorded, record):
    """Raise unless each parameter is as it was given, or as it was planned."""
    first, planned = recorded["given"], recorded["parameters"]
    differing = [
        f"{given(name, parameters.get(name))} instead of {first.get(name)!r}"
        for name in {**first, **parameters}
        if not _is_same(parameters.get(name), first.get(name), planned.get(name, first.get(name)))
    ]
    if differing:
        best = record.with_name("best.keras")
        remedy = f"; {_go_on_from(best)}" if best.exists() else ""
        raise ValueError(
            f"An interrupted run goes on with the parameters that it began with, in '{record}'. "
            f"Received: {', '.join(differing)}. Pass the same, or choose another output "
            f"folder{remedy}."
        )


def _is_same(value, first, planned):
    """Whether a parameter is as it was given, or as it was planned.

    A flag that is left out may be off in the record: before it was planned that was its default.
    """
    return value in (first, planned) or (value is None and first is False)


def _go_on_from(model):
    python = f"to train it for longer, begin a run with `weights={str(model)!r}` there"
    shell = f"to train it for longer, begin a run there with `--weights {shlex.quote(str(model))}`"
    return choose(python, shell)


def describe_run(task, labels):
    """Return what is written beside the weights, so that the run can be repeated: a dict."""
    import keras_fcn

    return {
        "command": _command(),
        "parameters": task.parameters,
        "seed": task.seed,
        "versions": {
            "keras_fcn": keras_fcn.__version__,
            "keras": keras.__version__,
            "backend": keras.backend.backend(),
            "python": sys.version.split()[0],
        },
        "images": labels.images,
        "classes": list(labels.classes.names),
        "colors": [list(color) for color in labels.classes.colors],
        "ignore": labels.ignore,
        "pixels": labels.training.tolist(),  # of each class
    }


def _command():
    """Return the command of this process, as it can be typed."""
    program = Path(sys.argv[0]).name
    if program == "__main__.py":  # python -m
        name = sys.modules["__main__"].__spec__.name
        return shlex.join(["python", "-m", name.removesuffix(".__main__"), *sys.argv[1:]])
    return shlex.join([program, *sys.argv[1:]])


def save_state(model, output):
    """Write last.keras, whole at any time."""
    with replacing(output / "last.keras") as beside:
        model.save(beside)


def load_state(model, output):
    """Give the model and its optimizer what last.keras holds; return the steps it came."""
    state = output / "last.keras"
    if state.exists():
        with _reading(state):
            model.load_weights(state)
    step = steps_of(model)
    for layer in model.layers:
        generator = getattr(layer, "seed_generator", None)
        if generator is not None:  # of dropout, whose place in its random numbers no file holds
            seed = keras.ops.convert_to_numpy(keras.ops.copy(generator.state))[0]
            generator.state.assign([int(seed), step])  # one draw a step
    return step


def steps_of(model):
    """Return the steps that a model was trained for; its variables may be on several devices."""
    return int(keras.ops.convert_to_numpy(keras.ops.copy(model.optimizer.iterations)))


def keep_best(output):
    """Make best.keras a copy of last.keras."""
    with replacing(output / "best.keras") as beside:
        shutil.copyfile(output / "last.keras", beside)


def mend(model, output, rows, steps):
    """Set right what a kill between last.keras and best.keras has left.

    Args:
        model: the model of the run, its optimizer with the state of all weights; it has the
            state of last.keras, also afterwards.
        output: the folder.
        rows: rows of the log, of the epochs that last.keras has seen whole.
        steps: steps of an epoch.
    """
    write_log(output, rows)
    best = best_epoch(rows)
    if best is None or best[1] + 1 < len(rows):
        return  # the best epoch is an earlier one, whose copy was whole before this one began
    kept = output / "best.keras"
    if not kept.exists() or steps_of_file(model, kept) < len(rows) * steps:
        keep_best(output)
    load_state(model, output)


def steps_of_file(model, path):
    """Return the steps that a saved model was trained for; the model takes its state.

    `load_model` would give an optimizer without what is frozen, and so without its state.
    """
    with _reading(path):
        model.load_weights(path)
    return steps_of(model)


@contextlib.contextmanager
def _reading(state):
    """Turn what Keras and the archive raise for a damaged state into an error with a way on."""
    try:
        yield
    except Exception as error:
        both = " and ".join(f"'{state.with_name(name)}'" for name in STATES)
        raise ValueError(
            f"'{state}' should be whole, as the run wrote it. Received: a damaged file ({error}). "
            f"Remove {both}, and the same command begins the run anew."
        ) from error


def finish(output):
    """Write the final model and the result; return the result."""
    rows = list(read_log(output)[0].values())
    mean_iou, epoch = best_epoch(rows)
    path = output / "model.keras"
    result = {
        "file": str(path),
        "mean_iou": mean_iou,
        "epoch": epoch + 1,
        "seconds": round(total_seconds(rows), 1),
    }
    with _reading(output / "best.keras"):
        model = keras.saving.load_model(output / "best.keras", compile=False)
    model.trainable = True  # `freeze_encoder` is of the training alone
    update_record(output, result={**result, "file": path.name})
    with replacing(path) as beside:
        model.save(beside)
    return result


def update_record(output, record="training.json", **entries):
    """Add entries to the record of a run."""
    path = output / record
    write_json(path, {**read_json(path), **entries})


def tuned_arguments(folder: str | os.PathLike) -> dict:
    """Return the arguments of `Recipe` for the best trial of a search.

    They are its data, crops, batches and augmentation, the network, the optimizer and
    the class weights; how long to train is not among them.

    Args:
        folder: the output folder of `keras_fcn.tuning.tune`.

    Returns:
        Dict of keyword arguments of `Recipe`.

    Raises:
        FileNotFoundError: when the folder holds no search.
        ValueError: when its search is not done, or found nothing.

    Example:

    >>> Recipe(**tuned_arguments("runs/search"), epochs=100)  # doctest: +SKIP
    """
    path = Path(folder) / "tuning.json"
    if not path.exists():
        raise FileNotFoundError(
            f"A search should have left '{path}', and there is no such file. Pass the output "
            "folder of `keras-fcn tune`."
        )
    record = read_json(path)
    if "failed" in record:
        raise ValueError(record["failed"])
    if "recipe" not in record:
        command = record.get("command", "keras-fcn tune")
        raise ValueError(
            f"The search should be done. Received: '{folder}', where it was interrupted. Run the "
            f"same `keras-fcn tune` again, and it goes on: {command}"
        )
    found = read_json(path, recipe=dict)["recipe"]
    recall(Recipe, found, path)  # raises where it is damaged
    return arguments_of(found)
