"""What a search reports while it runs: the live table, and files that are whole at any time."""

import csv
import math
import re
from pathlib import Path

import keras
import keras_tuner
from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table

from keras_fcn.atomic import FullDiskError, replacing, telling_full
from keras_fcn.training.log import MONITOR
from keras_fcn.tuning.private import save_state

FINITE = "Loss and scores should stay finite."
MOST_LEFT_OUT = 20  # networks for each trial, after which a search ends
WIDTH = 120  # of the table in a file, characters


class SearchStoppedError(keras_tuner.errors.FatalError, FullDiskError):
    """The disk is full, which KerasTuner would take for the failure of a trial."""


class Reporting:
    """What `tune` adds to a tuner: the live table, and files that are whole at any time."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.progress = {}  # of the running trial
        console = Console()
        if not console.is_terminal:
            console.width = WIDTH
        self.live = Live(get_renderable=self._table, console=console, auto_refresh=False)

    def count_trials(self):
        """Let networks that were left out not count among the trials."""
        left_out = [trial for trial in self.oracle.trials.values() if _is_left_out(trial)]
        self.oracle.max_trials = self.trials + min(len(left_out), MOST_LEFT_OUT * self.trials)

    def run_trial(self, trial, *args, **kwargs):
        try:
            with telling_full(self.project_dir, self.project_dir):
                return super().run_trial(trial, *args, **kwargs)
        except FullDiskError as error:  # the same search goes on from here
            raise SearchStoppedError(error.errno, error.strerror, error.filename) from error

    def on_trial_begin(self, trial):
        super().on_trial_begin(trial)
        # a trial that starts anew after an interruption starts alike
        keras.utils.set_random_seed(self.seed + int(trial.trial_id))
        self.progress = {}
        self._report()

    def on_epoch_end(self, trial, model, epoch, logs=None):
        super().on_epoch_end(trial, model, epoch, logs)
        if not math.isfinite(logs[MONITOR]):
            model.stop_training = True
            if not self.progress:  # else the trial has the score of an epoch before
                raise keras_tuner.errors.FailedTrialError(
                    f"{FINITE} Received: NaN in epoch {epoch + 1}, at a "
                    f"learning rate of {trial.hyperparameters.get('learning_rate'):.2g}."
                )
            return
        self.progress = {"epoch": epoch + 1, "mean_iou": logs[MONITOR]}
        self.live.refresh()

    def on_trial_end(self, trial):
        super().on_trial_end(trial)
        self.count_trials()
        self._report()
        row = describe_trial(self.oracle.trials[trial.trial_id])
        if row["message"]:
            told = f"trial {row['trial']} failed: {row['message']}"
            self.live.console.print(told, markup=False)
        elif not self.live.console.is_terminal:  # where the table comes at the end
            self.live.console.print(f"trial {row['trial']}: mean IoU {_cell(row['mean_iou'])}")

    def _report(self):
        self.save()
        save_state(Path(self.project_dir))
        names, rows = self._trials()
        _write_csv(Path(self.directory) / "trials.csv", names, rows)
        self.live.refresh()

    def _trials(self):
        """Return the names of the hyperparameters, and the trials, the best first."""
        names = list(dict.fromkeys(hp.name for hp in self.oracle.get_space().space))
        rows = [describe_trial(trial) for trial in self.oracle.trials.values()]
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


def _is_left_out(trial):
    """Whether a network was left out, as one that is too large; NaN has taken an epoch's time."""
    return trial.status == "FAILED" and FINITE not in (trial.message or "")


def describe_trial(trial):
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
    with replacing(path) as beside, beside.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["trial", "status", "mean_iou", "epoch", *names, "message"])
        for row in rows:
            values = [row["values"].get(name) for name in names]
            head = [row[name] for name in ("trial", "status", "mean_iou", "epoch")]
            writer.writerow([*head, *values, row["message"]])
