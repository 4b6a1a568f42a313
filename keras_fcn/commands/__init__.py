"""The command `keras-fcn`: a module for each command, its options beside what it does.

The modules import what is heavy when they run, so that help and errors of usage come at once.
"""

import argparse
import contextlib
import io
import os
import re
import shutil
import signal
import sys
import textwrap
import warnings

from keras_fcn import signals
from keras_fcn.arguments import expand_home
from keras_fcn.atomic import is_full
from keras_fcn.commands import (
    check_data,
    demo,
    evaluate,
    export,
    models,
    plan,
    predict,
    train,
    tune,
)
from keras_fcn.commands.completion import complete
from keras_fcn.commands.errors import explain, is_expected, visible
from keras_fcn.commands.quiet import import_quietly
from keras_fcn.remedies import on_the_command_line

COMMANDS = (predict, evaluate, train, plan, tune, check_data, export, models, demo)
BROKEN_PIPE = 141  # the exit status that a shell gives for it
NEGATIVE = re.compile(r"-(\.?\d|inf|nan)", re.IGNORECASE)  # how a value may begin, and no option
LACKING = re.compile(r"argument (--[\w-]+): expected (?:at least )?one argument")  # of argparse


def main(arguments=None):
    """Run the command line; return the exit status."""
    parser = _parser()
    complete(parser)
    words = sys.argv[1:] if arguments is None else arguments
    _refuse_empty(parser, words)
    options = parser.parse_args([_expand_home(word) for word in words])
    if arguments is None and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files need not be UTF-8
    with on_the_command_line(), warnings.catch_warnings(), _telling_full_once():
        warnings.simplefilter("default", UserWarning)  # printed, whatever Python was told of them
        warnings.showwarning = _show_warning
        try:
            return _run(options)
        except KeyboardInterrupt:
            if signals.received:
                raise
            print(signals.LINES[signal.SIGINT], file=sys.stderr)  # of a training, after the step
            return signals.OF_SIGNALS + signal.SIGINT
        except BrokenPipeError:  # who read the output has ended, as `| head` does
            _discard_output()
            return BROKEN_PIPE
        except Exception as error:
            if signals.received or not is_expected(error):
                raise
            print(f"keras-fcn: error: {visible(explain(error))}", file=sys.stderr)
            return 1


def _refuse_empty(parser, words):
    """End with an error of usage for an empty argument, which as a path were the folder here."""
    for before, word in zip(["keras-fcn", *words], words, strict=False):
        if not word or re.fullmatch(r"--[\w-]+=", word):
            received = word or f"{before} ''"
            parser.error(
                f"an argument should not be empty. Received: {received}. If it is a variable of "
                "the shell, set it."
            )


def _expand_home(word):
    """Return an argument with the home folder for `~/`, which shells leave in quotes or after =."""
    option, path = re.fullmatch(r"(--[\w-]+=)?(.*)", word, re.DOTALL).groups(default="")
    return option + expand_home(path)


def _run(options):
    if getattr(options, "imports_keras", True):
        import_quietly()
    status = options.run(options) or 0
    sys.stdout.flush()  # a full disk or a broken pipe is noticed here
    return status


@contextlib.contextmanager
def _telling_full_once():
    """Drop what HDF5 says of a full disk again, by either hook, when its files are cleared away."""
    told, dropped = sys.excepthook, sys.unraisablehook

    def tell(kind, error, trace):
        if not is_full(error):
            told(kind, error, trace)

    def tell_dropped(unraisable):
        if not is_full(unraisable.exc_value):
            dropped(unraisable)

    sys.excepthook, sys.unraisablehook = tell, tell_dropped
    try:
        yield
    finally:
        sys.excepthook, sys.unraisablehook = told, dropped


def _show_warning(message, _category, _filename, _number, file=None, _line=None):
    print(f"keras-fcn: warning: {visible(str(message))}", file=file or sys.stderr)


def _discard_output():
    """Give what is still buffered for standard output to nobody, or Python complains at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Parser(argparse.ArgumentParser):
    """A parser for values that begin with a minus sign.

    What begins like a number is a value, for no option does, as in `--values -1=0`; argparse
    takes that for one unless it is a number alone. A text is joined to its option.
    """

    def __init__(self, **settings):
        super().__init__(**settings)
        self._negative_number_matcher = NEGATIVE

    def error(self, message):
        """End with an error of usage, and with the way to give a text that begins with a minus."""
        if match := LACKING.fullmatch(message):
            message += f". A text that begins with a minus sign is joined to it, {match[1]}=-text"
        super().error(message)


def _parser():
    parser = Parser(
        prog="keras-fcn",
        description="Fully convolutional networks and U-Nets for Keras. `keras-fcn COMMAND --help` "
        "says what a command takes.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
        _show_example(commands.choices[_name(command)], command.EXAMPLE)
    _show_example(parser, predict.EXAMPLE)
    return parser


def _name(command):
    return command.__name__.rpartition(".")[2].replace("_", "-")


def _show_example(parser, example):
    """End the help with an example in one line, as it is typed, however narrow the terminal."""
    width = shutil.get_terminal_size().columns - 2
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = textwrap.fill(parser.description, width)
    parser.epilog = f"example:\n  {example}"
