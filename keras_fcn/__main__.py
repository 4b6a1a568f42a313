"""`python -m keras_fcn` is the command `keras-fcn`."""

import sys

from keras_fcn.signals import heeding


def main():
    """Run the command line as a process; return the exit status."""
    return heeding(_run)


def _run():
    from keras_fcn.commands import main  # takes a while, in which Ctrl-C may come

    return main()


if __name__ == "__main__":
    sys.exit(main())
