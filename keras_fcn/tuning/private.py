"""All that this package touches of KerasTuner without a promise, as of version 1.4.8.

KerasTuner goes on after an interruption from files that it writes one after the other, and
keeps less in them than it needs to go on as if nothing had happened. What is mended here has a
test each, which says what KerasTuner has changed if it fails.
"""

import re
import shutil

import keras_tuner
import numpy as np

from keras_fcn.atomic import read_json, write_json


class GridSearch(keras_tuner.GridSearch):
    """Finds its place in the grid again after an interruption.

    KerasTuner does not keep it, and stops or fails (its issue 1055).
    """

    def reload(self):
        super().reload()
        for trial_id in self.oracle.start_order:
            self.oracle._ordered_ids.insert(trial_id)
        self.oracle._populate_next = list(self.oracle.start_order)


class BayesianOptimization(keras_tuner.BayesianOptimization):
    """Draws the points to try from the seed and the number of the trial alone.

    KerasTuner draws them from a stream of random numbers that begins anew after an
    interruption.
    """

    def pre_create_trial(self):
        super().pre_create_trial()
        seed = self.oracle.seed + len(self.oracle.trials)
        self.oracle._random_state = np.random.RandomState(seed)


TUNERS = {
    "random": keras_tuner.RandomSearch,
    "hyperband": keras_tuner.Hyperband,
    "bayesian": BayesianOptimization,
    "grid": GridSearch,
}
FILES = r"(trial_\w+/trial|\w+)\.json"  # of KerasTuner, in the folder of a search


def save_state(folder):
    """Copy KerasTuner's files, while they agree, into one file."""
    paths = [*folder.glob("*.json"), *folder.glob("trial_*/trial.json")]
    files = {str(path.relative_to(folder)): path.read_text() for path in paths}
    files.pop("state.json", None)
    write_json(folder / "state.json", files)


def restore_state(folder):
    """Write KerasTuner's files as they were when they last agreed; remove them if never."""
    state = folder / "state.json"
    if not state.exists():
        shutil.rmtree(folder, ignore_errors=True)
        return
    files = read_json(state)
    for path in folder.glob("trial_*/trial.json"):
        if str(path.relative_to(folder)) not in files:
            path.unlink()
    for name, text in files.items():
        if not re.fullmatch(FILES, name) or not isinstance(text, str):
            raise ValueError(
                f"'{state}' should hold the files of the search. Received: {name!r}. Put it back "
                "from a copy, or choose another folder."
            )
        (folder / name).write_text(text)
