"""Training: a recipe, a plan of what it leaves out, a run that can be resumed, and its record.

The names below are imported when they are first asked for, so that a recipe costs no TensorFlow.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what type checkers and editors see of the lazy names
    from keras_fcn.training.callbacks import ImageGrid
    from keras_fcn.training.fit import make_plan, train
    from keras_fcn.training.recipe import FACTORIES, Recipe, Task
    from keras_fcn.training.run import tuned_arguments

_MODULES = {
    "FACTORIES": "recipe",
    "ImageGrid": "callbacks",
    "Recipe": "recipe",
    "Task": "recipe",
    "make_plan": "fit",
    "train": "fit",
    "tuned_arguments": "run",
}
__all__ = list(_MODULES)


def _import(name):
    """Import a public name when it is first asked for."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


if not TYPE_CHECKING:  # to a type checker, every name would be there
    __getattr__ = _import
