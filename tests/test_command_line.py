"""The command line as a process: how it starts, and how it ends."""

import errno
import math
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import tensorflow as tf
from PIL import Image

from keras_fcn.atomic import replacing, temporary_folder
from keras_fcn.commands import _parser, main, models
from keras_fcn.commands.errors import explain
from keras_fcn.commands.quiet import CHATTER

COMMAND = [sys.executable, "-m", "keras_fcn"]


@pytest.fixture
def environment(pytestconfig):
    """The environment of a shell that has set no log level."""
    rest = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    return rest | {"PYTHONPATH": str(pytestconfig.rootpath)}


@pytest.mark.parametrize("arguments", [["--help"], ["predict", "--help"], ["predict"], ["tain"]])
def test_help_and_errors_of_usage_import_nothing_heavy(arguments, environment):
    run = [sys.executable, "-X", "importtime", "-m", "keras_fcn", *arguments]
    result = subprocess.run(run, capture_output=True, text=True, env=environment)
    assert result.returncode == (0 if "--help" in arguments else 2)
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "argparse" in imported
    assert not imported & {"keras", "tensorflow", "scipy", "skimage", "PIL", "rich", "argcomplete"}


def test_the_list_of_models_imports_no_tensorflow(environment):
    run = [sys.executable, "-X", "importtime", "-m", "keras_fcn", "models"]
    result = subprocess.run(run, capture_output=True, text=True, env=environment)
    assert "unet_camvid" in result.stdout
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert not imported & {"keras", "tensorflow"}


@pytest.mark.slow
def test_an_error_is_one_line_without_chatter(environment):
    run = [*COMMAND, "predict", "missing.png", "--weights", "missing.keras"]
    result = subprocess.run(run, capture_output=True, text=True, env=environment)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("keras-fcn: error: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.slow
def test_interrupted_it_prints_one_line(environment, tmp_path):
    """Ctrl-C while TensorFlow is imported, which takes the first seconds."""
    process = subprocess.Popen(
        [*COMMAND, "predict", "x", "--weights", "unet_camvid"],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1.5)
    process.send_signal(signal.SIGINT)
    assert process.communicate()[1] == "keras-fcn: stopped\n"
    assert process.returncode == 130


def test_a_full_disk_is_told_from_a_full_memory():
    exhausted = tf.errors.ResourceExhaustedError
    disk = explain(exhausted(None, None, "run/events.v2; No space left on device"))
    assert disk.startswith("The disk is full, and the output could not be written. Make room")
    assert explain(OSError(errno.ENOSPC, "full", "a.png")).startswith(
        "The disk is full, and 'a.png'"
    )
    memory = explain(exhausted(None, None, "OOM when allocating tensor"))
    assert memory.startswith("The memory does not suffice. Received: OOM when allocating tensor.")


def test_a_full_disk_of_temporary_files_is_told_with_its_variable(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(OSError) as raised, temporary_folder():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    told = explain(raised.value)
    assert told.startswith(f"The disk is full, and '{tmp_path}' could not be written. Make room")
    assert "set the environment variable TMPDIR" in told
    none = FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")
    assert "set the environment variable TMPDIR" in explain(none)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_full_disk_and_ended_reader(environment):
    run = {"stderr": subprocess.PIPE, "text": True, "env": environment}
    with Path("/dev/full").open("w") as full:
        result = subprocess.run([*COMMAND, "models"], stdout=full, **run)
    assert result.returncode == 1
    assert result.stderr.startswith("keras-fcn: error: The disk is full")
    assert result.stderr.count("\n") == 1
    read, write = os.pipe()
    os.close(read)
    result = subprocess.run([*COMMAND, "models", "unet_camvid"], stdout=write, **run)
    assert (result.returncode, result.stderr) == (141, "")


def told_of(error, monkeypatch, capsys):
    """Return what a command prints that raises an error."""

    def fail(options):
        raise error

    monkeypatch.setattr(models, "run", fail)
    assert main(["models"]) == 1
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError("Unable to allocate 9 GiB"), "Unable to allocate 9 GiB. Predict in tiles"),
        (tf.errors.ResourceExhaustedError(None, None, "OOM\nmore"), "Received: OOM. Predict"),
        (
            tf.errors.InvalidArgumentError(None, None, "Bad shape\n\t [[node]]"),
            "error: Bad shape\n",
        ),
        (
            tf.errors.InvalidArgumentError(
                None, None, "ValueError: Labels should be 0.\nTraceback (most recent call last):\nx"
            ),
            "error: Labels should be 0.\n",
        ),
    ],
)
def test_errors_of_operations_are_one_line(error, message, monkeypatch, capsys):
    output = told_of(error, monkeypatch, capsys)
    assert message in output
    assert output.count("\n") == 1


