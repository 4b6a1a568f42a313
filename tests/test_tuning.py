import csv
import json
import math
import os
import socket
import sys
import time

import keras
import keras_tuner
import numpy as np
import pytest
import tensorflow as tf
from conftest import narrow_search
from forked import Forked
from PIL import Image
from test_training import START, draw

import keras_fcn
from keras_fcn import HyperFCN, HyperUNet
from keras_fcn.commands import main
from keras_fcn.training import Recipe, tuned_arguments
from keras_fcn.tuning import Search, tune
from keras_fcn.tuning.hypermodels import _count_parameters
from keras_fcn.tuning.private import TUNERS, restore_state, save_state
from keras_fcn.tuning.report import describe_trial
from keras_fcn.tuning.search import OBJECTIVE

# one process for what they share
pytestmark = pytest.mark.xdist_group("tuning")
PIXELS = [3400, 100]


def space(hypermodel):
    """The search space as {name: everything that KerasTuner knows of it}."""
    hp = keras_tuner.HyperParameters()
    hypermodel.recipe(hp)
    described = {}
    for entry in hp.space:
        config = {key: value for key, value in entry.get_config().items() if value is not None}
        config["conditions"] = {parent.name: parent.values for parent in entry.conditions}
        described[config.pop("name")] = (type(entry).__name__, config)
    return described


def choice(values, default=None, **conditions):
    return "Choice", {
        "values": values,
        "default": values[0] if default is None else default,
        "ordered": not isinstance(values[0], str),
        "conditions": conditions,
    }


def boolean(default=False, **conditions):
    return "Boolean", {"default": default, "conditions": conditions}


SOLVER = {
    "optimizer": choice(["adamw", "muon", "sgd"], default="muon"),
    "learning_rate": (
        "Float",
        {
            "min_value": 1e-4,
            "max_value": 1e-2,
            "sampling": "log",
            "default": 3e-3,
            "conditions": {},
        },
    ),
    "momentum": choice([0.9, 0.99], optimizer=["sgd"]),
    "class_weights": choice(["log", "none"]),
}


def test_whole_search_space():
    assert {
        "unet": space(HyperUNet(pixels=PIXELS)),
        "fcn": space(HyperFCN(pixels=PIXELS)),
        "without pixels": list(space(HyperUNet())),
    } == {
        "unet": {
            "width": choice([16, 32, 64]),
            "depth": (
                "Int",
                {
                    "min_value": 3,
                    "max_value": 5,
                    "step": 1,
                    "sampling": "linear",
                    "conditions": {},
                },
            ),
            "batch_norm": boolean(default=True),
            "dropout": choice([0.0, 0.25, 0.5]),
            "upsampling": choice(["transpose", "bilinear"]),
            **SOLVER,
        },
        "fcn": {
            "stride": choice([32, 16, 8]),
            "at_once": boolean(stride=[8]),
            "fc_filters": choice([256, 1024, 4096]),
            **SOLVER,
        },
        "without pixels": [
            "width", "depth", "batch_norm", "dropout", "upsampling", "optimizer", "learning_rate",
            "momentum",
        ],
    }  # fmt: skip


def test_a_search_begins_with_the_class_weights_that_are_planned():
    _, weights = space(HyperUNet(pixels=[3000, 500]))["class_weights"]
    assert (weights["values"], weights["default"]) == (["log", "none"], "none")


def fixed(**values):
    hp = keras_tuner.HyperParameters()
    for name, value in values.items():
        hp.Fixed(name, value)
    return hp


@pytest.mark.parametrize(
    ("hypermodel", "values", "recipe"),
    [
        (HyperUNet, {}, {"model": "unet", "filters": (16, 32, 64), "momentum": None}),
        (HyperUNet, {"width": 8, "depth": 4}, {"filters": (8, 16, 32, 64)}),
        (HyperUNet, {"optimizer": "sgd"}, {"optimizer": "sgd", "momentum": 0.9}),
        (HyperUNet, {"optimizer": "sgd", "momentum": 0.5}, {"momentum": 0.5}),
        (HyperUNet, {"momentum": 0.5}, {"optimizer": "muon", "momentum": None}),
        (HyperUNet, {"dropout": 0.1, "learning_rate": 0.5}, {"dropout": 0.1, "learning_rate": 0.5}),
        (HyperUNet, {"upsampling": "bilinear", "batch_norm": True}, {"upsampling": "bilinear"}),
        (HyperFCN, {}, {"model": "fcn32s", "fc_filters": 256, "weights": None}),
        (HyperFCN, {"stride": 16, "at_once": True}, {"model": "fcn16s"}),
        (HyperFCN, {"stride": 8, "fc_filters": 8}, {"model": "fcn8s", "fc_filters": 8}),
        (HyperFCN, {"stride": 8, "at_once": True}, {"model": "fcn8s_at_once"}),
    ],
)
def test_values_and_the_recipe_they_stand_for(hypermodel, values, recipe):
    made = hypermodel(pixels=PIXELS).recipe(fixed(**values))
    assert recipe.items() <= made.items()
    assert Recipe("data", **made).class_weights == "log"


