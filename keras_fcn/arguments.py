"""Checks of the arguments that the factories share."""

import difflib
import math
import numbers
from pathlib import Path

from keras_fcn.remedies import given, spell


def check_model_arguments(input_shape, num_classes, classifier_activation, padding):
    """Raise `ValueError` for arguments from which no model can be built."""
    import keras  # here, so that checks that need no network cost no TensorFlow

    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            'keras_fcn builds models for the image data format "channels_last". Received: '
            f'"{keras.config.image_data_format()}". Call '
            '`keras.config.set_image_data_format("channels_last")`.'
        )
    check_input_shape(input_shape)
    check_positive_integer("num_classes", num_classes)
    if num_classes == 1 and classifier_activation == "softmax":
        raise ValueError(
            "`softmax` over one class is 1 everywhere. Received: num_classes=1, "
            'classifier_activation="softmax". For two classes use `num_classes=2`, or '
            '`num_classes=1` with `classifier_activation="sigmoid"`.'
        )
    check_choice("padding", padding, ("same", "valid"))


def check_input_shape(input_shape):
    """Raise unless `input_shape` is `(height, width, channels)`."""
    valid = (
        isinstance(input_shape, (tuple, list))
        and len(input_shape) == 3
        and all(size is None or _is_positive_integer(size) for size in input_shape[:2])
        and _is_positive_integer(input_shape[2])
    )
    if not valid:
        raise ValueError(
            "`input_shape` should be (height, width, channels), with None for a height or width "
            f"left free, for example (None, None, 3). Received: input_shape={input_shape!r}"
        )


def check_positive_integer(name, value):
    """Raise unless `value` is an integer from 1 up, of the 64 bits that tensors count by."""
    if not _is_positive_integer(value):
        raise ValueError(
            f"{spell(name)} should be an integer of at least 1. Received: {given(name, value)}"
        )
    if value >= 2**63:
        raise ValueError(
            f"{spell(name)} should be an integer below 2**63. Received: {given(name, value)}"
        )


def check_filters(filters):
    """Raise unless `filters` are as many integers as a network has levels, two or more."""
    if not hasattr(filters, "__len__") or isinstance(filters, str) or len(filters) < 2:
        raise ValueError(
            f"{spell('filters')} should hold the number of filters of two levels or more, for "
            f"example {spell('filters', (64, 128, 256, 512, 1024))}. Received: "
            f"{given('filters', filters)}"
        )
    for width in filters:
        check_positive_integer("filters", width)


def check_choice(name, value, choices):
    """Raise unless `value` is one of `choices`; suggest the nearest."""
    if value not in choices:
        raise ValueError(
            f"{spell(name)} should be one of {', '.join(map(repr, choices))}. "
            f"Received: {given(name, value)}.{suggest(value, choices)}"
        )


def suggest(value, choices):
    """Return " Did you mean …?" for a near miss, else the empty string."""
    names = [choice for choice in choices if isinstance(choice, str)]
    near = difflib.get_close_matches(str(value), names, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def _is_positive_integer(value):
    return is_integer(value) and value >= 1


def is_integer(value):
    """Whether a value is an integer, NumPy's too, and no truth value."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def is_number(value):
    """Whether a value is a finite real number, NumPy's too, and no truth value."""
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return real and math.isfinite(value)


def check_share(name, value):
    """Raise unless `value` is a number from 0 to below 1."""
    if not (is_number(value) and 0 <= value < 1):
        raise ValueError(
            f"{spell(name)} should be from 0 to below 1. Received: {given(name, value)}"
        )


def check_flag(name, value):
    """Return a truth value as `bool`, NumPy's too; raise for anything else."""
    if isinstance(value, bool) or str(getattr(value, "dtype", "")) == "bool":
        return bool(value)
    raise ValueError(f"{spell(name)} should be True or False. Received: {given(name, value)}")


def check_seed(name, seed):
    """Return a seed of random numbers as `int`, or None; raise unless it is from 0 up."""
    if seed is not None and not (is_integer(seed) and seed >= 0):
        raise ValueError(
            f"{spell(name)} should be an integer from 0 up, or None. Received: {given(name, seed)}"
        )
    return seed if seed is None else int(seed)


def check_reading(white=None, max_pixels=None, channels=None):
    """Raise unless the options of reading images are None, or numbers above 0."""
    for name, value in (("max_pixels", max_pixels), ("channels", channels)):
        if value is not None:
            check_positive_integer(name, value)
    if white is not None and not (is_number(white) and white > 0):
        raise ValueError(
            f"{spell('white')} should be a finite number above 0. Received: "
            f"{given('white', white)}. Leave it out for files of 8 bits."
        )


def as_label(name, value):
    """Return the label of void pixels as an `int`, or None; raise unless it is whole.

    Raises:
        ValueError: for a value that is no whole number.
    """
    if value is None or is_integer(value):
        return value if value is None else int(value)
    if is_number(value) and value == int(value):
        return int(value)
    raise ValueError(f"{spell(name)} should be an integer or None. Received: {given(name, value)}")


def as_void(name, value):
    """Return the label of void pixels in label maps, which have 32 bits, as `as_label` does."""
    value = as_label(name, value)
    if value is not None and not -(2**31) <= value < 2**31:
        raise ValueError(
            f"{spell(name)} should fit the 32 bits of label maps. Received: {given(name, value)}. "
            f"Choose a number that is no class, as {spell(name, 255)}."
        )
    return value


def expand_home(text):
    """Return a path that was typed into a shell or the page, with the home folder for `~/`.

    In Python `~` is a name like others, as it is for `open`.
    """
    return str(Path(text).expanduser()) if text.startswith("~/") else text