def test_full_disk_names_the_file(monkeypatch, capsys, tmp_path):
    def fill(options):
        with replacing(tmp_path / "map.png") as beside:
            beside.write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device", str(beside))

    monkeypatch.setattr(models, "run", fill)
    assert main(["models"]) == 1
    assert f"'{tmp_path / 'map.png'}' could not be written. Make room" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(errno.EACCES, "x", "a/b.png"), "'a/b.png' should be open to you."),
        (PermissionError(errno.EACCES, "x", "a/.lock"), "'a' should be a folder in which you may"),
        (PermissionError(errno.EACCES, "x", b"a/.writing-1"), "'a' should be a folder in which"),
        (PermissionError(errno.EPERM, "x", "a"), "`chmod u+rwX` does.\n"),
        (OSError(errno.EROFS, "x", "a/.lock"), "'a' should lie on a disk that can be written to"),
        (OSError(errno.EDQUOT, "x", "a.png"), "The disk is full, and 'a.png'"),
        (OSError(errno.ENOSPC, "x", "a/.writing-1"), "The disk is full, and 'a' could not"),
        (FileExistsError(errno.EEXIST, "x", "a"), "'a' should be a folder, and is a file."),
        (NotADirectoryError(errno.ENOTDIR, "x", "a/b"), "'a/b' should be a folder or lie in one"),
        (IsADirectoryError(errno.EISDIR, "x", "a/b"), "'a/b' should be a file, and is a folder."),
        (FileNotFoundError(errno.ENOENT, "x", "a/b"), "'a/b' should be there, and is not."),
        (OSError(errno.ELOOP, "x", "a"), "'a' should be a link to a file, and leads to itself."),
        (FileExistsError("'a' exists, and is foreign."), "error: 'a' exists, and is foreign.\n"),
    ],
)
def test_a_path_is_told_by_its_name_with_a_way_on(error, message, monkeypatch, capsys):
    output = told_of(error, monkeypatch, capsys)
    assert message in output
    assert "Errno" not in output


@pytest.mark.parametrize(
    ("arguments", "received"),
    [
        (["train", "--data", "", "--output", "x"], "--data ''"),
        (["predict", "", "--weights", "x"], "predict ''"),
        (["predict", "x", "--weights", "x", "--output="], "--output="),
    ],
)
def test_an_empty_argument_is_no_folder(arguments, received, capsys):
    """A variable of the shell that is not set; as a path it were the folder one is in."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert f"should not be empty. Received: {received}. If" in capsys.readouterr().err


def test_a_path_of_the_home_folder_is_found_where_the_shell_left_it(monkeypatch, tmp_path, capsys):
    """In quotes, as a pattern should be, or after `=`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    assert main(["check-data", "--images=~/", "--masks", "~/"]) == 1
    assert "images with masks: 0" in capsys.readouterr().out
    assert main(["predict", "~/none/*.png", "--weights", "~/none.keras"]) == 1
    assert f"'{tmp_path}/none.keras'" in capsys.readouterr().err