def test_hyperparameters_take_the_place_of_the_hypermodels(tmp_path):
    """A conditional one too, with or without its condition, and without a double besides."""
    for number, condition in enumerate([{}, {"parent_name": "optimizer", "parent_values": "sgd"}]):
        hp = keras_tuner.HyperParameters()
        hp.Choice("optimizer", ["sgd", "adamw"])
        hp.Choice("momentum", [0.1, 0.2], **condition)
        hp.Fixed("width", 4)
        tuner = keras_tuner.RandomSearch(
            HyperUNet(pixels=PIXELS),
            OBJECTIVE,
            hyperparameters=hp,
            directory=tmp_path / str(number),
        )
        names = [entry.name for entry in tuner.oracle.get_space().space]
        assert sorted(names) == sorted(space(HyperUNet(pixels=PIXELS)))
        values = tuner.oracle.create_trial("tuner").hyperparameters.values
        assert values["width"] == 4
        assert values.get("momentum", 0.1) in (0.1, 0.2)

    tuner = keras_tuner.RandomSearch(
        HyperUNet(), OBJECTIVE, hyperparameters=fixed(width=8), tune_new_entries=False,
        directory=tmp_path / "fixed",
    )  # fmt: skip
    trial = tuner.oracle.create_trial("tuner")
    assert tuner.hypermodel.recipe(trial.hyperparameters)["filters"] == (8, 16, 32)


def test_models_are_compiled_as_the_values_say():
    hypermodel = HyperUNet(num_classes=2, ignore_class=255, pixels=PIXELS)
    small = {"width": 2, "depth": 2}
    model = hypermodel.build(fixed(optimizer="sgd", momentum=0.5, learning_rate=0.25, **small))
    assert isinstance(model.optimizer, keras.optimizers.SGD)
    assert (model.optimizer.momentum, float(model.optimizer.learning_rate)) == (0.5, 0.25)
    assert model.loss.class_weights[1] > model.loss.class_weights[0]
    assert model.loss.ignore_class == 255
    assert not model.jit_compile
    model = hypermodel.build(fixed(class_weights="none", **small))
    assert model.loss.class_weights is None
    assert model.optimizer.name == "muon"
    sigmoid = HyperUNet(num_classes=1).build(fixed(**small))
    assert sigmoid.layers[-1].activation is keras.activations.sigmoid


def test_parameters_are_counted_before_they_take_memory(narrow_vgg16):
    for factory, arguments in [
        (keras_fcn.UNet, {"filters": (4, 8, 16), "batch_norm": True, "upsampling": "bilinear"}),
        (keras_fcn.FCN8sAtOnce, {"fc_filters": 8, "num_classes": 3}),
    ]:
        assert _count_parameters(factory, arguments) == factory(**arguments).count_params()
    model = HyperFCN(num_classes=3, max_parameters=100_000).build(fixed(stride=8, fc_filters=8))
    assert model.name == "fcn8s"
    huge = fixed(width=2**14)  # 10^11 parameters
    with pytest.raises(keras_tuner.errors.FailedTrialError, match=r"at most 1,000.*one with 1"):
        HyperUNet(max_parameters=1000).build(huge)


@pytest.fixture(scope="module")
def pairs():
    """tf.data of squares, batches of 2 images (16, 16, 3) and label maps, 255 void."""
    drawn = [draw(number, size=16) for number in range(4)]
    images, labels = (np.stack(arrays) for arrays in zip(*drawn, strict=True))
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(2)


def tiny(**values):
    """Values that leave a quick network, and little besides to search."""
    return fixed(width=2, depth=2, batch_norm=False, dropout=0.0, **values)


