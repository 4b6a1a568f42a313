"""What a search makes of trials that end otherwise than with a score."""

import errno
import math
import os
from types import SimpleNamespace
from unittest import mock

import keras_tuner
import pytest

from keras_fcn.training.log import MONITOR
from keras_fcn.tuning.report import FINITE, Reporting


class Base:
    """A tuner of KerasTuner, as far as it is asked here."""

    def on_epoch_end(self, *_):
        pass

    def run_trial(self, *_):
        raise self.error


@pytest.fixture
def tuner(tmp_path):
    tuner = object.__new__(type("Tuner", (Reporting, Base), {}))
    tuner.progress, tuner.live, tuner.project_dir = {}, mock.Mock(), str(tmp_path)
    return tuner


def test_a_trial_of_nan_fails_unless_an_epoch_has_a_score(tuner):
    trial = SimpleNamespace(hyperparameters={"learning_rate": 0.01})
    model = SimpleNamespace(stop_training=False)
    with pytest.raises(keras_tuner.errors.FailedTrialError, match=r"NaN in epoch 1, .* 0\.01"):
        tuner.on_epoch_end(trial, model, 0, {MONITOR: math.nan})
    model.stop_training = False
    tuner.on_epoch_end(trial, model, 0, {MONITOR: 0.5})
    assert not model.stop_training
    tuner.on_epoch_end(trial, model, 1, {MONITOR: math.nan})
    assert model.stop_training
    assert tuner.progress == {"epoch": 1, "mean_iou": 0.5}


def test_a_trial_of_nan_counts(tuner):
    """Else a search in which each is one would go on twenty times as long."""
    messages = ["… keras_tuner.src.errors.FailedTrialError: The network should have", FINITE, None]
    trials = [SimpleNamespace(status="FAILED", message=message) for message in messages]
    tuner.oracle = SimpleNamespace(trials=dict(enumerate(trials)), max_trials=None)
    tuner.trials = 5
    tuner.count_trials()
    assert tuner.oracle.max_trials == 7


def test_a_full_disk_ends_a_search_and_no_trial(tuner):
    tuner.error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(OSError) as raised:
        tuner.run_trial(None)
    assert isinstance(raised.value, keras_tuner.errors.FatalError)
    assert raised.value.filename == tuner.project_dir
    tuner.error = OSError("unreadable")  # which is one of the trial
    with pytest.raises(OSError) as raised:
        tuner.run_trial(None)
    assert raised.value is tuner.error
