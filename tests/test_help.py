"""The help of the commands: its examples, its defaults, and what a shell completes."""

import dataclasses
import inspect
import os
import re
import subprocess
import sys

import pytest
from PIL import Image

import keras_fcn
from keras_fcn.commands import COMMANDS, _parser, main
from keras_fcn.commands.fields import help_of
from keras_fcn.inference.formats import KINDS
from keras_fcn.page.limits import Limits
from keras_fcn.training import Recipe
from keras_fcn.tuning.settings import Search

NAMES = [command.__name__.rpartition(".")[2].replace("_", "-") for command in COMMANDS]


def read_help(capsys, *command):
    """Return the help that a command prints."""
    with pytest.raises(SystemExit, match="0"):
        main([*command, "--help"])
    return capsys.readouterr().out


def defaults_of(text):
    """Return {option: its default} of a help, where a default is said."""
    options = re.findall(r"^  (--[\w-]+)(.*(?:\n {4,}.*)*)", text, re.M)
    found = {name: re.search(r"\(default\s+([^\s:)]+)", rest) for name, rest in options}
    return {name: match[1] for name, match in found.items() if match}


@pytest.mark.parametrize("columns", ["30", "80"])
@pytest.mark.parametrize("name", [*NAMES, None])
def test_help_ends_with_an_example_in_one_line(name, columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", columns)
    lines = read_help(capsys, *filter(None, [name])).splitlines()
    assert lines[-2] == "example:"
    assert lines[-1].startswith(f"  keras-fcn {name or 'predict'} ")


@pytest.mark.parametrize("settings", [Recipe, Search])
def test_defaults_of_settings_are_those_of_the_code(settings, capsys):
    command = "train" if settings is Recipe else "tune"
    told = defaults_of(read_help(capsys, command))
    texts = help_of(settings)
    for field in dataclasses.fields(settings):
        if isinstance(field.default, int | str) and not isinstance(field.default, bool):
            if field.default != "planned":
                assert told[f"--{field.name.replace('_', '-')}"] == str(field.default)
                assert f"(default {field.default})" in texts[field.name]
    assert "--seed" in told


def test_options_are_named_as_they_are_typed(capsys):
    text = " ".join(read_help(capsys, "tune").split())
    assert "Networks that --max-parameters leaves out do not count" in text


def test_other_defaults_are_those_of_the_code(capsys):
    train = defaults_of(read_help(capsys, "train"))
    unet, fcn = (inspect.signature(kind).parameters for kind in (keras_fcn.UNet, keras_fcn.FCN8s))
    assert train["--upsampling"] == unet["upsampling"].default
    assert train["--fc-filters"] == str(fcn["fc_filters"].default)
    assert f"about {2 * Image.MAX_IMAGE_PIXELS / 1e6:.0f} million" in help_of(Recipe)["max_pixels"]
    demo = defaults_of(read_help(capsys, "demo"))
    assert demo["--max-pixels"] == str(Limits().pixels)
    assert demo["--max-megabytes"] == str(Limits().megabytes)
    predict = defaults_of(read_help(capsys, "predict"))
    signature = inspect.signature(keras_fcn.predict_image).parameters
    assert predict["--engine"] == signature["engine"].default
    assert predict["--precision"] == signature["precision"].default
    assert predict["--output"] == "predictions"


def options_of_commands():
    """Return [(command, its option or argument)], without `--help`."""
    [commands] = _parser()._subparsers._group_actions
    return [
        (name, action)
        for name, parser in commands.choices.items()
        for action in parser._actions
        if action.dest != "help"
    ]


def test_every_option_has_a_help():
    lacking = [(name, action.dest) for name, action in options_of_commands() if not action.help]
    assert lacking == []
    for name, action in options_of_commands():
        assert action.nargs == 0 or action.metavar or action.choices, (name, action.dest)


def test_an_option_is_shown_alike_in_all_commands():
    """Where it takes the same: a metavar says what to type in its place."""
    others = {  # these take something else than in other commands
        ("check-data", "--data"): "DIR",  # no name
        ("tune", "--weights"): "{imagenet}",
        ("tune", "--model"): "{unet,fcn}",
        ("export", "--output"): "PATH",  # mostly a file
    }
    shown = {}
    for name, action in options_of_commands():
        for option in action.option_strings:
            metavar = action.metavar or (action.choices and f"{{{','.join(action.choices)}}}")
            if (name, option) in others:
                assert metavar == others[name, option]
            else:
                assert shown.setdefault(option, metavar) == metavar, (name, option)


COMPLETED = {
    ("predict evaluate export", "weights"): {"unet_camvid", "fcn8s_camvid"},
    ("predict", "output_format"): set(KINDS),
    ("predict evaluate", "tile_size"): {"auto"},
    ("train plan", "weights"): {"unet_camvid", "imagenet", "none"},
    ("train plan", "model"): {"unet", "fcn8s_at_once"},
    ("train plan", "optimizer"): {"adamw", "muon", "sgd"},
    ("train plan", "class_weights"): {"log", "none"},
    ("train plan", "encoder"): {"vgg16"},
    ("train plan", "upsampling"): {"transpose", "bilinear"},
    ("train plan tune", "augment"): {"flip=dihedral", "scale=", "none"},
    ("train plan tune", "instances"): {"two", "border"},
    ("train plan tune evaluate", "data"): {"camvid", "shapes/cells"},
    ("tune", "weights"): {"imagenet"},
    ("tune", "model"): {"unet", "fcn"},
    ("tune", "tuner"): {"random", "bayesian"},
    ("models", "name"): {"unet_isbi2012"},
}


def test_what_has_a_name_is_completed():
    found = {(name, action.dest): action for name, action in options_of_commands()}
    for (commands, option), expected in COMPLETED.items():
        for command in commands.split():
            completions = set(found[command, option].completer(prefix=""))
            assert expected <= completions, (command, option)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("keras-fcn ex", {"export"}),
        ("keras-fcn export --fo", {"--format"}),
        ("keras-fcn export --format on", {"onnx"}),
        ("keras-fcn predict --weights unet_c", {"unet_camvid"}),
        ("keras-fcn predict --weights mi", {"mine.keras"}),
        ("keras-fcn predict pho", {"photo.jpg"}),
        ("keras-fcn models unet_c", {"unet_camvid"}),
        ("keras-fcn train --weights mi", {"mine.keras", "mine.weights.h5"}),
        ("keras-fcn plan --data shapes/s", {"shapes/street"}),
    ],
)
def test_a_shell_completes(line, expected, tmp_path, pytestconfig):
    for name in ("mine.keras", "mine.weights.h5", "mine.txt", "photo.jpg"):
        (tmp_path / name).touch()
    asked = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(tmp_path / "answer"),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "PYTHONPATH": str(pytestconfig.rootpath),
    }
    code = "import sys; sys.argv = ['keras-fcn']; from keras_fcn.commands import main; main()"
    run = [sys.executable, "-X", "importtime", "-c", code]
    result = subprocess.run(
        run, env=os.environ | asked, cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    answer = (tmp_path / "answer").read_text().split("\n")
    assert {word.strip() for word in answer} == expected
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert not imported & {"keras", "tensorflow"}