@pytest.mark.usefixtures("eagerly")
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")  # KerasTuner's load
@pytest.mark.parametrize(
    ("tuner", "options", "trials"),
    [
        (keras_tuner.RandomSearch, {"max_trials": 2}, 2),
        (keras_tuner.Hyperband, {"max_epochs": 3}, 4),
        (keras_tuner.BayesianOptimization, {"max_trials": 3, "num_initial_points": 2}, 3),
        (keras_tuner.GridSearch, {"max_trials": 2}, 2),
    ],
)
def test_tuners_of_keras_tuner(tuner, options, trials, pairs, tmp_path):
    tuner = tuner(
        HyperUNet(ignore_class=255, pixels=PIXELS), OBJECTIVE, hyperparameters=tiny(), seed=1,
        directory=tmp_path, **options,
    )  # fmt: skip
    tuner.oracle.max_trials = trials  # of Hyperband, the fourth goes on with the best of three
    tuner.search(pairs, validation_data=pairs, epochs=1, verbose=0)
    ended = list(tuner.oracle.trials.values())
    assert [trial.status for trial in ended] == ["COMPLETED"] * trials
    assert all(0 <= trial.score <= 1 for trial in ended)
    best = tuner.get_best_models()[0].evaluate(pairs, return_dict=True, verbose=0)
    assert best["mean_iou"] == pytest.approx(max(trial.score for trial in ended))


def test_images_of_other_channels_are_refused_before_a_trial_is_trained(pairs, tmp_path):
    gray = pairs.map(lambda images, labels: (images[..., :1], labels))
    tuner = keras_tuner.RandomSearch(
        HyperUNet(ignore_class=255), OBJECTIVE, hyperparameters=tiny(), directory=tmp_path
    )
    with pytest.raises(ValueError, match=r"Pass `input_shape=\(None, None, 1\)` to HyperUNet"):
        tuner.search(gray, validation_data=gray, epochs=1, verbose=0)


@pytest.mark.parametrize("arguments", [{"input_shape": (None, None)}, {"num_classes": 0}])
@pytest.mark.parametrize("kind", [HyperUNet, HyperFCN])
def test_what_no_trial_could_build_is_told_at_once(kind, arguments):
    with pytest.raises(ValueError, match=f"`{next(iter(arguments))}` should be"):
        kind(**arguments)


@pytest.mark.parametrize("name", TUNERS)
def test_a_tuner_proposes_after_an_interruption_what_it_would_have(name, tmp_path):
    """If it fails, KerasTuner keeps its place in other attributes: see `tuning.private`."""

    def make(folder):
        kwargs = {"seed": 3, "directory": folder}
        return TUNERS[name](HyperUNet(pixels=PIXELS), OBJECTIVE, **kwargs)

    def propose(tuner):
        tuner.pre_create_trial()
        trial = tuner.oracle.create_trial("tuner0")
        score = 0.1 * (1 + int(trial.trial_id))
        tuner.oracle.update_trial(trial.trial_id, {"val_mean_iou": score})
        trial.status = "COMPLETED"
        tuner.oracle.end_trial(trial)
        tuner.save()
        return trial.hyperparameters.values

    whole = make(tmp_path / "whole")
    expected = [propose(whole) for _ in range(4)]
    for _ in range(2):
        propose(make(tmp_path / "cut"))  # each time goes on from the files
    tuner = make(tmp_path / "cut")
    found = [trial.hyperparameters.values for _, trial in sorted(tuner.oracle.trials.items())]
    assert [*found, propose(tuner), propose(tuner)] == expected


@pytest.mark.usefixtures("eagerly")
@pytest.mark.slow
def test_too_large_a_network_fails_its_trial_and_not_the_search(pairs, tmp_path):
    hp = keras_tuner.HyperParameters()
    hp.Fixed("depth", 2)
    hp.Choice("width", [2, 64])
    tuner = keras_tuner.GridSearch(
        HyperUNet(ignore_class=255, max_parameters=10_000),
        OBJECTIVE,
        hyperparameters=hp,
        tune_new_entries=False,
        directory=tmp_path,
    )
    tuner.search(pairs, validation_data=pairs, epochs=1, verbose=0)
    small, large = tuner.oracle.trials.values()
    assert (small.status, large.status) == ("COMPLETED", "FAILED")
    assert "should have at most 10,000 parameters" in large.message


