"""Search with KerasTuner, which only this package imports."""

try:
    import keras_tuner  # noqa: F401
except ImportError as error:
    raise ImportError(
        "The hypermodels and `keras-fcn tune` need KerasTuner. Run "
        "`pip install 'keras-fcn[tuner]'`."
    ) from error

from keras_fcn.tuning.hypermodels import HyperFCN, HyperUNet
from keras_fcn.tuning.search import Search, tune

__all__ = ["HyperFCN", "HyperUNet", "Search", "tune"]
