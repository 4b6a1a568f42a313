"""The optimizer that Keras lacks: Muon for the kernels of convolutions."""

import contextvars
import re
from collections.abc import Mapping, Sequence

import keras
from keras import ops

# The learning rate of the step that is being applied, of each replica's thread: Keras asks the
# schedule for it at every variable whose weight decays.
_rate: contextvars.ContextVar = contextvars.ContextVar("rate", default=None)


@keras.saving.register_keras_serializable(package="keras_fcn")
class Muon(keras.optimizers.Muon):
    """Muon for convolutional networks: kernels are orthogonalized as matrices.

    `keras.optimizers.Muon` orthogonalizes the momentum of matrices and leaves all
    other variables to AdamW, convolution kernels too. Here a kernel `(height, width,
    channels, filters)` is taken as the matrix `(height * width * channels, filters)`
    of the dense layer that it is at each pixel, and what is no kernel goes by AdamW:
    biases, normalisation, and layers whose path matches `exclude_layers`. Where the
    dtype policy computes in bfloat16 (`"mixed_bfloat16"`), so does the
    orthogonalization, which bears it; momentum and kernels keep their dtype.

    Args:
        learning_rate: as in `keras.optimizers.Muon`; the step of a kernel has the
            root mean square that AdamW's has, so AdamW's learning rates will do.
        exclude_layers: list of regular expressions; by default the score layers, as
            Muon is for hidden layers only.
        shares: dict of a regular expression to the share of the learning rate, above 0,
            by which what has a path that matches it learns, as pretrained layers do
            beside fresh ones; by default all learn at the same rate.
        name: name of the optimizer.
        **kwargs: the other arguments of `keras.optimizers.Muon`.

    Sources: Jordan et al., Muon, 2024 (orthogonalization by Newton-Schulz, and kernels
    flattened so); Liu et al., Muon is scalable for LLM training, 2025 (the scale).

    Example:

    >>> model = UNet(num_classes=2, filters=(8, 16))
    >>> model.compile(Muon(2e-3), "sparse_categorical_crossentropy")
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 1e-3,
        exclude_layers: Sequence[str] = ("score",),
        shares: Mapping[str, float] | None = None,
        name: str = "muon",
        **kwargs,
    ):
        super().__init__(
            learning_rate=learning_rate, exclude_layers=list(exclude_layers), name=name, **kwargs
        )
        self.shares = dict(shares or {})

    @property
    def learning_rate(self):
        held = _rate.get()
        return super().learning_rate if held is None else held

    @learning_rate.setter
    def learning_rate(self, learning_rate):
        keras.optimizers.Muon.learning_rate.fset(self, learning_rate)

    def apply(self, grads, trainable_variables=None):
        held = _rate.set(self.learning_rate)
        try:
            super().apply(grads, trainable_variables)
        finally:
            _rate.reset(held)

    def update_step(self, gradient, variable, learning_rate):
        # TensorFlow's own variable comes here, which has no path
        path = self._trainable_variables[self._get_variable_index(variable)].path
        for pattern, share in self.shares.items():
            if re.search(pattern, path):
                learning_rate = learning_rate * share
        super().update_step(gradient, variable, learning_rate)

    def _should_use_adamw(self, variable):
        return len(variable.shape) != 4 or any(
            re.search(pattern, variable.path) for pattern in self.exclude_layers
        )

    def zeropower_via_newtonschulz5(self, x, steps):
        bfloat16 = keras.config.dtype_policy().compute_dtype == "bfloat16"
        matrix = ops.cast(_matrix(x), "bfloat16" if bfloat16 else x.dtype)
        factor = super().zeropower_via_newtonschulz5(matrix, steps)
        return ops.reshape(ops.cast(factor, x.dtype), x.shape)

    def lr_adjust(self, x):
        return ops.reshape(super().lr_adjust(_matrix(x)), x.shape)

    def get_config(self):
        return {**super().get_config(), "shares": self.shares}


def _matrix(kernel):
    """Return a kernel (h, w, channels, filters) as (h * w * channels, filters)."""
    return ops.reshape(kernel, (-1, kernel.shape[-1]))