PROCESS = """
import json, os, sys, time
from pathlib import Path
import keras_tuner, numpy as np, tensorflow as tf
from keras_fcn import HyperUNet

folder, me = Path(sys.argv[1]), os.environ["KERASTUNER_TUNER_ID"]

def meet(place):
    (folder / f"{place} {me}").touch()
    while len(list(folder.glob(f"{place} *"))) < 2:
        time.sleep(0.05)

class Meeting(HyperUNet):
    def fit(self, hp, model, *args, **kwargs):
        meet("begin")  # so that each worker has a trial
        history = super().fit(hp, model, *args, **kwargs)
        meet("end")
        return history

hp = keras_tuner.HyperParameters()
for name, value in {"width": 2, "depth": 2, "batch_norm": False}.items():
    hp.Fixed(name, value)
tuner = keras_tuner.RandomSearch(
    Meeting(), keras_tuner.Objective("val_mean_iou", "max"), max_trials=2, hyperparameters=hp,
    directory=folder, project_name="search",
)
rng = np.random.default_rng(0)
pairs = rng.integers(0, 256, (2, 8, 8, 3)), rng.integers(0, 2, (2, 8, 8))
pairs = tf.data.Dataset.from_tensor_slices(pairs).batch(2)
tuner.search(pairs, validation_data=pairs, epochs=1, verbose=0)
if me == "chief":
    trials = tuner.oracle.trials.values()
    assert tuner.get_best_models()[0].output_shape[-1] == 2
    (folder / "trials.json").write_text(json.dumps([[t.status, t.score] for t in trials]))
"""


