"""Training: a recipe, a plan of what it leaves out, a run that can be resumed, and its record.

The names below are imported when they are first asked for, so that a recipe costs no TensorFlow.
"""

import importlib

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


def __getattr__(name):
    """Import a public name when it is first asked for."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
