import contextlib
import csv
import dataclasses
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import types
import warnings
from pathlib import Path

import forked
import keras
import numpy as np
import pytest
import tensorflow_datasets
from conftest import leave_half, run_eagerly
from PIL import Image

import keras_fcn
from keras_fcn import FCN8s, UNet, training
from keras_fcn.atomic import FullDiskError
from keras_fcn.classes import Classes
from keras_fcn.commands import _parser, main
from keras_fcn.commands.fields import help_of
from keras_fcn.commands.train import COURSE, DATA, NETWORK, make_recipe
from keras_fcn.datasets import Augmentation, load
from keras_fcn.layers import BatchNormalization
from keras_fcn.losses import DiceCrossentropy, WeightedCrossentropy
from keras_fcn.remedies import on_the_command_line
from keras_fcn.training import ImageGrid, Recipe, fit, log, train

# one process for what they share
pytestmark = pytest.mark.xdist_group("training")
VOID = 255
START = "import sys; from keras_fcn.__main__ import main; sys.exit(main())"
TWO_CPUS = """
import tensorflow as tf
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
"""


def draw(number, size=24):
    """A bright square, class 1, on dark noise, class 0, beside a void stripe."""
    rng = np.random.default_rng(number)
    labels = np.zeros((size, size), "uint8")
    top, left = rng.integers(0, size - 10, 2)
    labels[top : top + 8, left : left + 8] = 1
    image = rng.integers(0, 100, (size, size, 3)) + 120 * labels[..., None]
    labels[:, -2:] = VOID
    return image.astype("uint8"), labels


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of squares: 5 images to train on, 3 to validate on."""
    folder = tmp_path_factory.mktemp("data")
    for split, numbers in (("train", range(5)), ("val", range(5, 8))):
        (folder / split).mkdir()
        (folder / f"{split}annot").mkdir()
        for number in numbers:
            image, labels = draw(number)
            Image.fromarray(image).save(folder / split / f"{number}.png")
            Image.fromarray(labels).save(folder / f"{split}annot" / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def recipe(data):
    return Recipe(
        str(data), filters=(4, 8), epochs=2, steps=2, batch_size=2, crop_size=16, batch_norm=False,
        dropout=0.5, optimizer="adamw", mixed_precision=False,
        augment=Augmentation("horizontal", scale=0.25),
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(recipe, tmp_path_factory):
    """The folder of a finished run, and its result."""
    output = tmp_path_factory.mktemp("runs") / "finished"
    return output, train(recipe, output)


def read_log(output):
    with (output / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def read_record(output):
    return json.loads((output / "training.json").read_text())


def test_run_leaves_what_it_says(run, recipe):
    output, result = run
    assert {path.name for path in output.iterdir()} - {"tensorboard"} == {
        "best.keras", "last.keras", "log.csv", "model.keras", "pictures", "training.json",
    }  # fmt: skip
    log = read_log(output)
    assert [row["epoch"] for row in log] == ["0", "1"]
    assert result["mean_iou"] == max(float(row["val_mean_iou"]) for row in log)
    record = read_record(output)
    assert record["given"] == recipe.parameters
    planned = {
        name for name, value in record["parameters"].items() if record["given"][name] != value
    }
    assert planned == record["plan"].keys() >= {"split", "validation", "learning_rate"}
    assert record["images"] == {"train": 5, "validation": 3}
    assert record["versions"]["keras"] == keras.__version__
    assert record["result"] == {**result, "file": "model.keras"}
    assert len(list((output / "pictures").glob("epoch_*.png"))) == 2


def test_model_predicts_and_evaluates_as_it_did_in_validation(run, data, tmp_path, capsys):
    output, result = run
    weights = ["--weights", str(output / "model.keras")]
    folders = ["--images", str(data / "val"), "--masks", str(data / "valannot")]
    assert main(["evaluate", *weights, *folders, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["mean_iou"] == pytest.approx(result["mean_iou"])
    image = str(data / "val" / "5.png")
    assert main(["predict", image, *weights, "--output", str(tmp_path / "out")]) == 0
    model = keras.saving.load_model(output / "model.keras")
    assert getattr(model, "optimizer", None) is None


def test_finished_run_is_never_overwritten(run, recipe):
    output, _ = run
    before = (output / "model.keras").read_bytes()
    with pytest.raises(FileExistsError, match="no finished run"):
        train(recipe, output)
    assert (output / "model.keras").read_bytes() == before


def test_folder_of_other_files_is_refused(recipe, tmp_path):
    (tmp_path / "log.csv").write_text("mine")
    with pytest.raises(FileExistsError, match="other files"):
        train(recipe, tmp_path)
    assert (tmp_path / "log.csv").read_text() == "mine"


def test_same_seed_same_run(run, recipe, tmp_path):
    train(recipe, tmp_path / "again")
    first, second = read_log(run[0]), read_log(tmp_path / "again")
    for row in first + second:
        assert float(row.pop("seconds")) > 0
    assert first == second


def weights_of(output, name="last.keras"):
    model = keras.saving.load_model(output / name)
    return [*model.get_weights(), *(v.numpy() for v in model.optimizer.variables)]


def assert_same_run(output, expected):
    """Bit by bit, with each epoch in the log once."""
    for name in ("last.keras", "best.keras"):
        pairs = zip(weights_of(output, name), weights_of(expected, name), strict=True)
        assert all(np.array_equal(one, other) for one, other in pairs)
    rows = read_log(output), read_log(expected)
    assert [row["epoch"] for row in rows[0]] == [str(epoch) for epoch in range(len(rows[1]))]
    assert [row["val_mean_iou"] for row in rows[0]] == [row["val_mean_iou"] for row in rows[1]]


@pytest.mark.slow
def test_deterministic_runs_give_the_same_weights(recipe, tmp_path):
    augment = ["flip=dihedral", "rotation=20", "scale=0.3", "elastic=3", "hue=0.1", "contrast=0.1"]
    threads = {name: "4" for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")}
    for name in ("one", "two"):  # each in a process of its own, where it stays on
        command = ["-m", "keras_fcn", "train", "--data", recipe.data]
        command += ["--filters", "4", "8", "--epochs", "1", "--steps", "3", "--crop-size", "16"]
        command += ["--augment", *augment, "--border-weights", "--deterministic"]
        command += ["--output", str(tmp_path / name)]
        forked.run(command, check=True, env=os.environ | threads)
    assert_same_run(tmp_path / "one", tmp_path / "two")
    assert read_record(tmp_path / "one")["parameters"]["deterministic"]


@pytest.fixture(scope="module")
def long_recipe(recipe):
    return dataclasses.replace(recipe, epochs=3, steps=3, optimizer="muon", batch_norm=True)


KILLS = {
    "after the steps of an epoch": (ImageGrid, "on_epoch_end", 2),
    "before its row is written": (training.callbacks, "write_log", 2),
    "between row and state": (training.callbacks, "save_state", 2),
    "between last.keras and best.keras": (training.callbacks, "keep_best", 1),
    "before the next epoch": (training.callbacks, "best_epoch", 2),
    "at the end": (training.fit, "finish", 1),
}


@pytest.fixture(scope="module")
def long_run(long_recipe, tmp_path_factory):
    """The folder of a run; beside it is what a `kill -9` at each of the moments would leave."""
    output = tmp_path_factory.mktemp("runs") / "long"
    with pytest.MonkeyPatch.context() as patch, run_eagerly():
        for moment, place in KILLS.items():
            copy_at(patch, *place, output, output.with_name(moment))
        train(long_recipe, output)
    return output


def copy_at(monkeypatch, where, name, count, output, copy):
    """Copy a folder, but for its lock, at the call of a function of this number."""
    calls = iter(range(1, 1000))
    function = getattr(where, name)

    def copying(*args, **kwargs):
        if next(calls) == count:
            shutil.copytree(output, copy, ignore=shutil.ignore_patterns(training.run.LOCK))
        return function(*args, **kwargs)

    monkeypatch.setattr(where, name, copying)


class Kill(BaseException):
    """As `kill -9`: nothing is tidied up in its way."""


def kill_at(monkeypatch, where, name, count):
    """Raise at the call of a function of this number."""
    calls = iter(range(1, 1000))
    function = getattr(where, name)

    def killed(*args, **kwargs):
        if next(calls) == count:
            raise Kill
        return function(*args, **kwargs)

    monkeypatch.setattr(where, name, killed)


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("moment", KILLS)
def test_run_goes_on_from_wherever_it_was_killed(moment, long_recipe, long_run):
    output = long_run.with_name(moment)
    leave_half(output, "last.keras")
    leave_half(output / "pictures", "epoch_0001.png")
    train(long_recipe, output)
    assert_same_run(output, long_run)
    assert not list(output.rglob(".*"))


def signal_at(monkeypatch, hook, count, number):
    """Let this process heed a signal before the call of a hook of this number.

    The handler is called as Python calls it. A real signal is delivered on a stack that
    libraries which other tests have loaded may have set and freed; in processes of their own
    real ones are sent by `test_run_survives_kill_9_and_sigterm`.
    """
    calls = iter(range(1, 1000))
    act = getattr(training.callbacks.Keeper, hook)

    def signalled(keeper, *args, **kwargs):
        if next(calls) == count:
            signal.getsignal(number)(number, None)
        act(keeper, *args, **kwargs)

    monkeypatch.setattr(training.callbacks.Keeper, hook, signalled)


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize(
    ("number", "hook", "error"),
    [
        (signal.SIGTERM, "on_train_batch_end", SystemExit),
        (signal.SIGINT, "on_train_batch_end", KeyboardInterrupt),
        (signal.SIGTERM, "on_test_batch_end", SystemExit),
        (signal.SIGHUP, "on_train_batch_end", SystemExit),
    ],
)
def test_signal_ends_a_run_after_the_step(
    number, hook, error, long_recipe, long_run, tmp_path, monkeypatch, capsys
):
    output = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(error) as raised:
        signal_at(patch, hook, 5, number)
        train(long_recipe, output)
    if error is SystemExit:
        assert raised.value.code == 128 + number
        assert "the same command goes on" in capsys.readouterr().err
    train(long_recipe, output)
    assert_same_run(output, long_run)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_full_disk_is_told_by_the_name_of_what_tensorboard_writes(tmp_path, monkeypatch):
    def fill(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(keras.callbacks.TensorBoard, "set_model", fill)
    (board,) = training.callbacks.make_board(tmp_path, keeper=None)
    with pytest.raises(FullDiskError) as raised:
        board.set_model(None)
    assert raised.value.filename == str(tmp_path / "tensorboard")


TERMINAL = """
import os, sys
os.setsid()
terminal = os.open(sys.argv.pop(1), os.O_RDWR)  # that of the session
for number in range(3):
    os.dup2(terminal, number)
sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))
"""


@pytest.mark.parametrize("ignored", [False, True])
def test_a_terminal_that_closes_ends_a_run_after_the_step(ignored, data, tmp_path):
    """Where SIGHUP is ignored, as by `disown`, the bar cannot be drawn."""
    master, slave = os.openpty()
    code = TERMINAL
    if ignored:
        code += "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    recipe = ["--data", data, "--filters", 2, 4, "--crop-size", 16, "--steps", 100_000]
    command = ["train", "--output", tmp_path / "run", *recipe]
    process = forked.Forked(["-c", code + START, os.ttyname(slave), *command])
    shown = os.read(master, 1000)
    os.close(slave)  # it has it
    while b"loss" not in shown:
        shown += os.read(master, 1000)  # an error where it has ended
    os.close(master)
    assert process.wait() == 129
    assert (tmp_path / "run" / "last.keras").exists()
    assert not list((tmp_path / "run").glob(".*"))


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("name", ["last.keras", "training.json"])
def test_a_damaged_file_of_a_run_is_named(name, recipe, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Kill):
        kill_at(patch, training.callbacks, "save_state", 2)
        train(recipe, tmp_path)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=f"{name}' should be"):
        train(recipe, tmp_path)
    if name == "training.json":
        (tmp_path / name).write_bytes(whole)
    else:
        (tmp_path / "last.keras").unlink()
        (tmp_path / "best.keras").unlink()
    assert Path(train(recipe, tmp_path)["file"]).exists()
    assert [row["epoch"] for row in read_log(tmp_path)] == ["0", "1"]


@pytest.mark.parametrize(
    "record",
    [
        {"given": {}},
        {"given": {}, "parameters": 3},
        {"given": {"data": "d"}, "parameters": {"data": "d", "colour": 1}},
        {"given": {"data": "d"}, "parameters": {}},
        {"given": {"data": "d"}, "parameters": {"data": "d", "augment": {"flop": 1}}},
        {"given": {"data": "d"}, "parameters": {"data": "d", "epochs": 0}},
    ],
)
def test_a_record_that_holds_something_else_is_named(record, tmp_path):
    (tmp_path / "training.json").write_text(json.dumps(record))
    (tmp_path / "last.keras").write_bytes(b"")
    with pytest.raises(ValueError, match=r"training.json' should .* Put it back from a copy"):
        read = training.run.read_record(tmp_path, {"data": "d"})
        training.recipe.recall(Recipe, read["parameters"], tmp_path / "training.json")


def test_a_run_from_before_a_flag_was_planned_goes_on(tmp_path):
    before = Recipe("d").parameters | {"border_weights": False}
    record = {"given": before, "parameters": before}
    (tmp_path / "training.json").write_text(json.dumps(record))
    (tmp_path / "last.keras").write_bytes(b"")
    assert training.run.read_record(tmp_path, Recipe("d").parameters) == record
    with pytest.raises(ValueError, match="border_weights=True instead of False"):
        training.run.read_record(tmp_path, Recipe("d", border_weights=True).parameters)


@pytest.mark.parametrize(
    ("spoil", "lost"),
    [
        (lambda log: log[:-3], []),  # the last epoch gets its scores again
        (lambda log: log[:-17], [1]),
        (lambda log: b"", [0, 1]),
        (lambda log: log.partition(b"\n")[2], [0, 1]),  # no header
        (lambda log: log.replace(b",", b";"), [0, 1]),  # of a spreadsheet
        (lambda log: log.replace(b"1,0.5", b"1,half"), [1]),
        (lambda log: log + b'3,"\xff\0', []),
        (lambda log: bytes(range(256)) * 9, [0, 1]),
        (lambda log: log.decode().encode("utf-16"), [0, 1]),
        (None, [0, 1]),  # gone
    ],
)
def test_a_damaged_log_is_kept_beside(spoil, lost, tmp_path):
    rows = [{"epoch": n, "val_mean_iou": 0.5 + n / 10, "seconds": 1.5} for n in range(3)]
    rows[1]["val_mean_iou"] = 0.5
    log.write_log(tmp_path, rows)
    path = tmp_path / "log.csv"
    assert log.recover_log(tmp_path, 3)[1] == []
    whole = path.read_bytes()
    path.unlink()
    if spoil is not None:
        path.write_bytes(spoil(whole))
    with pytest.warns(UserWarning, match=r"log.csv', (damaged|without some)\..* put it back"):
        found, missing = log.recover_log(tmp_path, 3)
    assert missing == lost
    assert [int(row["epoch"]) for row in found] in ([0, 1, 2], [0, 1])
    for row in found:
        known = float(row["val_mean_iou"]) == rows[int(row["epoch"])]["val_mean_iou"]
        assert known != (int(row["epoch"]) in lost)
    if spoil is not None:
        assert (tmp_path / "log.damaged1.csv").read_bytes() == spoil(whole)
    log.write_log(tmp_path, found)
    assert log.recover_log(tmp_path, len(found))[0] == read_log(tmp_path)  # whole again
    path.write_bytes(whole)  # the remedy
    assert log.recover_log(tmp_path, 3)[1] == []


@pytest.mark.usefixtures("eagerly")
def test_the_best_epoch_of_a_damaged_log_gets_its_score_again(
    long_recipe, long_run, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch, pytest.raises(Kill):
        kill_at(patch, training.callbacks, "write_log", 3)
        train(long_recipe, tmp_path)
    text = (tmp_path / "log.csv").read_text()
    (tmp_path / "log.csv").write_text(text.replace("epoch", "Epoche"))
    with pytest.warns(UserWarning, match="Those of epoch 1 are nan"):
        result = train(long_recipe, tmp_path)
    expected = log.best_epoch(read_log(long_run))
    assert (result["mean_iou"], result["epoch"]) == (pytest.approx(expected[0]), expected[1] + 1)
    rows = read_log(tmp_path)
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert [row["seconds"] for row in rows].count("nan") == 1


@pytest.mark.usefixtures("eagerly")
def test_other_parameters_are_refused_with_a_way_on(long_recipe, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch, pytest.raises(Kill):
        kill_at(patch, training.callbacks, "save_state", 2)
        train(long_recipe, tmp_path)
    other = dataclasses.replace(long_recipe, crop_size=8, epochs=5)
    with pytest.raises(
        ValueError, match="crop_size=8 instead of 16, epochs=5 instead of 3"
    ) as error:
        train(other, tmp_path)
    assert f"`weights='{tmp_path / 'best.keras'}'`" in str(error.value)


@pytest.mark.usefixtures("eagerly")
def test_a_run_that_did_nothing_begins_anew_with_other_parameters(recipe, tmp_path, monkeypatch):
    def fail(*args):
        raise MemoryError("smaller batches would fit")

    recipe = dataclasses.replace(recipe, epochs=1)
    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(training.fit, "_fit", fail)
        train(recipe, tmp_path)
    train(dataclasses.replace(recipe, batch_size=1), tmp_path)
    record = json.loads((tmp_path / "training.json").read_text())
    assert record["parameters"]["batch_size"] == record["given"]["batch_size"] == 1


def test_a_folder_that_was_there_stays(recipe, tmp_path):
    for folder in ("there", "new"):
        (tmp_path / "there").mkdir(exist_ok=True)
        wrong = dataclasses.replace(recipe, data=str(tmp_path / "nothing"))
        with pytest.raises(FileNotFoundError):
            train(wrong, tmp_path / folder)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_one_run_at_a_time_writes_into_a_folder(recipe, tmp_path):
    with training.run.working_in(tmp_path), pytest.raises(FileExistsError, match="process"):
        train(recipe, tmp_path)


@pytest.mark.slow
def test_run_survives_kill_9_and_sigterm(data, tmp_path):
    """Killed at random moments until it is done, it ends as one that never was."""
    options = [
        "--filters", "4", "8", "--crop-size", "16", "--batch-size", "2", "--epochs", "6",
        "--steps", "20",
    ]  # fmt: skip

    def command(output):
        start = ["-c", START, "train", "--data", str(data)]
        return [*start, "--output", str(output), *options]

    forked.run(command(tmp_path / "whole"), check=True)
    output, rng, signals = tmp_path / "run", np.random.default_rng(0), [9, 15, 9, 9, 15]
    statuses = []
    for number in signals:
        process = forked.Forked(command(output))
        for line in process.lines():  # until it trains
            if line.startswith(("Planned", "Epoch")):
                break
        time.sleep(rng.uniform(0, 3))
        process.send_signal(number)
        statuses.append(process.wait())
    assert set(statuses) <= {-9, -15, 143, 0}
    if not (output / "model.keras").exists():
        forked.run(command(output), check=True)
    assert_same_run(output, tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "flags", "prepare"),
    [
        ("tensorflow", "", TWO_CPUS),
        ("jax", "--xla_force_host_platform_device_count=2", ""),
    ],
    ids=["tensorflow", "jax"],
)
def test_two_devices_share_batches(backend, flags, prepare, data, tmp_path):
    output, other = tmp_path / "run", str(tmp_path / "other")
    options = ["--data", str(data), "--filters", "4", "8", "--crop-size", "16", "--data-parallel"]
    options += ["--no-mixed-precision"]  # else where it is planned one pixel is of another class
    folders = ["--images", str(data / "val"), "--masks", str(data / "valannot")]
    commands = [
        ["train", *options, "--output", str(output), "--epochs", "2"],
        ["evaluate", "--weights", str(output / "model.keras"), *folders, "--json"],
        ["train", *options, "--output", str(tmp_path / "odd"), "--batch-size", "3"],
        # another network in the same process, whose sums over the devices are of other shapes
        ["train", *options, "--output", other, "--epochs", "1", "--no-batch-norm"],
    ]
    start = f"{prepare}\nfrom keras_fcn.commands import main\nprint([main(c) for c in {commands}])"
    environment = os.environ | {"KERAS_BACKEND": backend, "XLA_FLAGS": flags}
    if backend == keras.backend.backend():
        result = forked.run(["-c", start], env=environment)
    else:
        result = subprocess.run(
            [sys.executable, "-c", start], env=environment, capture_output=True, text=True
        )
    *lines, statuses = result.stdout.splitlines()
    assert statuses == "[0, 0, 1, 0]", result.stderr
    assert "multiple of the number of devices, 2" in result.stderr
    # the third validation image has a batch of its own, filled with void
    mean_iou = read_record(output)["result"]["mean_iou"]
    scores = next(line for line in lines if line.startswith('{"mean_iou"'))
    assert json.loads(scores)["mean_iou"] == pytest.approx(mean_iou)


def test_what_a_backend_does_not_do_is_said(recipe, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with (
        pytest.raises(ValueError, match="works on the backends tensorflow and jax"),
        fit._devices(True),
    ):
        pass
    with pytest.raises(ValueError, match="works on the backend tensorflow"):
        fit._be_deterministic()
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match="works on the backends tensorflow and torch"):
        fit._make_model(dataclasses.replace(recipe, freeze_encoder=1), None, 1)


def test_devices_share_whole_batches(recipe):
    with fit._devices(True) as devices:
        assert devices == 1  # this computer's processor
    with pytest.raises(ValueError, match="multiple of the number of devices, 4"):
        fit._make_model(recipe, None, 4)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="its strategies")
def test_a_scope_of_the_caller_is_refused_before_anything_is_trained(recipe, tmp_path):
    import tensorflow as tf

    shared = dataclasses.replace(recipe, data_parallel=True)
    with tf.distribute.MirroredStrategy().scope():
        with pytest.raises(ValueError, match="Call it outside of the scope; `data_parallel=True`"):
            training.train(shared, tmp_path / "run")
        training.train(recipe, tmp_path / "one")  # one device, as everywhere
    training.train(shared, tmp_path / "run")


@pytest.mark.parametrize("name", ["adamw", "muon", "sgd"])
def test_optimizers_go_by_their_names(name):
    optimizer = fit.make_optimizer(name, 0.5, 0.9)
    assert type(optimizer).__name__.lower() == name
    assert float(optimizer.learning_rate) == 0.5
    if name == "sgd":
        assert optimizer.momentum == 0.9


def test_loss_and_share_of_the_encoder_are_those_of_the_recipe(recipe):
    chosen = dataclasses.replace(
        recipe, loss="dice", optimizer="muon", encoder_share=0.05, learning_rate=1e-3,
        steps=10, epochs=1, batch_norm=True,
    )  # fmt: skip
    model = UNet(num_classes=2, filters=(4, 8), batch_norm=True)
    fit._compile(model, chosen, None, 255)
    assert type(model.loss) is DiceCrossentropy
    assert model.loss.ignore_class == 255
    [pattern] = model.optimizer.shares
    slower = {v.path.split("/")[-2] for v in model.variables if re.search(pattern, v.path)}
    names = [f"conv{level}_{number}" for level in (1, 2) for number in (1, 2)]
    assert slower == {*names, *(f"{name}_bn" for name in names)}
    fit._compile(model, recipe, None, None)
    assert type(model.loss) is WeightedCrossentropy


@pytest.mark.slow
def test_training_learns(recipe, tmp_path):
    recipe = dataclasses.replace(
        recipe, filters=(8, 16), epochs=4, steps=30, learning_rate=1e-2, batch_norm=True
    )
    assert train(recipe, tmp_path)["mean_iou"] > 0.9


@pytest.mark.usefixtures("eagerly")
def test_early_stopping(recipe, tmp_path):
    recipe = dataclasses.replace(recipe, epochs=5, early_stopping=1, learning_rate=1e-12)
    assert train(recipe, tmp_path)["epoch"] == 1
    assert len(read_log(tmp_path)) == 2


def test_loss_that_is_no_number_is_an_error_each_time(recipe, tmp_path):
    recipe = dataclasses.replace(recipe, learning_rate=1e38, epochs=2, steps=6)
    for _ in range(3):
        with pytest.raises(ValueError, match=r"at step \d, in epoch 1, .*lower learning rate"):
            train(recipe, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} <= {"training.json", "tensorboard"}


@pytest.mark.parametrize("mixed", [False, True])
def test_weights_that_are_no_numbers_after_the_last_step_are_told_of_the_step(
    mixed, recipe, tmp_path
):
    """Before the pictures of the epoch are drawn by them."""
    recipe = dataclasses.replace(
        recipe, learning_rate=1e38, epochs=1, steps=2, mixed_precision=mixed, optimizer="sgd"
    )
    for _ in range(2):
        with pytest.raises(ValueError, match=r"became .* at step 2, in epoch 1"):
            train(recipe, tmp_path)
    assert not (tmp_path / "best.keras").exists()


@pytest.mark.usefixtures("eagerly")
def test_a_later_divergence_leaves_the_last_good_weights(long_recipe, tmp_path, monkeypatch):
    """Neither weights, nor the scores of validation, may be NaN."""
    whole = training.callbacks.Keeper.on_epoch_end

    def spoil(keeper, epoch, logs=None):
        if epoch == 1:
            kernel = keeper.model.get_layer("score").kernel
            kernel.assign(np.nan * np.ones(kernel.shape))
        whole(keeper, epoch, logs)

    with monkeypatch.context() as patch, pytest.raises(ValueError, match="best epoch before it, 1"):
        patch.setattr(training.callbacks.Keeper, "on_epoch_end", spoil)
        train(long_recipe, tmp_path)
    assert all(np.isfinite(array).all() for array in weights_of(tmp_path))
    with pytest.raises(ValueError, match="should stay finite"):
        train(long_recipe, tmp_path)


def test_mixed_precision_is_of_the_model_alone(recipe, tmp_path):
    recipe = dataclasses.replace(recipe, mixed_precision=True, epochs=1)
    train(recipe, tmp_path)
    model = keras.saving.load_model(tmp_path / "model.keras")
    assert model.get_layer("conv1_1").compute_dtype == "bfloat16"
    assert model.get_layer("predictions").compute_dtype == "float32"
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.parametrize("model", ["fcn32s", "fcn16s", "fcn8s", "fcn8s_at_once"])
def test_networks(model, narrow_vgg16):
    recipe = Recipe("data", model=model, fc_filters=8, batch_norm=True)
    built = training.network.build(recipe, num_classes=3, channels=1)
    assert built.name == model
    assert built.get_layer("fc7_bn")
    assert built.input_shape[-1] == 1
    assert built.output_shape[-1] == 3


def test_recipe_sets_network_and_optimizer():
    recipe = Recipe(
        "data", filters=(4, 8), dropout=0.0, upsampling="bilinear", optimizer="sgd", momentum=0.9,
        learning_rate=0.1, steps=10, epochs=1,
    )  # fmt: skip
    model = training.network.build(recipe, num_classes=2, channels=3)
    training.fit._compile(model, recipe, weights=None, ignore=255)
    assert model.get_layer("drop1").rate == 0
    assert model.get_layer("upsample1")
    assert isinstance(model.optimizer, keras.optimizers.SGD)
    assert model.optimizer.momentum == 0.9


def test_fine_tuning_keeps_what_the_catalogue_has(monkeypatch):
    pretrained = UNet(num_classes=3, filters=(4, 8))
    monkeypatch.setattr(training.recipe, "pretrained", lambda: {"mine": {}})
    monkeypatch.setattr(training.network, "from_pretrained", lambda name, num_classes: pretrained)
    recipe = Recipe("data", weights="mine")
    assert training.network.build(recipe, num_classes=3, channels=3) is pretrained
    with pytest.raises(ValueError, match="images of 3 channels"):
        training.network.build(recipe, num_classes=3, channels=1)
    with pytest.raises(ValueError, match=r"filters=\(4, 8\) together with the weights 'mine'"):
        Recipe("data", weights="mine", filters=(4, 8))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": 0}, "`epochs` should be an integer of at least 1"),
        ({"class_weights": "logs"}, "Did you mean 'log'"),
        ({"model": "fcn8"}, "Did you mean 'fcn8s'"),
        ({"model": "fcn8s", "filters": (4, 8), "encoder": "vgg16"}, "encoder='vgg16' together"),
        ({"fc_filters": 8}, "fc_filters=8 together with unet"),
        ({"model": "fcn8s", "dropout": 0.0}, "dropout=0.0 together with fcn8s"),
        ({"dropout": 1}, "from 0 to below 1"),
        ({"upsampling": "nearest"}, "'transpose', 'bilinear'"),
        ({"learning_rate": 0}, "above 0"),
        ({"learning_rate": float("inf")}, "finite"),
        ({"learning_rate": float("nan")}, "finite"),
        ({"ignore": 0.5}, "should be an integer"),
        ({"class_names": ("a", "b"), "num_classes": 3}, "2 names for num_classes=3"),
        ({"filters": 8}, r"two levels or more, for example .*Received: filters=8"),
        ({"filters": "48"}, "Received: filters='48'"),
        ({"augment": {"scale": 0.2}}, r"an `Augmentation`, or None. .*`keras_fcn.datasets.Augm"),
        ({"augment": "strong"}, "Received: 'strong'"),
        ({"optimizer": "adam"}, "Did you mean 'adamw'"),
        ({"weights": "imagenet"}, "Pass `encoder='vgg16'`, or .* `model='fcn8s'`"),
        ({"seed": -1}, "`seed` should be an integer from 0"),
        ({"white": 0}, "`white` should be a finite number above 0"),
        ({"learning_rate": True}, "finite"),
        ({"dropout": float("nan")}, "from 0 to below 1"),
        ({"values": {0: 0, 1: 0.5}}, "labels of `values` should be integers"),
        ({"instances": "numbers"}, "`instances` should be one of 'two', 'border'"),
        ({"momentum": 0.9}, "goes with `optimizer='sgd'`"),
        ({"encoder_share": 0}, "above 0, and goes with `optimizer='muon'`"),
        ({"encoder_share": 0.1, "optimizer": "adamw"}, "goes with `optimizer='muon'`"),
        ({"loss": "dise"}, "Did you mean 'dice'"),
    ],
)
def test_recipes_that_cannot_be(arguments, message):
    with pytest.raises(ValueError, match=message):
        Recipe("data", **arguments)


def test_recipe_is_recorded_as_json(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the record holds whole paths
    recipe = Recipe(".", filters=(4, 8), colors={(0, 0, 0): 0, (255, 0, 0): 1}, augment=None)
    parameters = recipe.parameters
    assert parameters["data"] == str(tmp_path)
    assert parameters["colors"] == [[[0, 0, 0], 0], [[255, 0, 0], 1]]
    assert parameters == json.loads(json.dumps(parameters))


def read_data(*args, **kwargs):
    recipe, _ = training.plan.plan_splits(Recipe(*args, **kwargs))
    return training.labels.read_data(recipe)


def test_one_text_is_not_taken_for_its_letters():
    with pytest.raises(TypeError, match=r"Received: 'road'. Write \['road'\] for one class"):
        Recipe("data", class_names="road")
    assert Recipe("data", class_names=["road"]).class_names == ("road",)


def test_labels_are_counted_before_the_training(data):
    labels = read_data(str(data))
    counts = sum(np.bincount(draw(n)[1].ravel(), minlength=256) for n in range(5))
    assert labels.training.tolist() == counts[:2].tolist()
    assert labels.classes.names == ("class 0", "class 1")
    assert (labels.ignore, labels.channels, labels.colored) == (255, 3, True)
    assert labels.images == {"train": 5, "validation": 3}
    assert labels.object_size == 8
    with pytest.raises(ValueError, match=r"Received: \[255\] in the train masks"):
        read_data(str(data), num_classes=2, ignore=254)
    with pytest.raises(ValueError, match="the splits 'train', 'val', 'all'"):
        read_data(str(data), split="training", validation="val")


@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        ({"num_classes": 2}, "`--classes`"),
        ({"class_names": ("a", "b")}, "Give one for each class, `--class-names`"),
        ({"class_colors": ((0, 0, 0), (9, 9, 9))}, "Give one for each class, `--class-colors`"),
        ({}, "Give each class its line in '.*classes.csv'"),
    ],
)
def test_classes_are_asked_for_as_they_were_given(given, remedy, write_masks):
    folder, parts = Path(write_masks(0, 1, 2)), {"split": "all[:9]", "validation": "all[9:]"}
    if not given:
        (folder / "classes.csv").write_text("label,name\n0,a\n1,b\n")
    task = Recipe(str(folder), **parts, **given)
    with on_the_command_line(), pytest.raises(ValueError, match=remedy):
        training.labels.read_data(task)
    (folder / "classes.csv").write_text("label,name\n0,a\n1,b\n2,c\n")
    mended = {name: (*value, value[0]) for name, value in given.items() if name != "num_classes"}
    task = Recipe(str(folder), **parts, **mended)
    assert len(training.labels.read_data(task).classes) == 3


def test_data_sets_bring_their_classes_and_void_label(data):
    folder = str(data)

    def find(source, **options):
        recipe = Recipe(source, split="train", **options)
        return training.labels._find_classes(recipe, 255, occurring=2)[0]

    assert find("shapes/street").names == ("sky", "building", "tree", "road", "car")
    assert find("shapes").names == ("border", "cell")
    named = find(folder, class_names=("a", "b"), class_colors=((1, 2, 3), (4, 5, 6)))
    assert (named.names, named.colors) == (("a", "b"), ((1, 2, 3), (4, 5, 6)))
    assert find(folder, num_classes=1).names == ("class 0", "class 1")


NAMED = Classes(("sky", "car"), ((1, 2, 3), (4, 5, 6)), ignore=2)


@pytest.mark.parametrize(
    ("given", "names", "colors", "told"),
    [
        ({}, ("sky", "car"), NAMED.colors, "keep the names .* '.*mine.keras' with sky, car. If"),
        ({"class_colors": ((7, 7, 7), (8, 8, 8))}, ("sky", "car"), ((7, 7, 7), (8, 8, 8)), "keep"),
        ({"class_names": ("sky", "car")}, ("sky", "car"), NAMED.colors, None),
        ({"class_names": ("a", "b")}, ("a", "b"), ((0, 0, 0), (128, 0, 0)), None),
        ({"num_classes": 3}, ("class 0", "class 1", "class 2"), None, "Every class should occur"),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_classes_of_the_weights_stay_where_the_data_names_none(
    data, tmp_path, given, names, colors, told, nested
):
    model = UNet(filters=(4, 8))
    keras_fcn.set_classes(model, NAMED)
    if nested:
        model = keras.Sequential([keras.Input((None, None, 3)), model])
    model.save(tmp_path / "mine.keras")
    expected = pytest.warns(UserWarning, match=told) if told else contextlib.nullcontext()
    with expected:
        labels = read_data(str(data), weights=str(tmp_path / "mine.keras"), **given)
    assert labels.classes.names == names
    assert labels.classes.colors == (colors or Classes.default(len(names)).colors)
    assert labels.ignore == labels.classes.ignore == VOID


@pytest.mark.usefixtures("eagerly")
def test_names_of_the_weights_are_in_the_model_and_the_record(recipe, run, tmp_path):
    source = keras_fcn.load_model(run[0] / "model.keras")
    keras_fcn.set_classes(source, NAMED)
    source.save(tmp_path / "mine.keras")
    mine = dataclasses.replace(
        recipe, weights=str(tmp_path / "mine.keras"), filters=None, dropout=None, epochs=1
    )
    with pytest.warns(UserWarning, match="with sky, car. If .* pass `class_names`"):
        result = train(mine, tmp_path / "more")
    assert keras_fcn.classes_of(keras_fcn.load_model(result["file"])).names == NAMED.names
    assert read_record(tmp_path / "more")["classes"] == ["sky", "car"]


def test_a_class_that_the_weights_know_as_void_is_asked_about(write_masks, tmp_path):
    model = UNet(filters=(4, 8))
    keras_fcn.set_classes(model, NAMED)
    model.save(tmp_path / "mine.keras")
    options = {"split": "all[:9]", "validation": "all[9:]", "weights": str(tmp_path / "mine.keras")}
    folder = write_masks(0, 1, 2)
    with pytest.warns(UserWarning, match="Received: 2, the last of 3 .* `ignore=2`"):
        assert len(read_data(folder, **options).classes) == 3
    with pytest.warns(UserWarning, match="keep the names"):
        assert read_data(folder, ignore=2, **options).classes.names == ("sky", "car")


@pytest.fixture
def write_masks(tmp_path):
    """A function that writes 20 images with masks of 9 x 9 pixels of these labels."""

    def write(*values):
        for folder in ("images", "masks"):
            (tmp_path / folder).mkdir(exist_ok=True)
        for number in range(20):
            picture = np.arange(81, dtype="uint8").reshape(9, 9)
            Image.fromarray(picture).save(tmp_path / "images" / f"{number}.png")
            labels = np.array(values, "uint8")[picture % len(values)]
            Image.fromarray(labels).save(tmp_path / "masks" / f"{number}.png")
        return str(tmp_path)

    return write


def test_images_that_are_trained_on_and_validated_on_are_told(write_masks):
    task = Recipe(write_masks(0, 1), split="all[:12]", validation="all[8:]")
    with pytest.warns(UserWarning, match=r"4 of 12 that are both.*`split='all\[:80%\]'`"):
        training.labels.read_data(task)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        apart = {"split": "all[:80%]", "validation": "all[80%:]"}
        training.labels.read_data(dataclasses.replace(task, **apart))


def test_images_of_a_data_set_that_are_both_are_told_too(monkeypatch):
    """By the splits as they are open: each is opened once."""
    opened, builder = [], tensorflow_datasets.builder
    monkeypatch.setattr(
        tensorflow_datasets,
        "builder",
        lambda name, **options: opened.append(name) or builder(name, **options),
    )
    parts = {"split": "train", "validation": "val+train[:20%]"}
    count, both = (
        sum(int(load("shapes/cells", split).cardinality()) for split in splits)
        for splits in (("val", "train[:20%]"), ("train[:20%]",))
    )
    words = (r"`split='train\[:80%\]'`", r"`validation='train\[80%:\]'`")
    told = f"{both} of {count} that are both.*{' and '.join(words)}"
    with pytest.warns(UserWarning, match=told):
        read_data("shapes/cells", **parts)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        opened.clear()
        read_data("shapes/cells", split="train[:80%]", validation="train[80%:]")
    assert len(opened) == 2


def test_a_pair_of_folders_is_no_data_to_train_on(write_masks, tmp_path):
    folder = write_masks(0, 1)
    pair = (f"{folder}/images", f"{folder}/masks")
    with pytest.raises(ValueError, match="with links `images` and `masks`"):
        Recipe(pair)
    (tmp_path / "both").mkdir()
    for place in pair:
        (tmp_path / "both" / Path(place).name).symlink_to(place)
    task = Recipe(str(tmp_path / "both"), split="all[:80%]", validation="all[80%:]")
    assert training.labels.read_data(task).images == {"train": 16, "validation": 4}


@pytest.mark.parametrize("void", [2**31, -(2**40)])
def test_a_void_label_that_label_maps_can_not_hold_is_refused(void, write_masks):
    """Padding would hold another number, and that may be a class."""
    folder = write_masks(0, 1)
    for call in (
        lambda: Recipe(folder, ignore=void),
        lambda: load(folder, "all", ignore=void, crop_size=64),
    ):
        with pytest.raises(ValueError, match=r"fit the 32 bits.* as `ignore=255`"):
            call()


def test_a_class_alone_is_nothing_to_learn(write_masks):
    folder = write_masks(0, 255)
    message = "no label but 0 and the void label 255 in 16 training masks.*values={0: 0, 255: 1}"
    with pytest.raises(ValueError, match=message):
        read_data(folder, ignore=255)
    assert len(read_data(folder, ignore=255, values={0: 0, 255: 1}).classes) == 2
    with pytest.raises(ValueError, match="no label but 3 and the void label 255"):
        read_data(write_masks(3, 3))


def test_classes_that_never_occur_are_told_of_all_training_masks(write_masks, recwarn):
    read_data(write_masks(0, 1, 3))
    (warning,) = recwarn
    assert "class 2. If the numbers leave gaps" in str(warning.message)
    assert "(In 16 training masks.)" in str(warning.message)
    recwarn.clear()
    read_data(write_masks(1, 2))
    (warning,) = recwarn
    assert "class 0 never occurs" in str(warning.message)
    recwarn.clear()
    read_data(write_masks(0, 1), class_names=("a", "b", "c"))
    (warning,) = recwarn
    assert "Every class should occur in some mask" in str(warning.message)
    recwarn.clear()
    read_data(write_masks(0, 1, 255))
    assert not recwarn


def test_the_recorded_command_can_be_typed(monkeypatch):
    main_module = types.SimpleNamespace(__spec__=types.SimpleNamespace(name="keras_fcn.__main__"))
    monkeypatch.setitem(sys.modules, "__main__", main_module)
    monkeypatch.setattr(sys, "argv", ["/usr/lib/keras_fcn/__main__.py", "train", "--data", "a b"])
    assert training.run._command() == "python -m keras_fcn train --data 'a b'"
    monkeypatch.setattr(sys, "argv", ["/usr/bin/keras-fcn", "train", "--data", "a b"])
    assert training.run._command() == "keras-fcn train --data 'a b'"


def test_class_weights_are_one_on_average():
    pixels = np.array([90, 9, 1])
    weights = np.array(training.labels.log_class_weights(pixels))
    assert (weights * pixels).sum() / 100 == pytest.approx(1)
    expected = np.log(1.1 + 0.9) / np.log(1.1 + 0.01)
    assert weights[2] / weights[0] == pytest.approx(expected)


def open_train(recipe, name="train"):
    return training.labels.open_task(recipe, name)


def test_training_set_is_full_batches_of_crops(data):
    recipe = Recipe(str(data), batch_size=4, crop_size=32, augment=Augmentation(elastic=2))
    for images, labels in training.labels.training_set(recipe, open_train(recipe)).take(3):
        assert images.shape == (4, 32, 32, 3)
        assert labels.shape == (4, 32, 32)
        assert set(np.unique(labels)) <= {0, 1, VOID}


def test_each_step_has_its_crops_wherever_a_run_begins(data):
    recipe = Recipe(str(data), batch_size=2, crop_size=12, augment=Augmentation(rotation=90))
    split = open_train(recipe)
    keras.utils.set_random_seed(0)
    whole = list(training.labels.training_set(recipe, split).take(9).as_numpy_iterator())
    keras.utils.set_random_seed(1)
    rest = training.labels.training_set(recipe, split, step=4).take(5)
    for (images, labels), (again, again_labels) in zip(whole[4:], rest, strict=True):
        assert np.array_equal(images, again)
        assert np.array_equal(labels, again_labels)
    other = dataclasses.replace(recipe, seed=1)
    first = next(iter(training.labels.training_set(other, split)))
    assert not np.array_equal(whole[0][0], first[0])
    # each image once in a pass of 5, by its number of bright pixels
    whole = dataclasses.replace(recipe, crop_size=24, augment=None, batch_size=5)
    for images, _ in training.labels.training_set(whole, split).take(3):
        assert len({image.numpy().tobytes() for image in images}) == 5


def test_borders_are_weighed_as_in_the_paper(data):
    recipe = Recipe(str(data), batch_size=2, crop_size=24, augment=None)
    split = open_train(recipe)
    batches = training.labels.training_set(recipe, split, 0, True, [0.5, 3.0])
    assert batches.options().autotune.enabled is False
    for _, labels, weights in batches.take(2).as_numpy_iterator():
        # one square an image: nothing touches, and far from any border w_c is all
        assert (weights[labels == VOID] == 0).all()
        assert weights[labels == 1].min() == pytest.approx(3.0, abs=0.3)
        assert weights[labels == 0].min() == pytest.approx(0.5, abs=0.01)


def test_validation_batches_are_filled_with_void(data):
    split = open_train(Recipe(str(data)), "val")
    batches = list(training.labels.validation_set(split, devices=2))
    assert [images.shape[0] for images, _ in batches] == [2, 2]
    assert (batches[1][1][1].numpy() == VOID).all()


def test_image_grid_shows_input_truth_and_prediction(tmp_path):
    model = UNet(num_classes=2, filters=(2, 2))
    model.get_layer("score").set_weights([np.zeros((1, 1, 2, 2)), np.array([0.0, 1.0])])
    image = np.full((20, 30, 1), 77, "uint8")
    truth = np.zeros((20, 30), "int32")
    truth[0] = VOID
    rgb = np.broadcast_to(image, (20, 30, 3))
    classes = Classes.default(2)
    classes = dataclasses.replace(classes, ignore=VOID)
    callback = ImageGrid([(rgb, truth), (rgb, truth)], tmp_path / "pictures", classes)
    callback.set_model(model)
    callback.on_epoch_end(0)
    picture = np.asarray(Image.open(tmp_path / "pictures" / "epoch_0001.png"))
    assert picture.shape == (20 + 4 + 20, 30 + 4 + 30 + 4 + 30, 3)
    assert picture[10, 10].tolist() == [77, 77, 77]
    assert picture[0, 40].tolist() == list(training.callbacks.VOID_COLOR)
    assert picture[10, 40].tolist() == [0, 0, 0]
    assert picture[30, 80].tolist() == [128, 0, 0]


def test_pictures_are_scaled_down(tmp_path):
    rows = [[np.zeros((100, 600, 3), "uint8")] * 3]
    assert training.callbacks._draw_grid(rows).size == (3 * 256 + 2 * 4, 43)


def folder_of(path, images, masks):
    for name, arrays in (("images", images), ("masks", masks)):
        (path / name).mkdir(parents=True)
        for number, array in enumerate(arrays):
            Image.fromarray(array).save(path / name / f"{number}.png")
    return str(path)


MACHINE = training.plan.Machine(cores=2, gpus=0, memory=8 * 2**30, bfloat16=True)


def planned(folder, machine=MACHINE, **arguments):
    recipe, _ = training.plan.plan_splits(Recipe(folder, **arguments))
    return training.plan.plan(recipe, training.labels.read_data(recipe), machine)


@pytest.mark.parametrize(
    ("bands", "kind", "saturation"), [(1, "gray", 0), (3, "coloured", 0.5), (5, "5-band", 0)]
)
def test_colours_are_varied_of_rgb_alone(bands, kind, saturation, rng, tmp_path):
    for k in range(5):
        for folder in ("images", "masks"):
            (tmp_path / folder).mkdir(exist_ok=True)
        np.save(tmp_path / f"images/{k}.npy", rng.integers(0, 256, (32, 40, bands), "uint8"))
        np.save(tmp_path / f"masks/{k}.npy", rng.integers(0, 2, (32, 40), "uint8"))
    recipe, reasons = planned(tmp_path)
    assert (recipe.augment.saturation, recipe.augment.hue > 0) == (saturation, saturation > 0)
    assert reasons["augment"].startswith(f"{kind} images")


def test_one_coloured_image_of_many_is_seen(rng, tmp_path):
    images = [np.repeat(rng.integers(0, 256, (32, 32, 1), "uint8"), 3, axis=2) for _ in range(40)]
    images[17] = rng.integers(0, 256, (32, 32, 3), "uint8")
    data = folder_of(tmp_path, images, list(rng.integers(0, 2, (40, 32, 32), "uint8")))
    recipe, reasons = planned(data, split="all[:38]", validation="all[38:]")
    assert reasons["augment"].startswith("coloured images")
    assert recipe.augment.saturation > 0


def test_a_thin_class_between_objects_is_learned_by_border_weights(tmp_path):
    numbers = np.zeros((64, 64), "uint16")
    numbers[8:40, 8:24], numbers[8:40, 24:40] = 1, 2
    data = folder_of(tmp_path, [np.zeros((64, 64, 3), "uint8")] * 5, [numbers] * 5)
    recipe, reasons = planned(data, instances="border")
    assert (recipe.border_weights, recipe.class_weights, recipe.loss) == (
        True,
        "none",
        "crossentropy",
    )
    assert "a class border, 3.1% of the pixels" in reasons["border_weights"]
    names = ("background", "cell", "edge")
    assert planned(data, instances="border", class_names=names)[0].border_weights
    recipe, _ = planned(data, instances="border", border_weights=True)
    assert recipe.class_weights == "none"


@pytest.mark.parametrize(
    "said",
    [
        {"instances": "two"},
        {"instances": "border", "border_weights": False},
        {"instances": "border", "class_weights": "log"},  # as a search has found them
        {"instances": "border", "loss": "dice"},
        {"instances": "two", "class_names": ("background", "border")},  # of no third class
    ],
)
def test_border_weights_go_with_a_border_of_which_nothing_is_said(said, tmp_path):
    numbers = np.zeros((64, 64), "uint16")
    numbers[8:40, 8:9], numbers[8:40, 24:25] = 1, 2
    numbers[50:58, 8:16], numbers[50:58, 16:24] = 3, 4
    data = folder_of(tmp_path, [np.zeros((64, 64, 3), "uint8")] * 5, [numbers] * 5)
    recipe, reasons = planned(data, **said)
    assert not recipe.border_weights
    assert recipe.class_weights == "log"
    assert "border" not in " ".join(reasons.values())


def test_plan_follows_the_data(tmp_path):
    """A street has its sky above; cells lie any way. Small images have small crops."""
    rng = np.random.default_rng(0)
    street = [rng.integers(0, 256, (300, 400, 3)).astype("uint8") for _ in range(5)]
    above = np.repeat([[0], [1]], 150, axis=0) * np.ones((1, 400))
    cells = [(rng.random((70, 90)) > 0.5).astype("uint8") for _ in range(10)]
    street = folder_of(tmp_path / "street", street, [above.astype("uint8")] * 5)
    cells = folder_of(tmp_path / "cells", [200 * cell for cell in cells], cells)

    recipe, reasons = planned(street)
    assert (recipe.split, recipe.validation) == ("all[:80%]", "all[80%:]")
    assert (recipe.crop_size, recipe.batch_size, len(recipe.filters)) == (256, 4, 5)
    assert recipe.augment.flip == "horizontal"
    assert recipe.augment.hue > 0
    assert (recipe.optimizer, recipe.learning_rate, recipe.batch_norm) == ("muon", 3e-3, True)
    assert (recipe.loss, recipe.class_weights) == (None, "none")  # half of the pixels each
    assert recipe.epochs * recipe.steps == training.plan.STEPS
    assert recipe.mixed_precision
    recipe, _ = planned(cells)
    assert (recipe.crop_size, recipe.batch_size, len(recipe.filters)) == (64, 16, 4)
    assert (recipe.augment.flip, recipe.augment.hue) == ("dihedral", 0)

    assert len(training.plan.describe_plan(recipe, reasons)) == len(reasons)
    given = {"augment": None, "epochs": 3, "filters": (4, 8), "optimizer": "sgd", "dropout": 0.5}
    recipe, reasons = planned(cells, **given)
    assert {name: getattr(recipe, name) for name in given} == given
    assert not given.keys() & reasons.keys()
    assert (recipe.steps, recipe.momentum, recipe.learning_rate) == (1, 0.99, 1e-3)
    small = dataclasses.replace(MACHINE, memory=2**29, bfloat16=False)
    recipe, _ = planned(street, small)
    assert (recipe.batch_size, recipe.mixed_precision) == (1, False)


def test_plan_spares_vgg16(tmp_path, rng, narrow_vgg16):
    """Frozen it costs a third of the time; trained along, Muon's usual rate harms its kernels."""
    images = list(rng.integers(0, 256, (5, 64, 64, 3), "uint8"))
    data = folder_of(tmp_path, images, list(rng.integers(0, 2, (5, 64, 64), "uint8")))
    unet = {"encoder": "vgg16", "weights": "imagenet"}
    recipe, reasons = planned(data, epochs=7, **unet)
    frozen = 7 if keras.backend.backend() != "jax" else None
    assert (recipe.freeze_encoder, "freeze_encoder" in reasons) == (frozen, frozen is not None)
    assert (recipe.learning_rate, recipe.encoder_share) == (2e-3, None if frozen else 0.1)
    recipe, _ = planned(data, freeze_encoder=2, **unet)
    assert (recipe.freeze_encoder, recipe.learning_rate, recipe.encoder_share) == (2, 2e-3, 0.1)
    UNet(encoder="vgg16", filters=(2, 2, 2, 2, 2)).save(tmp_path / "mine.keras")
    UNet(filters=(2, 4)).save(tmp_path / "other.keras")
    FCN8s(fc_filters=2).save(tmp_path / "fcn.keras")
    for name, rate, share in (
        ("unet_vgg16_camvid", 1e-3, 0.1),
        ("unet_camvid", 1e-3, None),
        ("fcn8s_camvid", 2e-4, 0.5),
        (str(tmp_path / "mine.keras"), 1e-3, 0.1),
        (str(tmp_path / "other.keras"), 1e-3, None),
        (str(tmp_path / "fcn.keras"), 2e-4, 0.5),
    ):
        recipe, _ = planned(data, weights=name)
        assert (recipe.learning_rate, recipe.encoder_share) == (rate, share)
        assert (recipe.loss, recipe.class_weights) == ("dice", "none")
        assert planned(data, weights=name, optimizer="adamw")[0].encoder_share is None
    for start, rate in (
        ({"model": "fcn32s", "weights": "imagenet"}, 2e-4),
        ({"model": "fcn16s", "weights": "fcn32s.keras"}, 1e-4),
        ({"model": "fcn16s", "weights": str(tmp_path / "fcn.keras")}, 1e-4),
        ({"encoder": "vgg16"}, 3e-3),
    ):
        recipe, _ = planned(data, **start)
        assert (recipe.freeze_encoder, recipe.learning_rate) == (None, rate)
    fitted, _ = training.plan.fit_into(Recipe("data", minutes=10, **unet), 0.5, 10)
    assert fitted.freeze_encoder == (fitted.epochs if frozen else None)


def test_minutes_become_epochs():
    recipe = Recipe("data", minutes=10)
    fitted, reasons = training.plan.fit_into(recipe, step=0.5, validation=10)
    assert (fitted.steps, fitted.epochs, fitted.minutes) == (208, 5, None)  # 5 * 114 s
    assert reasons["epochs"] == "10 minutes for 1040 steps"
    slow, _ = training.plan.fit_into(recipe, step=0.5, validation=100)
    assert (slow.steps, slow.epochs) == (940, 1)
    short, _ = training.plan.fit_into(Recipe("data", minutes=1), step=1, validation=7)
    assert (short.steps, short.epochs) == (50, 1)
    with pytest.raises(ValueError, match="goes without `epochs`"):
        Recipe("data", minutes=1, epochs=2)


def test_a_validation_takes_the_time_of_the_images_that_it_is_of(tmp_path, monkeypatch):
    """Trained on tiles, validated on whole images."""
    images = [np.zeros((32, 32), "uint8")] * 2 + [np.zeros((64, 96), "uint8")] * 3
    data = folder_of(tmp_path, images, [np.eye(*image.shape, dtype="uint8") for image in images])
    monkeypatch.setattr(fit, "_time", lambda action: 10.0)
    recipe = Recipe(data, split="all[:2]", validation="all[2:]", filters=(2, 2), minutes=1)
    _, reasons, _ = fit.make_plan(recipe)
    assert reasons["steps"] == "a step takes 10.00 s here, and a validation about 30 s"


