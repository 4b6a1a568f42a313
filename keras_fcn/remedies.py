"""How an error names an argument: as one types it in Python, on the command line, or on the page.

A message is made where the fault is found, which knows nothing of who called. So it
names arguments through `spell`, and the command line and the page of `keras-fcn demo`
say once that they are the caller.
"""

import contextlib
import json
import shlex
from collections.abc import Mapping
from pathlib import Path

# Options of the command line that are not named as the argument.
OPTIONS = {"num_classes": "--classes"}
# Options that stand for an argument with one of its values.
FLAGS = {("instances", "numbers"): "--objects"}
# Fields of the page; what else it takes are options of the command that started it.
FIELDS = {"white": "White"}

_caller = "python"  # not a ContextVar: errors come from threads of tf.data, too


def on_the_command_line():
    """Let `spell` name options instead of Python's arguments, within the block."""
    return _called_from("shell")


def on_the_page():
    """Let `spell` name the page's fields, and options of `keras-fcn demo`, within the block."""
    return _called_from("page")


@contextlib.contextmanager
def _called_from(place):
    global _caller
    before, _caller = _caller, place
    try:
        yield
    finally:
        _caller = before


def spell(name, value=None):
    """Return an argument with its value as the caller can type it.

    Args:
        name: name of the argument in Python.
        value: its value: a number, text, a sequence, a mapping of values or colours to
            labels; None for the name alone.

    Example:

    >>> spell("values", {0: 0, 255: 1})
    '`values={0: 0, 255: 1}`'
    >>> with on_the_command_line():
    ...     spell("values", {0: 0, 255: 1})
    '`--values 0=0 255=1`'
    """
    if _caller == "page" and name in FIELDS:
        return f"`{FIELDS[name]}`" if value is None else f"`{FIELDS[name]}: {value}`"
    if _caller == "python":
        return f"`{name}`" if value is None else f"`{name}={value!r}`"
    if isinstance(value, str) and (name, value) in FLAGS:
        return f"`{FLAGS[name, value]}`"
    if value is False:
        return f"`--no{_name(name)[1:]}`"
    words = [] if value is None else _words(value)
    if isinstance(value, str) and value.startswith("-"):  # or it would be taken for an option
        return f"`{_name(name)}={words[0]}`"
    return f"`{' '.join([_name(name), *words])}`"


def given(name, value):
    """Return an argument with its value as the caller gave it, to be told what was received.

    Example:

    >>> given("crop_size", 0)
    'crop_size=0'
    >>> with on_the_command_line():
    ...     given("crop_size", 0)
    '--crop-size 0'
    """
    if value is None:
        return f"{name}=None" if _caller == "python" else f"no {spell(name)[1:-1]}"
    return spell(name, value)[1:-1]


def choose(python, shell, page=None):
    """Return the remedy for the caller, where they differ by more than an argument.

    Args:
        python: for who calls a function.
        shell: for who typed a command.
        page: for who looks at the page; by default as in the shell that started it.
    """
    return {"python": python, "shell": shell, "page": page or shell}[_caller]


def remake(expression, path, ending):
    """Return how another model is made of one: as Python, or as the command that does it.

    Args:
        expression: Python for the new model, of `model`.
        path: of the model's file; None for one that is no file's.
        ending: what the name of the new file has besides.

    Example:

    >>> remake("keras.Model(model.input, model.outputs[0])", "my.keras", "first")
    '`keras.Model(model.input, model.outputs[0])`'
    """
    if _caller == "python" or path is None:
        return f"`{expression}`"
    other = Path(path).with_stem(f"{Path(path).stem}_{ending}")
    script = (
        f"import keras, keras_fcn; model = keras.saving.load_model({json.dumps(str(path))}); "
        f"{expression}.save({json.dumps(str(other))})"
    )
    then = f"choose '{other}'" if _caller == "page" else f"pass {spell('weights', str(other))}"
    return f"`python -c {shlex.quote(script)}`, and {then}"


def _name(name):
    return OPTIONS.get(name, f"--{name.replace('_', '-')}")


def _words(value):
    if value is True:
        return []
    if isinstance(value, Mapping):
        return [f"{_word(key)}={label}" for key, label in value.items()]
    if isinstance(value, list | tuple):
        return [_word(item) for item in value]
    return [_word(value)]


def _word(value):
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return shlex.quote(str(value))
