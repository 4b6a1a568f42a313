"""A classifier with dense layers beside its fully convolutional form, window by window."""

import dataclasses
import functools
import time
import typing
from pathlib import Path

import keras
import numpy as np
from keras import layers
from PIL import Image

from keras_fcn.convolutionize import Comparison, compare, fully_convolutional
from keras_fcn.page.limits import Limits
from keras_fcn.page.pictures import JPEG_SIDE, read_picture, sample_picture
from keras_fcn.visualize import probability_map

LONGEST_SIDE = 640  # pixels of a picture whose windows are all shown
MOST_PIXELS = 2**24  # of a narrow picture, made wide enough for a window
WINDOW = 32  # pixels: what the small network sees
SUBJECTS = ("astronaut", "cat", "coffee", "rocket")  # what it tells apart
WINDOWS_OF_EACH = 600


@dataclasses.dataclass(frozen=True)
class Pair:
    """A classifier and its fully convolutional form.

    Attributes:
        dense: `keras.Model` on windows of one size.
        convolutional: the same, on pictures of any size.
        names: names of the classes.
        comparison: `keras_fcn.convolutionize.Comparison`.
        prepare: function from float32 pixels `(1, height, width, 3)`, RGB in [0, 255],
            to what the two take.
    """

    dense: keras.Model
    convolutional: keras.Model
    names: tuple
    comparison: Comparison
    prepare: typing.Callable

    def scores(self, model, image):
        """Return one of the two models' scores of a uint8 picture `(height, width, 3)`."""
        images = self.prepare(image[None].astype("float32"))
        return keras.ops.convert_to_numpy(model(images, training=False))[0]

    @property
    def window(self):
        return self.convolutional.window

    @property
    def stride(self):
        return self.convolutional.stride

    @property
    def pads(self):
        """Whether a layer pads, so that a window's border is zeros only when it is alone."""
        padding = (getattr(layer, "padding", "valid") for layer in self.dense.layers)
        return any(value == "same" for value in padding)


@dataclasses.dataclass(frozen=True)
class WindowScores:
    """One window's probabilities, float arrays `(classes,)`, three times.

    Attributes:
        dense: of the network with dense layers, on the window cut out.
        convolution: of the fully convolutional one, on the window cut out.
        sliding: of the fully convolutional one on the whole picture, at that place.
    """

    dense: np.ndarray
    convolution: np.ndarray
    sliding: np.ndarray


def small_vgg(num_classes):
    """Build a VGG of two blocks for windows of 32x32 pixels, without padding.

    Example:

    >>> small_vgg(num_classes=4).get_layer("fc1").kernel.shape
    TensorShape([800, 64])
    """
    seeds = iter(range(100))

    def start():
        return keras.initializers.HeNormal(seed=next(seeds))

    x = images = keras.Input((WINDOW, WINDOW, 3), name="window")
    x = layers.Rescaling(1 / 127.5, offset=-1, name="pixels")(x)
    for block, filters in enumerate((16, 32), start=1):
        for number in (1, 2):
            x = layers.Conv2D(
                filters,
                3,
                activation="relu",
                kernel_initializer=start(),
                name=f"conv{block}_{number}",
            )(x)
        x = layers.MaxPooling2D(2, name=f"pool{block}")(x)
    x = layers.Flatten(name="flatten")(x)
    for name in ("fc1", "fc2"):
        x = layers.Dense(64, activation="relu", kernel_initializer=start(), name=name)(x)
    x = layers.Dense(
        num_classes, activation="softmax", kernel_initializer=start(), name="predictions"
    )(x)
    return keras.Model(images, x, name="small_vgg")


@functools.cache
def small_pair():
    """Return the small network, fitted in some seconds to tell which sample a window is from."""
    windows, labels = _training_windows()
    model = small_vgg(len(SUBJECTS))
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(windows, labels, batch_size=64, epochs=5, shuffle=False, verbose=0)
    return _pair(model, SUBJECTS, prepare=lambda images: images)


@functools.cache
def vgg16_pair(path):
    """Return VGG16 with the weights of a file.

    Raises:
        ValueError: for a file of other weights, or of VGG16 without its dense layers.
        FileNotFoundError: for no file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"VGG16's weights should be in a file. Received: no file '{path}'.")
    model = keras.applications.VGG16(weights=None)
    try:
        model.load_weights(path)
    except (ValueError, OSError, KeyError) as error:
        raise ValueError(
            "VGG16's weights should be a file of `keras.applications.VGG16` with its dense layers, "
            "such as vgg16_weights_tf_dim_ordering_tf_kernels.h5. Received: "
            f"'{path}', which does not fit: {str(error).splitlines()[0]}"
        ) from error
    names = tuple(f"class {label}" for label in range(model.output_shape[-1]))
    return _pair(model, names, keras.applications.vgg16.preprocess_input)


def _pair(model, names, prepare):
    return Pair(model, fully_convolutional(model), names, compare(model), prepare)


def _training_windows():
    """Return windows (N, 32, 32, 3) of the samples, shuffled, and which sample each is from."""
    rng = np.random.default_rng(0)
    windows, labels = [], []
    for label, subject in enumerate(SUBJECTS):
        image = read_picture(sample_picture(f"{subject} (scikit-image)"), Limits())
        places = rng.integers(0, np.subtract(image.shape[:2], WINDOW), (WINDOWS_OF_EACH, 2))
        windows += [cut(image, place, (WINDOW, WINDOW)) for place in places]
        labels += [label] * WINDOWS_OF_EACH
    order = rng.permutation(len(labels))
    return np.stack(windows)[order], np.array(labels)[order]


def cut(image, place, window):
    """Return the window whose first pixel is at (row, column)."""
    (top, left), (height, width) = place, window
    return image[top : top + height, left : left + width]


def fit_size(image, window):
    """Scale a picture so that its longer side is at most 640 pixels, and a window fits in.

    Args:
        image: uint8 array `(height, width, 3)`.
        window: `(height, width)` in pixels.

    Returns:
        uint8 array `(height, width, 3)`, the same where nothing is to be done.

    Raises:
        ValueError: for a picture so narrow that a window fits into a far longer one only.

    Example:

    >>> fit_size(np.zeros((1000, 2000, 3), "uint8"), (32, 32)).shape
    (320, 640, 3)
    """
    height, width = image.shape[:2]
    scale = min(1, LONGEST_SIDE / max(height, width))
    scale = max(scale, window[0] / height, window[1] / width)
    if scale == 1:
        return image
    size = (max(window[1], round(width * scale)), max(window[0], round(height * scale)))
    if max(size) > JPEG_SIDE or size[0] * size[1] > MOST_PIXELS:
        raise ValueError(
            f"A picture should be less narrow, so that a window of {window[1]} x {window[0]} fits "
            f"in. Received: {width} x {height} pixels. Cut a part out of it."
        )
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def slide(pair, image):
    """Score all windows of a picture at once.

    Args:
        pair: `Pair`.
        image: uint8 array `(height, width, 3)`, as `fit_size` returns it.

    Returns:
        float32 array `(rows, columns, classes)`, and the seconds it took.
    """
    start = time.perf_counter()
    scores = pair.scores(pair.convolutional, image)
    return scores, time.perf_counter() - start


def score_window(pair, image, scores, row, column):
    """Score one window, by its dense layers and as convolutions.

    Args:
        pair: `Pair`.
        image: uint8 array `(height, width, 3)`.
        scores: float32 array `(rows, columns, classes)` of `slide`.
        row, column: which window; places outside are moved to the border.

    Returns:
        `WindowScores`.
    """
    row, column = np.clip((row, column), 0, np.subtract(scores.shape[:2], 1))
    window = cut(image, (row * pair.stride[0], column * pair.stride[1]), pair.window)
    return WindowScores(
        pair.scores(pair.dense, window),
        pair.scores(pair.convolutional, window)[0, 0],
        scores[row, column],
    )


def heat_map(scores, label):
    """Return how probable a class is in each window, a `PIL.Image` of a pixel for a window."""
    return probability_map(np.clip(scores, 0, 1), label)
