import ast
import configparser
import importlib
import inspect
import io
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import keras_fcn


def test_public_names_exist():
    for name in keras_fcn.__all__:
        assert getattr(keras_fcn, name).__doc__


def public_callables():
    """Yield the name and the value of each public function and class, also of the modules."""
    for name in keras_fcn._MODULES:
        value = getattr(keras_fcn, name)
        if not inspect.ismodule(value):
            yield name, value
            continue
        listed = getattr(value, "__all__", None)
        for key in listed or vars(value):
            what = getattr(value, key)
            is_here = listed or getattr(what, "__module__", None) == value.__name__
            if callable(what) and is_here and key[0] != "_":
                yield f"{name}.{key}", what


def test_public_arguments_are_annotated():
    lacking = []
    for name, value in public_callables():
        is_ours = not inspect.isclass(value) or "__init__" in vars(value)
        function = value.__init__ if inspect.isclass(value) else value
        for argument in inspect.signature(function).parameters.values() if is_ours else ():
            named = argument.kind in (argument.POSITIONAL_OR_KEYWORD, argument.KEYWORD_ONLY)
            if named and argument.name != "self" and argument.annotation is argument.empty:
                lacking.append(f"{name}({argument.name})")
        if not inspect.isclass(value) and "return" not in function.__annotations__:
            lacking.append(f"{name} ->")
    assert lacking == [], lacking


def test_every_package_is_installed(pytestconfig):
    setup = configparser.ConfigParser()
    setup.read(pytestconfig.rootpath / "setup.cfg")
    listed = set(setup["options"]["packages"].split()) - {"keras_fcn.pretrained_weights"}
    folders = [path.parent for path in (pytestconfig.rootpath / "keras_fcn").rglob("__init__.py")]
    found = {".".join(path.relative_to(pytestconfig.rootpath).parts) for path in folders}
    assert listed == found


IMPORTS = """
import sys, keras
before = set(sys.modules)
import keras_fcn
print(*set(sys.modules) - before)
import keras_fcn.datasets
print(*set(sys.modules) - before)
"""


@pytest.mark.slow
def test_import_costs_what_keras_costs():
    """No package is imported that `import keras` does not import already."""
    command = [sys.executable, "-c", IMPORTS]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    package, datasets = (line.split() for line in run.stdout.splitlines())
    names = {name.partition(".")[0] for name in package}
    assert names - sys.stdlib_module_names == {"keras_fcn"}
    assert not {"PIL", "rich", "tensorflow_datasets"} & set(datasets)


def test_a_distribution_with_a_file_too_many_or_missing_is_refused(
    tmp_path, monkeypatch, pytestconfig
):
    monkeypatch.syspath_prepend(pytestconfig.rootpath / "tools")
    check = importlib.import_module("check_distributions").check
    for name in ("keras_fcn/page/page.js", "keras_fcn/fcn.py", "weights/a.h5", "weights/notes.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    whole = ["keras_fcn/page/page.js", "keras_fcn/fcn.py", "keras_fcn/pretrained_weights/a.h5"]
    whole += ["keras_fcn-1.0.dist-info/METADATA"]
    wrong = ["keras_fcn/page/page.js is missing", "notes.txt does not belong there"]
    for names, expected in ((whole, []), ([*whole[1:], "notes.txt"], wrong)):
        with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
            for name in names:
                wheel.writestr(name, "")
        assert check(tmp_path / "a.whl", tmp_path) == expected
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as sdist:
        for name in ("keras_fcn/fcn.py", "PKG-INFO", "weights/a.h5", "tests/test_a.py"):
            sdist.addfile(tarfile.TarInfo(f"keras_fcn-1.0/{name}"), io.BytesIO())
    assert check(tmp_path / "a.tar.gz", tmp_path) == [
        "keras_fcn/page/page.js is missing",
        "tests/test_a.py does not belong there",
    ]


ROOT = Path(__file__).resolve().parents[1]
LONG = {"keras_fcn/convolutionize.py": 900}  # one subject, whose rules are a table of layers


def test_the_walks_pass_places_that_are_there():
    text = (ROOT / "CONTRIBUTING.md").read_text().partition("## Where things are")[2]
    stops = re.findall(r"^(\d)\. `([\w/]+)\.py:(\w+)`", text, re.M)
    assert [number for number, *_ in stops] == [*"12345678", *"12345"]
    for _, file, function in stops:
        module = importlib.import_module(file.replace("/", "."))
        assert getattr(module, function).__module__ == module.__name__, (file, function)


def test_files_and_functions_are_short():
    for path in sorted((ROOT / "keras_fcn").rglob("*.py")):
        text, name = path.read_text(), path.relative_to(ROOT).as_posix()
        assert text.count("\n") <= LONG.get(name, 450), name
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                described = node.body[0].end_lineno if ast.get_docstring(node) else node.lineno
                assert node.end_lineno - described <= 50, f"{name}:{node.name}"