def test_minutes_are_planned_from_the_time_of_a_step(recipe):
    short = dataclasses.replace(recipe, epochs=None, minutes=0.01)
    planned, reasons, _ = fit.make_plan(short)
    assert (planned.steps, planned.minutes) == (recipe.steps, None)
    assert re.match(r"0.01 minutes for \d+ steps", reasons["epochs"])


def test_plan_is_printed(data, capsys):
    assert main(["plan", "--data", str(data), "--epochs", "3", "--classes", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(re.match(r" +crop size +32 +images of 24 pixels", line) for line in lines)
    assert not any("epochs" in line for line in lines)


def test_a_plan_reads_the_network_of_a_file_and_not_its_weights(data, tmp_path, monkeypatch):
    UNet(num_classes=2, filters=(4, 8)).save(tmp_path / "mine.keras")
    monkeypatch.setattr(keras.saving, "load_model", None)
    recipe, reasons = planned(str(data), weights=str(tmp_path / "mine.keras"))
    assert (recipe.learning_rate, recipe.encoder_share) == (1e-3, None)
    assert reasons["learning_rate"] == "muon from the weights 'mine.keras'"


def test_recipes_with_other_fields_have_other_defaults():
    recipe = Recipe("data", optimizer="sgd")
    assert dataclasses.replace(recipe, optimizer="adamw").momentum is None
    assert dataclasses.replace(recipe, weights="unet_camvid").network is None
    assert recipe.network == "unet"


def test_numbers_of_numpy_are_numbers():
    numbers = {"crop_size": np.int64(8), "learning_rate": np.float32(0.5), "ignore": np.uint8(3)}
    recipe = Recipe("data", filters=np.array([4, 8]), **numbers)
    assert (
        recipe.parameters
        == Recipe("data", filters=(4, 8), crop_size=8, learning_rate=0.5, ignore=3).parameters
    )


def test_a_name_stays_a_name_beside_a_folder(tmp_path, monkeypatch):
    (tmp_path / "camvid").mkdir()
    monkeypatch.chdir(tmp_path)
    assert Recipe("camvid").parameters["data"] == "camvid"
    for folder in ("./camvid", Path("camvid")):
        assert Recipe(folder).parameters["data"] == str(tmp_path / "camvid")


def test_a_file_brings_its_network(run, recipe):
    file = str(run[0] / "model.keras")
    recipe = dataclasses.replace(recipe, weights=file, filters=None, batch_norm=None, dropout=0.1)
    model = training.network.build(recipe, num_classes=2, channels=3)
    source = keras.saving.load_model(file)
    pairs = zip(model.get_weights(), source.get_weights(), strict=True)
    assert all(np.array_equal(one, other) for one, other in pairs)
    assert model.get_layer("drop1").rate == 0.1
    assert model.layers[-1].activation is keras.activations.softmax

    with pytest.warns(UserWarning, match="start fresh.*score"):
        other = training.network.build(recipe, num_classes=5, channels=3)
    assert other.output_shape[-1] == 5
    first = other.get_layer("conv1_1").kernel.numpy()
    assert np.array_equal(first, source.get_layer("conv1_1").kernel.numpy())
    with pytest.warns(UserWarning, match="start fresh"):
        one = training.network.build(recipe, num_classes=1, channels=3)
    assert one.layers[-1].activation is keras.activations.sigmoid

    keras.config.set_dtype_policy("mixed_bfloat16")
    mixed = training.network.build(recipe, num_classes=2, channels=3)
    assert mixed.get_layer("conv1_1").compute_dtype == "bfloat16"
    assert mixed.get_layer("predictions").compute_dtype == "float32"

    same = dataclasses.replace(recipe, filters=(4, 8))
    training.network.build(same, num_classes=2, channels=3)
    contrary = dataclasses.replace(recipe, filters=(4, 16))
    with pytest.raises(ValueError, match=r"filters=\(4, 16\).*has filters=\(4, 8\)"):
        training.network.build(contrary, num_classes=2, channels=3)
    with pytest.raises(ValueError, match="images of 3 channels"):
        training.network.build(recipe, num_classes=2, channels=1)


def test_a_file_of_before_learns_by_the_package_s_batch_normalization(rng):
    def plain(layer):
        kind = type(layer)
        kind = keras.layers.BatchNormalization if kind is BatchNormalization else kind
        return kind.from_config(layer.get_config())

    model = UNet((None, None, 1), filters=(2, 4), batch_norm=True)
    before = keras.models.clone_model(model, clone_function=plain)
    before.set_weights([rng.uniform(0.1, 1, weight.shape) for weight in before.weights])
    rebuilt = training.network.rebuild(before, 2)
    assert [type(layer) for layer in rebuilt.layers] == [type(layer) for layer in model.layers]
    pairs = zip(rebuilt.get_weights(), before.get_weights(), strict=True)
    assert all(np.array_equal(one, other) for one, other in pairs)


@pytest.mark.parametrize(
    "options", [{"white": 255}, {"values": {0: 0, 255: 1}}, {"mask_suffix": "-mask"}]
)
def test_options_of_files_are_refused_with_a_data_set(options):
    with pytest.raises(ValueError, match=f"Received: `{next(iter(options))}` with the data set"):
        training.labels.open_task(Recipe("shapes/cells", **options), "train")


def test_one_sigmoid_is_trained_on_as_one(tmp_path):
    source = keras_fcn.UNet(num_classes=1, filters=(2, 4), classifier_activation="sigmoid")
    source.save(tmp_path / "one.keras")
    recipe = Recipe("data", weights=str(tmp_path / "one.keras"))
    for count in (1, 2):  # as it is asked for, and as the data has it
        model = training.network.build(recipe, num_classes=count, channels=3)
        pairs = zip(model.get_weights(), source.get_weights(), strict=True)
        assert all(np.array_equal(one, other) for one, other in pairs)
        assert model.layers[-1].activation is keras.activations.sigmoid
    for given, count in ((2, 2), (None, 3)):
        recipe = dataclasses.replace(recipe, num_classes=given)
        with pytest.warns(UserWarning, match="start fresh.*score"):
            model = training.network.build(recipe, num_classes=count, channels=3)
        assert model.output_shape[-1] == count


def test_what_is_no_weight_comes_along_to_training(tmp_path, rng):
    images = rng.normal(70, 9, (4, 8, 8, 3)).astype("float32")
    adapted = keras.layers.Normalization()
    adapted.adapt(images)
    ends = [keras.layers.Conv2D(2, 1, name="score"), keras.layers.Softmax(name="end")]
    deeper = keras.layers.Normalization(axis=None)
    deeper.adapt(images)
    inner = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(3, 1), deeper])
    source = keras.Sequential([keras.Input((None, None, 3)), adapted, inner, *ends])
    source.save(tmp_path / "own.keras")
    recipe = Recipe("data", weights=str(tmp_path / "own.keras"))
    model = training.network.build(recipe, num_classes=2, channels=3)
    np.testing.assert_allclose(model(images), source(images), rtol=1e-6)
    with pytest.warns(UserWarning, match="start fresh.*score"):
        fresh = training.network.build(recipe, num_classes=3, channels=3)
    np.testing.assert_allclose(fresh.layers[0](images), adapted(images), rtol=1e-6)


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize`")
def test_quantized_weights_are_not_trained_on(tmp_path):
    layers = [keras.layers.Dense(2, name="score"), keras.layers.Softmax()]
    model = keras.Sequential([keras.Input((None, None, 3)), *layers])
    model.save(tmp_path / "before.keras")
    model.quantize("int8")
    model.save(tmp_path / "after.keras")
    with pytest.raises(ValueError, match=r"of which score hold others.*from before that"):
        training.network.build(Recipe("data", weights=str(tmp_path / "after.keras")), 2, 3)
    training.network.build(Recipe("data", weights=str(tmp_path / "before.keras")), 2, 3)


def test_a_finished_run_says_how_to_go_on(run, recipe):
    with pytest.raises(FileExistsError) as error:
        train(dataclasses.replace(recipe, epochs=9), run[0])
    assert f"`weights='{run[0] / 'model.keras'}'`" in str(error.value)


def test_encoder_is_frozen_for_the_first_epochs(long_recipe, tmp_path, monkeypatch):
    recipe = dataclasses.replace(long_recipe, freeze_encoder=1)
    kernels = []
    on_epoch_end = training.callbacks.Keeper.on_epoch_end

    def look(keeper, *args):
        kernels.append([keeper.model.get_layer(n).get_weights()[0] for n in LAYERS])
        on_epoch_end(keeper, *args)

    monkeypatch.setattr(training.callbacks.Keeper, "on_epoch_end", look)
    train(recipe, tmp_path / "whole")
    start = training.network.build(*start_of(recipe))
    start = [start.get_layer(name).get_weights()[0] for name in LAYERS]
    same = [[np.array_equal(*pair) for pair in zip(start, epoch, strict=True)] for epoch in kernels]
    assert same[0] == [True, True, False]
    assert same[1] == [False, False, False]
    model = keras.saving.load_model(tmp_path / "whole" / "model.keras")
    assert all(layer.trainable for layer in model.layers)

    with monkeypatch.context() as patch, pytest.raises(Kill):
        kill_at(patch, training.callbacks, "save_state", 2)
        train(recipe, tmp_path / "cut")
    train(recipe, tmp_path / "cut")
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


def test_the_best_epoch_of_a_frozen_network_stays_what_it_is(long_recipe, tmp_path, monkeypatch):
    """It is older than last.keras, which an interruption leaves in the midst of an epoch."""
    recipe = dataclasses.replace(long_recipe, freeze_encoder=3)
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        signal_at(patch, "on_train_batch_end", 5, signal.SIGTERM)
        train(recipe, tmp_path)
    best = (tmp_path / "best.keras").read_bytes()
    with monkeypatch.context() as patch, pytest.raises(Kill):
        kill_at(patch, training.fit, "_batches", 1)
        train(recipe, tmp_path)
    assert (tmp_path / "best.keras").read_bytes() == best


LAYERS = ("conv1_1", "conv1_1_bn", "up1_conv1")


def start_of(recipe):
    """Set the seed as a run does, and return the arguments of `build`."""
    keras.utils.set_random_seed(recipe.seed)
    return recipe, 2, 3


def test_one_sigmoid_border_weights_and_names(recipe, data, tmp_path, capsys):
    """From training to the file and the log, where the classes are known by their names."""
    recipe = dataclasses.replace(
        recipe, num_classes=1, border_weights=True, class_names=("noise", "square"), epochs=1,
        class_colors=((0, 0, 0), (9, 8, 7)),
    )  # fmt: skip
    train(recipe, tmp_path, per_class=True)
    model = keras.saving.load_model(tmp_path / "model.keras")
    assert model.output_shape[-1] == 1
    assert model.layers[-1].classes.names == ("noise", "square")
    assert model.layers[-1].classes.colors[1] == (9, 8, 7)
    assert model.layers[-1].classes.ignore == VOID
    row = read_log(tmp_path)[0]
    ious = [float(row[f"val_iou_{name}"]) for name in ("noise", "square")]
    assert np.nanmean(ious) == pytest.approx(float(row["val_mean_iou"]), abs=1e-6)
    assert "val_iou_square" in capsys.readouterr().out
    assert read_record(tmp_path)["classes"] == ["noise", "square"]


def test_progress_is_told_in_a_file(capsys):
    progress = training.callbacks.Progress(epochs=5, seconds=0)
    progress.set_params({"steps": 8})
    progress.on_epoch_begin(1)
    progress.on_train_batch_end(3, {"loss": 0.25})
    assert capsys.readouterr().out == "epoch 2/5, step 4/8: loss 0.2500\n"


def test_pictured_images_show_the_rarest_classes():
    class Counts:
        def by_image(self, num_classes):
            pixels = [[9, 0, 0], [9, 1, 0], [9, 5, 0], [9, 0, 2], [9, 0, 0]]
            return np.array(pixels)[:, None]

    assert training.labels._rarest(Counts(), 3) == [0, 2, 3]


@pytest.mark.parametrize(
    "arguments",
    [
        {"filters": (4, 8, 16), "batch_norm": True},
        {"filters": (4, 8, 16, 24, 40), "encoder": "vgg16"},
        {"filters": (4, 8), "upsampling": "bilinear"},
    ],
)
def test_what_describes_a_network_makes_it_again(arguments):
    model = UNet(num_classes=3, **arguments)
    described = training.network.describe(model)
    assert described.pop("model") == "unet"
    again = UNet(num_classes=3, **described)
    assert [w.shape for w in again.weights] == [w.shape for w in model.weights]


def test_options_stand_for_a_recipe():
    options = [
        "train", "--output", "run", "--data", "folder", "--classes", "3", "--filters", "4", "8",
        "--values", "0=0", "255=1", "--colors", "1,2,3=0", "--augment", "scale=0.5", "--weights",
        "none", "--no-batch-norm", "--class-weights", "none", "--class-names", "a", "b", "c",
    ]  # fmt: skip
    recipe = make_recipe(_parser().parse_args(options))
    assert recipe == Recipe(
        "folder", num_classes=3, filters=(4, 8), values={0: 0, 255: 1}, colors={(1, 2, 3): 0},
        augment=Augmentation(None, scale=0.5), batch_norm=False, class_weights="none",
        class_names=("a", "b", "c"),
    )  # fmt: skip


def test_what_was_said_of_a_folder_is_not_said_of_a_data_set(data, tmp_path):
    """A search's void label would be a class of the data set, and its names those of others."""
    folder = Recipe(
        str(data), split="train", validation="val", ignore=9, class_names=("a", "b"),
        mask_suffix="_x", num_classes=2, crop_size=16,
    )  # fmt: skip
    (tmp_path / "tuning.json").write_text(json.dumps({"recipe": folder.parameters}))
    options = ["train", "--from-tuning", str(tmp_path), "--output", "run"]
    assert make_recipe(_parser().parse_args(options)) == folder
    other = make_recipe(_parser().parse_args([*options, "--data", "shapes/cells"]))
    assert other == Recipe("shapes/cells", crop_size=16)
    assert make_recipe(_parser().parse_args([*options, "--data", str(data)])) == folder


def test_every_field_has_its_option_and_help():
    names = {*DATA, *NETWORK, *COURSE}
    assert names == {field.name for field in dataclasses.fields(Recipe)}
    assert all(help_of(Recipe)[name] for name in names)


def test_every_factory_exists():
    assert all(callable(getattr(keras_fcn, name)) for name in training.FACTORIES.values())
