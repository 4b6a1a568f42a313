"""Objects from probabilities: one number for each, and touching ones apart."""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence

import keras
import numpy as np

from keras_fcn.arguments import check_choice, is_number
from keras_fcn.catalogue import classes_of
from keras_fcn.classes import Classes
from keras_fcn.inference.predict import check_options, predict_image
from keras_fcn.object_metrics import ObjectMetrics
from keras_fcn.remedies import choose

# What `choose_thresholds` tries, one after the other; specks first, or the others go to them.
GRIDS = (
    {"minimum_area": (0, 10, 20, 40, 80)},
    {"seed_threshold": (0.0, 0.2, 0.4, 0.6, 0.8), "neck": (1.0, 2.0, 3.0)},
    {"threshold": (0.3, 0.5, 0.6, 0.7, 0.8, 0.9)},
)
SMOOTHING = 1  # pixels: the standard deviation of a filter on the depth of what is inside


@dataclasses.dataclass(frozen=True)
class ObjectSettings:
    """How objects are found in probabilities.

    Args:
        threshold: pixels are of an object where the background's probability is below
            `1 - threshold`.
        seed_threshold: an object grows from where the probability of its class, less that
            of the border class, is above this.
        minimum_area: objects of fewer pixels are left out.
        border: number of the class that parts touching objects, or None.
        background: number of the class of no object.
        neck: an object is cut where it is narrower, by as many pixels on each side, than
            on both sides of it; with a border class, what this leaves of an object.
    """

    threshold: float = 0.5
    seed_threshold: float = 0.5
    minimum_area: int = 0
    border: int | None = None
    background: int = 0
    neck: float = 1.0

    def __post_init__(self):
        for name, low, high in (
            ("threshold", 0, 1),
            ("seed_threshold", -1, 1),
            ("minimum_area", 0, np.inf),
            ("neck", 0, np.inf),
        ):
            value = getattr(self, name)
            if not (is_number(value) and low <= value <= high):
                raise ValueError(
                    f"`{name}` should be a number from {low} to {high}, or no object is as it "
                    f"says. Received: {name}={value!r}"
                )

    @classmethod
    def of(cls, model: keras.Model) -> "ObjectSettings":
        """Return the settings that a model carries, else the defaults for its classes.

        A class named "border" parts objects.
        """
        return cls.of_classes(classes_of(model))

    @classmethod
    def of_classes(cls, classes: Classes) -> "ObjectSettings":
        """Return what `of` returns of a model with these classes, as of an exported file."""
        names = [name.lower() for name in classes.names]
        border = names.index("border") if "border" in names else None
        try:
            return cls(**{"border": border, **(classes.objects or {})})
        except TypeError as error:  # of a name that is no setting
            raise ValueError(
                "The settings of objects should be those of `ObjectSettings`. Received: "
                f"{classes.objects}. Give the model others by `keras_fcn.set_classes`."
            ) from error


def find_objects(probabilities: np.ndarray, settings: ObjectSettings | None = None) -> np.ndarray:
    """Find the objects in the probabilities of the classes, and number them.

    Every object grows from a seed over the pixels that are not background, by a
    watershed, until it meets another. Seeds are the middles of what is surely inside, so
    that two discs that touch are two; with a border class that is where the object's
    class stands out of it. What has no seed is an object of its own.

    Args:
        probabilities: float array `(height, width, channels)` in [0, 1]; one channel is
            the probability of the object against the background.
        settings: `ObjectSettings`; by default theirs.

    Returns:
        int32 array `(height, width)`: 0 background, 1, 2, … the objects.

    Raises:
        ValueError: for an array of another shape or with values outside of [0, 1], or a
            class that it does not have.

    Example:

    >>> row = np.array([0.1, 0.9, 0.9, 0.1, 0.1, 0.8])
    >>> find_objects(np.tile(row, (3, 1))[..., None])[1].tolist()
    [0, 1, 1, 0, 0, 2]
    """
    from skimage.segmentation import relabel_sequential, watershed

    settings = settings or ObjectSettings()
    probabilities = _check_probabilities(probabilities, settings)
    inside = _inside(probabilities, settings)
    foreground = 1 - probabilities[..., settings.background] > settings.threshold
    seeds, landscape = _seeds(foreground, inside, settings)
    seeds = _add_seedless(seeds, foreground)
    objects = watershed(landscape, seeds, mask=foreground)
    areas = np.bincount(objects.ravel())
    small = np.flatnonzero(areas < settings.minimum_area)
    objects[np.isin(objects, small)] = 0
    return relabel_sequential(objects)[0].astype("int32")


def predict_objects(
    model: keras.Model, image: np.ndarray, settings: ObjectSettings | None = None, **options
) -> np.ndarray:
    """Predict the objects of one image, numbered.

    Args:
        model: Keras model that gives probabilities; one with a class named "border" (as
            `unet_nuclei`) parts objects that touch.
        image: array `(height, width, channels)`, as in `predict_image`.
        settings: how objects are found; by default as the model carries it (see
            `choose_thresholds`).
        **options: those of `predict_image`.

    Returns:
        int32 array `(height, width)`: 0 background, 1, 2, … the objects.

    Raises:
        ValueError: as `predict_image` and `find_objects`.

    Example:

    >>> import keras_fcn
    >>> model = keras_fcn.UNet(num_classes=2, filters=(8, 16))
    >>> keras_fcn.predict_objects(model, np.zeros((31, 57, 3), "uint8")).shape
    (31, 57)
    """
    probabilities = predict_image(model, image, **options)
    return find_objects(probabilities, settings or ObjectSettings.of(model))


def choose_thresholds(
    model: keras.Model, pairs: Iterable[tuple[np.ndarray, np.ndarray]], **options
) -> dict:
    """Choose how a model's objects are found, by their F1 at IoU 0.5 on images.

    Args:
        model: Keras model that gives probabilities.
        pairs: images, and the true instance map `(height, width)` of each; of
            validation, not of training or test.
        **options: those of `predict_image`.

    Returns:
        Dict for the `objects` of `keras_fcn.Classes`, the fields of `ObjectSettings`.
        Store it in the model by `keras_fcn.catalogue.set_classes(model,
        dataclasses.replace(classes_of(model), objects=chosen))`.

    Raises:
        ValueError: without any pair, or any object.
    """
    check_options(model, takes="objects", **options)
    known = [(predict_image(model, image, **options), truth) for image, truth in pairs]
    if not known:
        raise ValueError("There should be at least one image to choose by. Received: none.")
    if not any(np.max(truth, initial=0) for _, truth in known):
        raise ValueError(
            "Some instance map should number an object, or all thresholds are alike. Received: "
            f"{len(known)} of background alone. Add images with objects."
        )
    return dataclasses.asdict(choose_settings(known, ObjectSettings.of(model)))


def choose_settings(
    known: Sequence[tuple[np.ndarray, np.ndarray]], settings: ObjectSettings
) -> ObjectSettings:
    """Choose the settings of the highest F1, for probabilities and the true instance maps."""
    for grid in GRIDS:
        trials = [
            dataclasses.replace(settings, **dict(zip(grid, values, strict=True)))
            for values in itertools.product(*grid.values())
        ]
        settings = max(trials, key=lambda trial: _f1(known, trial))  # the first of equals
    return settings


def _f1(known, settings):
    metric = ObjectMetrics()
    for scores, truth in known:
        metric.update_state(truth, find_objects(scores, settings))
    return np.nan_to_num(metric.result()["object_f1"])


def _check_probabilities(probabilities, settings):
    """Return float32 `(height, width, classes)`, two classes for one channel."""
    probabilities = np.asarray(probabilities, "float32")
    shape = probabilities.shape
    if probabilities.ndim != 3 or not (probabilities.min() >= 0 and probabilities.max() <= 1):
        raise ValueError(
            "`probabilities` should be (height, width, channels), in [0, 1]. Received: an array "
            f"of the shape {shape} with values in [{probabilities.min()}, {probabilities.max()}]. "
            + choose(
                "Pass what `predict_image` gives for a model with softmax or sigmoid.",
                "Let the model end in a softmax, by `keras.Sequential([model, "
                "keras.layers.Softmax()])`, and save it again.",
            )
        )
    if shape[-1] == 1:
        probabilities = np.concatenate([1 - probabilities, probabilities], axis=-1)
    classes = tuple(range(probabilities.shape[-1]))
    check_choice("background", settings.background, classes)
    check_choice("border", settings.border, (None, *classes))
    return probabilities


def object_classes(count: int, settings: ObjectSettings) -> Sequence[int]:
    """Return the numbers of the classes that are objects."""
    return [x for x in range(count) if x not in (settings.background, settings.border)]


def _inside(probabilities, settings):
    """Return the probability of each class of objects, less that of the border, by class last."""
    chosen = object_classes(probabilities.shape[-1], settings)
    inside = probabilities[..., chosen]
    if settings.border is not None:
        inside = inside - probabilities[..., settings.border, None]
    return inside


def _seeds(foreground, inside, settings):
    """Return the numbered seeds, and the landscape that a watershed floods from them."""
    best = inside.argmax(-1)
    seeds = np.zeros(foreground.shape, "int32")
    landscape = -inside.max(-1)
    for label in range(inside.shape[-1]):
        sure = foreground & (best == label) & (inside[..., label] > settings.seed_threshold)
        if not sure.any():
            continue  # of what is flat `h_maxima` makes one maximum
        middles, depth = _middles(sure, settings)
        landscape = np.where(sure, -depth, landscape)
        seeds = np.where(middles > 0, middles + seeds.max(), seeds)
    return seeds, landscape


def _middles(sure, settings):
    """Return the numbered middles of what is surely inside, and how deep its pixels are."""
    from scipy import ndimage
    from skimage.morphology import h_maxima

    pieces, _ = ndimage.label(sure)
    areas = np.bincount(pieces.ravel())
    sure = sure & (areas >= settings.minimum_area / 4)[pieces]  # specks carve holes into objects
    depth = ndimage.distance_transform_edt(np.pad(sure, 1))[1:-1, 1:-1]
    # each pixel on an outline makes a ridge, and where ridges meet, a middle
    depth = ndimage.gaussian_filter(depth, SMOOTHING)
    touching = np.ones((3, 3))  # at corners, too, as `h_maxima` has it
    middles, count = ndimage.label(sure & (h_maxima(depth, settings.neck) > 0), touching)
    # what is nowhere as deep as a neck is a middle as a whole
    shallow = ~np.isin(pieces, pieces[middles > 0])
    return np.where(sure & shallow, pieces + count, middles), depth


def _add_seedless(seeds, foreground):
    """Make each connected part of the foreground without a seed a seed of its own."""
    from scipy import ndimage

    parts, count = ndimage.label(foreground)
    has_seed = np.isin(np.arange(count + 1), parts[seeds > 0])
    has_seed[0] = True  # the background
    alone = ~has_seed[parts]
    return np.where(alone, parts + seeds.max(), seeds)
