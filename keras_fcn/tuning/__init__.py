"""Search with KerasTuner, which only this package imports.

The names below are imported when they are first asked for, so that the settings of a search cost
no TensorFlow, and need no KerasTuner.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what type checkers and editors see of the lazy names
    from keras_fcn.tuning.hypermodels import HyperFCN, HyperUNet
    from keras_fcn.tuning.search import tune
    from keras_fcn.tuning.settings import Search

_MODULES = {
    "HyperFCN": "hypermodels",
    "HyperUNet": "hypermodels",
    "Search": "settings",
    "tune": "search",
}
__all__ = list(_MODULES)


def _import(name):
    """Import a public name when it is first asked for."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name != "keras_tuner":
            raise
        raise ImportError(
            "The hypermodels and `keras-fcn tune` need KerasTuner. Run "
            "`pip install 'keras-fcn[tuner]'`."
        ) from error


if not TYPE_CHECKING:  # to a type checker, every name would be there
    __getattr__ = _import
