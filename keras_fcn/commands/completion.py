"""What a shell completes: commands, options, the names of weights, and files."""

import os


def complete(parser):
    """Answer a shell that asks for completions, and end; return if none does.

    Args:
        parser: of the command line.
    """
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        argcomplete.autocomplete(parser)


def weights(prefix, **_):
    """Return the names of pretrained weights, and the .keras files and folders that are there."""
    from argcomplete.completers import FilesCompleter

    from keras_fcn.cards import pretrained

    return [*pretrained(), *FilesCompleter(["keras"])(prefix)]
