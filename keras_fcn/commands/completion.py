"""What a shell completes: commands, options, their choices, the names that ship, and files."""

import os


def complete(parser):
    """Answer a shell that asks for completions, and end; return if none does.

    Args:
        parser: of the command line.
    """
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        argcomplete.autocomplete(parser)


def names(**_):
    """Return the names of the pretrained weights."""
    from keras_fcn.cards import pretrained

    return list(pretrained())


def weights(prefix, **_):
    """Return the names of the pretrained weights, the `.keras` files and the folders there."""
    return [*names(), *_files(prefix, "keras")]


def first_weights(prefix, **_):
    """Return what a training may start from: also weights without a network."""
    return [*names(), "imagenet", "none", *_files(prefix, "keras", "h5")]


def data(prefix, **_):
    """Return the names of data sets, and the folders there."""
    from argcomplete.completers import DirectoriesCompleter

    from keras_fcn.datasets.catalogue import SOURCES

    kinds = {name: source.classes for name, source in SOURCES.items()}
    configurations = [
        f"{name}/{kind}"
        for name, classes in kinds.items()
        if isinstance(classes, dict)
        for kind in classes
    ]
    return [*SOURCES, *configurations, *DirectoriesCompleter()(prefix)]


def choices(values):
    """Return the completer of an option that takes one of some values, or several."""

    def complete_one(**_):
        return list(values)

    return complete_one


def _files(prefix, *endings):
    from argcomplete.completers import FilesCompleter

    return FilesCompleter(endings)(prefix)