@pytest.mark.slow
def test_chief_and_two_workers_on_loopback(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "KERASTUNER_ORACLE_IP": "127.0.0.1",
        "KERASTUNER_ORACLE_PORT": str(port),
        "no_proxy": "127.0.0.1",
    }
    names = ("chief", "worker0", "worker1")
    processes = [
        Forked(["-c", PROCESS, tmp_path], env={**environment, "KERASTUNER_TUNER_ID": name})
        for name in names
    ]
    try:
        deadline = time.time() + 300
        statuses = [process.wait(max(1, deadline - time.time())) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert statuses == [0, 0, 0], "".join(process.communicate()[1] for process in processes)
    assert len(list(tmp_path.glob("begin worker*"))) == 2
    trials = json.loads((tmp_path / "trials.json").read_text())
    assert [status for status, _ in trials] == ["COMPLETED"] * 2
    assert all(0 <= score <= 1 for _, score in trials)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of squares: 4 images to train on, 2 to validate on."""
    folder = tmp_path_factory.mktemp("data")
    for split, numbers in (("train", range(4)), ("val", range(4, 6))):
        for name in (split, f"{split}annot"):
            (folder / name).mkdir()
        for number in numbers:
            image, labels = draw(number)
            Image.fromarray(image).save(folder / split / f"{number}.png")
            Image.fromarray(labels).save(folder / f"{split}annot" / f"{number}.png")
    return folder


def options(data, output, *more):
    return [
        "--data", str(data), "--output", str(output), "--crop-size", "16", "--batch-size", "2",
        "--epochs", "1", "--steps", "1", *more,
    ]  # fmt: skip


def read_trials(output):
    with (output / "trials.csv").open(newline="") as file:
        return {row["trial"]: row for row in csv.DictReader(file)}


# The command line in a process of its own, in which all is as it is in this one.
NARROW = f"""
import pytest, tensorflow
from conftest import narrow_search
narrow_search(pytest.MonkeyPatch())
tensorflow.config.run_functions_eagerly(True)
{START}
"""


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_search_survives_kill_9_and_the_best_is_trained(data, tmp_path, capsys, monkeypatch):
    """On the command line, from the search to the longer training."""
    narrow_search(monkeypatch)
    output = tmp_path / "search"
    # the grid begins with the smallest network, and KerasTuner's own would not go on
    command = ["tune", *options(data, output, "--trials", "3", "--tuner", "grid")]
    process = Forked(["-c", NARROW, *command])
    while process.poll() is None:
        if (output / "trials.csv").exists() and len(read_trials(output)) >= 2:
            break  # the first trial is done
        time.sleep(0.05)
    process.kill()
    assert process.wait() == -9
    before = read_trials(output)
    assert before["0"]["status"] == "completed"
    assert main(["train", "--from-tuning", str(output), "--output", str(tmp_path / "early")]) == 1
    assert "it goes on: " in capsys.readouterr().err
    assert main([*command, "--seed", "1"]) == 1
    assert "--seed 1 instead of 0" in capsys.readouterr().err

    assert main(command) == 0
    shown = capsys.readouterr().out
    whole = tmp_path / "whole"
    assert main(["tune", *options(data, whole, "--trials", "3", "--tuner", "grid")]) == 0
    assert read_trials(whole) == read_trials(output)
    capsys.readouterr()
    assert {path.name for path in output.iterdir()} == {"best.keras", "trials.csv", "tuning.json"}
    trials = read_trials(output)
    assert trials["0"] == before["0"]
    assert [row["status"] for row in trials.values()] == ["completed"] * 3
    settings = [(row["learning_rate"], row["class_weights"]) for row in trials.values()]
    assert len(set(settings)) == 3
    assert all(f"{float(row['mean_iou']):.3g}" in shown for row in trials.values())
    record = json.loads((output / "tuning.json").read_text())
    best = max(record["trials"], key=lambda trial: trial["mean_iou"])
    assert record["result"]["trial"] == best["trial"]
    assert record["versions"]["keras_tuner"] == keras_tuner.__version__
    assert [entry["config"]["name"] for entry in record["space"]] == list(
        space(HyperUNet(pixels=[]))
    )
    assert main(command) == 1
    assert "no finished run" in capsys.readouterr().err
    folders = ["--images", str(data / "val"), "--masks", str(data / "valannot"), "--json"]
    assert main(["evaluate", "--weights", str(output / "best.keras"), *folders]) == 0
    score = json.loads(capsys.readouterr().out)["mean_iou"]
    assert score == pytest.approx(record["result"]["mean_iou"], abs=1e-6)

    run = tmp_path / "run"
    more = ["--epochs", "1", "--steps", "1", "--learning-rate", "0.5", "--batch-norm"]
    weights = ["--weights", str(output / "best.keras")]
    assert main(["train", "--from-tuning", str(output), "--output", str(run), *more, *weights]) == 0
    parameters = json.loads((run / "training.json").read_text())["parameters"]
    assert parameters["learning_rate"] == 0.5
    expected = {**record["recipe"], "learning_rate": 0.5, "weights": weights[1]}
    assert expected.items() <= parameters.items()
    assert (parameters["crop_size"], parameters["filters"]) == (16, [2, 4, 8])


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_networks_left_out_do_not_count_and_all_failed_is_told_alike(
    data, tmp_path, capsys, monkeypatch
):
    narrow_search(monkeypatch)
    limit = ["--max-parameters", "9000", "--seed", "4"]
    command = ["tune", *options(data, tmp_path / "search", "--trials", "2"), *limit]
    assert main(command) == 0
    trials = read_trials(tmp_path / "search").values()
    assert sorted(row["status"] for row in trials)[:2] == ["completed"] * 2
    assert len(trials) > 2
    capsys.readouterr()

    monkeypatch.setattr("keras_fcn.losses.WeightedCrossentropy.call", lambda *_: 1 / 0)
    output = tmp_path / "failed"
    command = ["tune", *options(data, output, "--trials", "1")]
    messages = []
    for line in (
        command,
        command,
        ["train", "--from-tuning", str(output), "--output", str(tmp_path / "x")],
    ):
        assert main(line) == 1
        messages.append(capsys.readouterr().err.splitlines()[-1])
    assert len(set(messages)) == 1
    assert "choose another output folder" in messages[0]


def test_files_of_a_kill_in_the_middle_are_set_right(tmp_path):
    (tmp_path / "trial_0").mkdir()
    whole = {"oracle.json": '{"ongoing": 0}', "tuner0.json": "{}", "trial_0/trial.json": "{}"}
    for name, text in whole.items():
        (tmp_path / name).write_text(text)
    save_state(tmp_path)
    (tmp_path / "oracle.json").write_text('{"ongo')
    (tmp_path / "trial_1").mkdir()
    (tmp_path / "trial_1" / "trial.json").write_text("{}")
    restore_state(tmp_path)
    for name, text in whole.items():
        assert (tmp_path / name).read_text() == text
    assert not (tmp_path / "trial_1" / "trial.json").exists()

    (tmp_path / "state.json").unlink()
    restore_state(tmp_path)
    assert not tmp_path.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"../../gone.json": "{}"}', r"Received: '\.\./\.\./gone\.json'"),
        ('{"/tmp/gone.json": "{}"}', r"Received: '/tmp/gone\.json'"),
        ('{"trial_0/../../a.json": "{}"}', "should hold the files of the search"),
        ('{"oracle.json": 5}', "should hold the files of the search"),
        ('{"oracle', "should be JSON"),
    ],
)
def test_a_search_of_strangers_writes_nothing_elsewhere(tmp_path, text, message):
    folder = tmp_path / "run" / "search"
    (folder / "trial_0").mkdir(parents=True)
    (folder / "state.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        restore_state(folder)
    assert sorted(path.name for path in tmp_path.rglob("*.json")) == ["state.json"]


def test_trials_are_described():
    hp = fixed(**{"width": 8, "tuner/initial_epoch": 4})  # Hyperband's second round
    trial = keras_tuner.engine.trial.Trial(hp, "07", status="COMPLETED")
    trial.score, trial.best_step = np.float64(0.5), 1
    assert describe_trial(trial) == {
        "trial": "07", "status": "completed", "mean_iou": 0.5, "epoch": 6, "values": {"width": 8},
        "message": None,
    }  # fmt: skip
    message = 'Traceback:\n  File "x"\n    raise: no\nkeras_tuner.FailedTrialError: Too large.'
    trial = keras_tuner.engine.trial.Trial(hp, "08", status="FAILED", message=message)
    described = describe_trial(trial)
    assert (described["mean_iou"], described["epoch"]) == (None, None)
    assert described["message"] == "FailedTrialError: Too large."


def test_recipe_of_a_search_comes_back_from_json(tmp_path):
    search = Search("data", trials=1, values={0: 0, 255: 1}, colors={(1, 2, 3): 0})
    recipe = {**search.parameters, **HyperUNet().recipe(keras_tuner.HyperParameters())}
    for name in ("trials", "tuner", "max_parameters", "epochs", "steps", "seed"):
        del recipe[name]
    (tmp_path / "tuning.json").write_text(json.dumps({"recipe": recipe}))
    found = Recipe(**tuned_arguments(tmp_path))
    assert (found.values, found.colors, found.augment) == (
        search.values, search.colors, search.augment,
    )  # fmt: skip
    assert math.isclose(found.learning_rate, 3e-3)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["tune", "--data", "no/where", "--trials", "1"], "no/where"),
        (["tune", "--data", ".", "--trials", "1", "--tuner", "baysian"], "Did you mean 'bayesian'"),
        (["tune", "--data", ".", "--trials", "1", "--model", "fcn8s"], "Did you mean 'fcn'"),
        (["tune", "--data", ".", "--trials", "0"], "--trials 0"),
        (["tune", "--data", ".", "--trials", "1", "--weights", "imagenet"], "start from scratch"),
        (["tune", "--trials", "1", "--max-parameters", "9", "--data"], "at most 9 parameters"),
        (["train"], "Pass --data"),
        (["train", "--from-tuning", "no/where"], "no/where"),
    ],
)
def test_errors_are_explained(command, message, data, tmp_path, capsys):
    if command[-1] == "--data":
        command = [*command, str(data)]
    assert main([*command, "--output", str(tmp_path / "run")]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_search_within_a_scope_of_the_caller_is_refused(tmp_path):
    import tensorflow as tf

    with (
        tf.distribute.MirroredStrategy().scope(),
        pytest.raises(ValueError, match="Call it outside of the scope"),
    ):
        tune(Search("shapes", trials=1), tmp_path / "search")
    assert not (tmp_path / "search").exists()


def test_chief_and_workers_are_not_of_the_command_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    arguments = ["--data", ".", "--output", str(tmp_path / "run"), "--trials", "1"]
    assert main(["tune", *arguments]) == 1
    assert "in a script of your own" in capsys.readouterr().err


def test_a_missing_keras_tuner_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_tuner", None)
    for name in ("hypermodels", "search", "private", "report"):
        monkeypatch.delitem(sys.modules, f"keras_fcn.tuning.{name}", raising=False)
        monkeypatch.delattr(keras_fcn.tuning, name, raising=False)
    monkeypatch.delattr(keras_fcn, "HyperUNet", raising=False)  # asked for before
    with pytest.raises(ImportError, match=r"pip install 'keras-fcn\[tuner\]'"):
        _ = keras_fcn.HyperUNet
    with pytest.raises(AttributeError, match="HyperNet"):
        _ = keras_fcn.HyperNet
