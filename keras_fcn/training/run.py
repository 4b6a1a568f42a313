"""The folder of a run: its record, its log, its checkpoints, and where it goes on.

A run writes into its output folder

    training.json        the recipe, versions, seed and command; the result when it is done
    log.csv              loss, scores and seconds of each epoch, the first is 0
    best.keras           the epoch with the best mean IoU on the validation images
    last.keras           the last epoch
    pictures/            input, truth and prediction of a few validation images, for each epoch
    tensorboard/         the same numbers, where `tensorboard` is installed
    backup/              where the run goes on after an interruption; removed when it is done
    model.keras          the best model, without its optimizer, when the run is done
"""

import csv
import itertools
import json
import math
import shlex
import shutil
import sys
from pathlib import Path

import h5py
import keras

from keras_fcn.datasets import Augmentation

CHECKPOINTS = ("best.keras", "last.keras")
MONITOR = "val_mean_iou"


def check_output(output, parameters, record="training.json", result="model.keras"):
    """Return whether the output folder holds an interrupted run of these parameters.

    Args:
        output: path of the folder.
        parameters: dict of what the run depends on, as JSON stores it.
        record: name of the file that holds them from the beginning of a run.
        result: name of the file that a finished run has written.

    Raises:
        FileExistsError: when it holds a finished run, or files of something else.
        ValueError: when it holds a run of other parameters.
    """
    if (output / result).exists():
        raise FileExistsError(
            f"The output folder should hold no finished run. Received: '{output}', with "
            f"{result}. Choose another folder."
        )
    record = output / record
    if not record.exists():
        if output.exists() and any(output.iterdir()):
            raise FileExistsError(
                f"The output folder should be new or empty, or that of an interrupted run. "
                f"Received: '{output}', which holds other files. Choose another folder."
            )
        return False
    recorded = json.loads(record.read_text())["parameters"]
    differing = [
        f"{name}={parameters.get(name)!r} instead of {recorded.get(name)!r}"
        for name in {**recorded, **parameters}
        if parameters.get(name) != recorded.get(name)
    ]
    if differing:
        raise ValueError(
            f"An interrupted run goes on with the parameters that it began with, in '{record}'. "
            f"Received: {', '.join(differing)}. Pass the same, or choose another output folder."
        )
    return True


def describe_run(task, labels):
    """Return what is written beside the weights, so that the run can be repeated: a dict."""
    import keras_fcn

    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "parameters": task.parameters,
        "seed": task.seed,
        "versions": {
            "keras_fcn": keras_fcn.__version__,
            "keras": keras.__version__,
            "backend": keras.backend.backend(),
            "python": sys.version.split()[0],
        },
        "images": labels.images,
        "classes": labels.classes,
        "ignore": labels.ignore,
        "pixels": labels.training.tolist(),  # of each class
    }


def write_json(path, record):
    """Write a record beside its path, then rename it."""
    beside = path.with_name(f".{path.name}")
    beside.write_text(json.dumps(record, indent=2) + "\n")
    beside.replace(path)


def completed_epochs(output):
    """Return the epochs that the backup holds: those that need not be trained again."""
    metadata = output / "backup" / "training_metadata.json"
    return json.loads(metadata.read_text())["epoch"] if metadata.exists() else 0


def mend_backup(backup):
    """Go back to the copy of a backup that was cut short in writing.

    Keras does so for the weights only, and after the log has been trimmed.
    """
    metadata, weights = backup / "training_metadata.json", backup / "latest.weights.h5"
    if metadata.exists() and not (metadata.read_text() and _is_readable(weights)):
        for path in (metadata, weights):
            copy = path.with_name(f"{path.name}.bkp")
            if copy.exists():
                shutil.copy(copy, path)
            else:
                path.unlink(missing_ok=True)
    if not metadata.exists():  # no epoch is whole
        shutil.rmtree(backup, ignore_errors=True)


def _is_readable(weights):
    try:
        h5py.File(weights).close()
    except OSError:
        return False
    return True


def read_log(output):
    """Return the rows of the log, of the epochs in the backup only."""
    path = output / "log.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(itertools.islice(csv.DictReader(file), completed_epochs(output)))


def trim_log(output, rows):
    """Leave only these rows in the log: an epoch cut short before its backup is logged again."""
    path = output / "log.csv"
    if not rows:
        path.unlink(missing_ok=True)
        return
    beside = path.with_name(f".{path.name}")
    with beside.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    beside.replace(path)


def best_epoch(rows):
    """Return the best mean IoU of the log and its epoch, from 0; None for an empty log."""
    scores = [(float(row[MONITOR]), -int(row["epoch"])) for row in rows]
    scores = [score for score in scores if not math.isnan(score[0])]
    if not scores:
        return None
    mean_iou, epoch = max(scores)  # the first of equal ones
    return mean_iou, -epoch


def finish(output):
    """Write the final model and the result; return the result."""
    rows = read_log(output)
    mean_iou, epoch = best_epoch(rows)
    seconds = sum(float(row["seconds"]) for row in rows)
    model = output / "model.keras"
    beside = output / ".model.keras"
    keras.saving.load_model(output / "best.keras", compile=False).save(beside)
    result = {
        "file": str(model),
        "mean_iou": mean_iou,
        "epoch": epoch + 1,
        "seconds": round(seconds, 1),
    }
    record = json.loads((output / "training.json").read_text())
    write_json(output / "training.json", {**record, "result": {**result, "file": model.name}})
    beside.replace(model)
    shutil.rmtree(output / "backup")
    return result


def tuned_arguments(folder):
    """Return the arguments of `Recipe` for the best trial of a search.

    They are its data, crops, batches and augmentation, the network, the optimizer and
    the class weights; how long to train is not among them.

    Args:
        folder: the output folder of `keras_fcn.tuning.tune`.

    Returns:
        Dict of keyword arguments of `Recipe`.

    Raises:
        FileNotFoundError: when the folder holds no search.
        ValueError: when its search is not done.

    Example:

    >>> Recipe(**tuned_arguments("runs/search"), epochs=100)  # doctest: +SKIP
    """
    path = Path(folder) / "tuning.json"
    if not path.exists():
        raise FileNotFoundError(
            f"A search should have left '{path}', and there is no such file. Pass the output "
            "folder of `keras-fcn tune`."
        )
    record = json.loads(path.read_text())
    if "recipe" not in record:
        raise ValueError(
            f"The search should be done. Received: '{folder}', where it was interrupted. Run the "
            f"same `keras-fcn tune` again, and it goes on: {record['command']}"
        )
    arguments = record["recipe"]
    if arguments["augment"] is not None:
        arguments["augment"] = Augmentation(**arguments["augment"])
    if arguments["values"] is not None:
        arguments["values"] = dict(arguments["values"])
    if arguments["colors"] is not None:
        arguments["colors"] = {tuple(color): label for color, label in arguments["colors"]}
    return arguments
