"""How an error names an argument: as one types it in Python, or on the command line.

A message is made where the fault is found, which knows nothing of who called. So it
names arguments through `spell`, and the command line says once that it is the caller.
"""

import contextlib
import shlex
from collections.abc import Mapping

# Options of the command line that are not named as the argument.
OPTIONS = {"num_classes": "--classes"}
# Options that stand for an argument with one of its values.
FLAGS = {("instances", "numbers"): "--objects"}

_shell = False  # not a ContextVar: errors come from threads of tf.data, too


@contextlib.contextmanager
def on_the_command_line():
    """Let `spell` name options instead of Python's arguments, within the block."""
    global _shell
    before, _shell = _shell, True
    try:
        yield
    finally:
        _shell = before


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
    if not _shell:
        return f"`{name}`" if value is None else f"`{name}={value!r}`"
    if isinstance(value, str) and (name, value) in FLAGS:
        return f"`{FLAGS[name, value]}`"
    option = OPTIONS.get(name, f"--{name.replace('_', '-')}")
    words = [] if value is None else _words(value)
    return f"`{' '.join([option, *words])}`"


def choose(python, shell):
    """Return the remedy for the caller, where the two differ by more than an argument."""
    return shell if _shell else python


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