def test_faults_of_the_package_are_not_hidden(monkeypatch):
    def fail(options):
        raise KeyError("x")

    monkeypatch.setattr(models, "run", fail)
    with pytest.raises(KeyError):
        main(["models"])


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--values", "255"], "Received: '255'. Write for example 0=0 255=1"),
        (["--values", "a=1"], "Received: 'a=1'"),
        (["--colors", "0,0=1"], "RED,GREEN,BLUE=LABEL"),
        (["--augment", "flip"], "Received: 'flip'. Write for example flip=horizontal"),
        (["--augment", "scale=x"], "Received: 'scale=x'"),
        (["--augment", "zoom"], "flip=horizontal scale=0.25"),
        (["--class-colors", "1,2"], "for example 128,64,128"),
        (["--epochs", "many"], "invalid int value"),
    ],
)
def test_errors_of_usage_name_the_rule(option, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["train", "--data", "d", "--output", "o", *option])
    error = capsys.readouterr().err
    assert message in error
    assert "_" not in error.splitlines()[-1]


@pytest.mark.parametrize(
    ("command", "typed", "name", "value"),
    [
        ("train", "--values -1=0 255=1", "values", [(-1, 0), (255, 1)]),
        ("plan", "--values 0=0 255=-1", "values", [(0, 0), (255, -1)]),
        ("check-data", "--values 0=0 -7=1", "values", [(0, 0), (-7, 1)]),
        ("evaluate", "--colors 1,2,3=-1 0,0,0=0", "colors", [((1, 2, 3), -1), ((0, 0, 0), 0)]),
        ("tune", "--ignore -1", "ignore", -1),
        ("train", "--learning-rate -1e-3", "learning_rate", -1e-3),
        ("train", "--learning-rate -inf", "learning_rate", -math.inf),
        ("train", "--minutes -.5", "minutes", -0.5),
        ("predict", "--white -4e3", "white", -4000),
        ("train", "--class-colors -1,0,0", "class_colors", [(-1, 0, 0)]),
        ("train", "--filters -4 8", "filters", [-4, 8]),
        ("evaluate", "--mask-suffix=-mask", "mask_suffix", "-mask"),
        ("tune", "--mask-suffix=--mask", "mask_suffix", "--mask"),
        ("evaluate", "--images=-photos", "images", Path("-photos")),
    ],
)
def test_a_value_may_begin_with_a_minus_sign(command, typed, name, value):
    needed = {"predict": "photo.jpg --weights w", "evaluate": "--weights w", "check-data": ""}
    words = f"{command} {needed.get(command, '--data d')} {typed}"
    words += " --output o" * (command in ("train", "tune"))
    assert getattr(_parser().parse_args(words.split()), name) == value


def test_a_text_that_begins_with_a_minus_sign_is_joined_to_its_option(capsys):
    for option in ("--mask-suffix", "--data", "--class-names"):
        with pytest.raises(SystemExit, match="2"):
            main(["plan", option, "-mask"])
        assert f"is joined to it, {option}=-text" in capsys.readouterr().err
        options = _parser().parse_args(["plan", f"{option}=-text"])
        assert getattr(options, option.strip("-").replace("-", "_")) in ("-text", ["-text"])


@pytest.mark.parametrize(
    ("line", "is_chatter"),
    [
        ("WARNING: All log messages before absl::InitializeLog() is called are written to", True),
        ("I0000 00:00:1795881117.243370   14891 port.cc:153] oneDNN custom operations", True),
        ("2026-11-28 15:51:04.123456: I tensorflow/core/util/port.cc:153] oneDNN", True),
        ("E0000 00:00:1.5 14891 cuda_platform.cc:52] failed call to cuInit: INTERNAL", True),
        ("E0000 00:00:1.5 14891 gpu_device.cc:52] out of memory", False),
        ("ImportError: libtensorflow_cc.so.2: cannot open shared object file", False),
        ("Traceback (most recent call last):", False),
        ("F0000 00:00:1.5 14891 check.cc:52] Check failed", False),
    ],
)
def test_only_chatter_is_dropped(line, is_chatter):
    assert bool(CHATTER.match(line.encode())) == is_chatter
