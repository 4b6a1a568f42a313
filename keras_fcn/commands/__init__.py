"""The command `keras-fcn`: a module for each command, its options beside what it does.

The modules import what is heavy when they run, so that help and errors of usage come at once.
"""

import argparse
import os
import sys

from keras_fcn.commands import check_data, evaluate, models, predict, train, tune

COMMANDS = (predict, evaluate, train, tune, check_data, models)


def main(arguments=None):
    """Run the command line; return the exit status."""
    options = _parser().parse_args(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        return options.run(options) or 0
    except (ValueError, OSError, ImportError) as error:
        print(f"keras-fcn: error: {error}", file=sys.stderr)
        return 1


def _parser():
    parser = argparse.ArgumentParser(
        prog="keras-fcn", description="Fully convolutional networks and U-Nets for Keras."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser
