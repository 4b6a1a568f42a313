"""Random transformations of an image together with its label map, inside `tf.data`."""

import dataclasses
import functools
import math

from keras_fcn.arguments import is_number, suggest

ELASTIC_GRID = 3  # U-Net paper, section 3.1
OUTSIDE = -1e6  # a place far outside of every image
FLIPS = ("horizontal", "vertical", "horizontal_and_vertical", "dihedral", None)
LIMITS = {
    "rotation": 180,
    "scale": 0.9,
    "contrast": 1,
    "brightness": 1,
    "elastic": 1000,  # crops are read with twice as much around them
    "saturation": 0.9,
    "hue": 1,
}


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Random transformations of images and their label maps.

    Images are resampled bilinearly and label maps by the nearest pixel, so that
    labels stay whole; where nothing was, images are 0 and label maps hold the
    ignore label. Pass it to `keras_fcn.datasets.load(..., augment=...)`, or map a
    dataset of your own:

        seeds = tf.data.Dataset.random(seed=0, rerandomize_each_iteration=True).batch(2)
        tf.data.Dataset.zip(dataset, seeds).map(
            lambda pair, seed: augmentation(*pair, seed=seed, ignore=255)
        )

    Every draw comes from the seed of the element, so the stream does not depend
    on threads or prefetching.

    Contrast, brightness, saturation and hue are Keras's layers `RandomContrast`,
    `RandomBrightness`, `RandomSaturation` and `RandomHue`; flips, rotation and scale
    are its `RandomFlip`, `RandomRotation` and `RandomZoom`, which move a map of the
    pixels' places, so that image and labels are each resampled once, at the same
    places, however many transformations there are. Elastic deformation is this module's
    own: `RandomElasticTransform` of Keras 3.15 deforms the image and its mask by
    different draws, moves pixels along one diagonal only, and has no grid: its `scale`
    s sets smoothed noise of a standard deviation that grows with the image, about 7.6 s
    pixels at 256 x 256. Here the displacements are the paper's: normal draws on a 3 x 3
    grid, interpolated bicubically.

    Args:
        flip: "horizontal", "vertical", "horizontal_and_vertical", "dihedral" (the eight
            flips and quarter turns, which blur nothing; a quarter turn swaps the sides
            of an image that is not square), or None.
        rotation: largest angle, in degrees, either way.
        scale: share by which the field of view grows or shrinks at most, below 1:
            at 0.25 objects become 0.8 to 1.33 times their size.
        contrast: share of the contrast taken away or added at most, up to 1.
        brightness: share of the range 0 to 255 taken away or added at most, up to 1.
        elastic: standard deviation of the displacements on the grid, in pixels, up to 1000;
            10 in the U-Net paper (section 3.1).
        saturation: at s the saturation is multiplied by (1 - s) / (1 + s) to
            (1 + s) / (1 - s), from below 1; of RGB images only.
        hue: share of half the colour circle by which hues turn at most, either way,
            up to 1; of RGB images only.

    Raises:
        ValueError: when an argument is out of its range, or colours of images
            without three channels are to change.

    Source: Ronneberger et al., U-Net, 2015, section 3.1 (elastic deformation).

    Example:

    >>> import tensorflow as tf
    >>> augmentation = Augmentation(flip="horizontal", rotation=10, elastic=10)
    >>> image, labels = tf.zeros((48, 64, 3), "uint8"), tf.ones((48, 64), "int32")
    >>> image, labels = augmentation(image, labels, seed=(0, 1), ignore=255)
    >>> image.shape, image.dtype.name, labels.dtype.name
    (TensorShape([48, 64, 3]), 'uint8', 'int32')
    """

    flip: str | None = "horizontal"
    rotation: float = 0
    scale: float = 0
    contrast: float = 0
    brightness: float = 0
    elastic: float = 0
    saturation: float = 0
    hue: float = 0

    def __post_init__(self):
        if self.flip not in FLIPS:  # its name is no option of the command line
            raise ValueError(
                f"`flip` should be one of {', '.join(map(str, FLIPS))}. Received: "
                f"flip={self.flip}.{suggest(self.flip, FLIPS)}"
            )
        for name, limit in LIMITS.items():
            _check_range(name, getattr(self, name), limit)

    def __call__(self, image, labels, seed, ignore=255, margin=0):
        """Transform one image and its label map.

        Args:
            image: uint8 tensor `(height, width, channels)`.
            labels: integer tensor `(height, width)`.
            seed: integer tensor of two numbers; the same seed, the same result.
            ignore: the label where nothing was.
            margin: pixels left out of the result at each side; transformed crops are
                cut out with a margin, from which pixels move in.

        Returns:
            uint8 tensor `(height - 2 * margin, width - 2 * margin, channels)` and
            int32 tensor `(height - 2 * margin, width - 2 * margin)`.
        """
        import tensorflow as tf

        if (self.saturation or self.hue) and image.shape[-1] != 3:
            raise ValueError(
                "`saturation` and `hue` are of RGB images. Received: images of "
                f"{image.shape[-1]} channels. Leave both out."
            )
        draws = _draws(seed)
        with tf.init_scope():  # Keras's layers make a variable, which tf.data's graphs must not
            of_values, of_places = self._layers
        image = tf.cast(tf.convert_to_tensor(image), "float32")
        height, width = tf.unstack(tf.shape(image)[:2])
        rows, columns = tf.range(height, dtype="float32"), tf.range(width, dtype="float32")
        places = tf.stack(tf.meshgrid(rows, columns, indexing="ij"), -1)  # (H, W, 2)
        if self.flip == "dihedral":  # transposed or not, times the flips below: eight
            places = _transpose_half(places, draws.next())
        places = _apply(of_places, places, draws)
        bottom, right = tf.unstack(tf.shape(places)[:2] - margin)
        places = places[margin:bottom, margin:right]
        if self.elastic:
            places += _displacements(tf.shape(places)[:2], self.elastic, draws.next())
        nearest = tf.cast(tf.round(places), "int32")
        inside = tf.reduce_all((nearest >= 0) & (nearest < (height, width)), -1)  # (H, W)
        labels = _sample_nearest(tf.cast(labels, "int32"), nearest)
        image = _apply(of_values, _sample_bilinear(image, places), draws)
        image = tf.where(inside[..., None], tf.round(tf.clip_by_value(image, 0, 255)), 0.0)
        return tf.cast(image, "uint8"), tf.where(inside, labels, ignore)

    def margin(self, crop_size):
        """Return how far from a crop its pixels come at most, apart from rare displacements.

        Args:
            crop_size: side of the crop, in pixels.

        Returns:
            number of pixels to cut around the crop before the transformation.
        """
        angle = math.radians(min(self.rotation, 45))
        reach = (1 + self.scale) * (math.cos(angle) + math.sin(angle))
        return math.ceil(crop_size * (reach - 1) / 2 + 2 * self.elastic)

    @functools.cached_property
    def _layers(self):
        """Return the Keras layers that change values, and those that change places."""
        from keras import layers

        # float32 under every policy: places are too large for half precision
        options = {"dtype": "float32"}
        outside = {"fill_mode": "constant", "fill_value": OUTSIDE, **options}
        of_values, of_places = [], []
        if self.contrast:
            of_values.append(layers.RandomContrast(self.contrast, **options))
        if self.brightness:
            of_values.append(layers.RandomBrightness(self.brightness, **options))
        if self.saturation:
            # Keras: 0.5 changes nothing, and the range is that of the saturation
            factor = (0.5 - self.saturation / 2, 0.5 + self.saturation / 2)
            saturation = layers.RandomSaturation(factor, value_range=(0, 1), **options)
            of_values.append(saturation)
        if self.hue:
            of_values.append(layers.RandomHue(self.hue, **options))
        # a layer each: for both axes Keras draws once, and turns by 180 degrees or not at all
        for axis in ("horizontal", "vertical"):
            if self.flip in (axis, "horizontal_and_vertical", "dihedral"):
                of_places.append(layers.RandomFlip(axis, **options))
        if self.rotation:
            of_places.append(layers.RandomRotation(self.rotation / 360, **outside))
        if self.scale:
            of_places.append(layers.RandomZoom(self.scale, **outside))
        return of_values, of_places


def check_augmentation(augment) -> None:
    """Raise for what is neither an `Augmentation` nor None."""
    if not isinstance(augment, Augmentation | None):
        example = Augmentation(None, scale=0.25)
        raise ValueError(
            f"`augment` should be an `Augmentation`, or None. Received: {augment!r}. Pass for "
            f"example `keras_fcn.datasets.{example}`."
        )


def _check_range(name, value, limit):
    if not is_number(value) or not 0 <= value <= limit:
        raise ValueError(
            f"`{name}` should be a number from 0 to {limit}. Received: {name}={value!r}"
        )


def _draws(seed):
    """Return a generator of seeds that Keras's layers take in place of their own."""
    import keras
    import tensorflow as tf

    class Draws(keras.random.SeedGenerator):
        """The seeds of one element: functions of its seed, with no state between elements."""

        def __init__(self):
            self.count = 0

        def next(self, ordered=True):  # noqa: ARG002 Keras names it
            self.count += 1
            return tf.random.fold_in(tf.cast(seed, "int32"), self.count)

    return Draws()


def _apply(layers, pixels, draws):
    """Apply Keras layers to pixels, or to a map of places, (H, W, C)."""
    pixels = pixels[None]
    for layer in layers:
        layer.backend.set_backend("tensorflow")  # tf.data runs on it under every backend
        transformation = layer.get_random_transformation(pixels, training=True, seed=draws)
        pixels = layer.transform_images(pixels, transformation)
        layer.backend.reset()
    return pixels[0]


def _transpose_half(places, seed):
    """Return the places (H, W, 2), or by chance the other way round, (W, H, 2)."""
    import tensorflow as tf

    turned = tf.random.stateless_uniform((), seed) < 0.5
    return tf.cond(turned, lambda: tf.transpose(places, (1, 0, 2)), lambda: places)


def _displacements(size, deviation, seed):
    """Return a smooth random field (H, W, 2), in pixels."""
    import tensorflow as tf

    grid = deviation * tf.random.stateless_normal((1, ELASTIC_GRID, ELASTIC_GRID, 2), seed)
    return tf.image.resize(grid, size, method="bicubic")[0]


def _sample_nearest(labels, places):
    """Return the labels (H, W) at integer places (H, W, 2), and outside those of the edge."""
    import tensorflow as tf

    row, column = tf.unstack(tf.clip_by_value(places, 0, tf.shape(labels) - 1), axis=-1)
    return tf.gather(tf.reshape(labels, [-1]), row * tf.shape(labels)[1] + column)


def _sample_bilinear(image, places):
    """Return the pixels (H, W, C) at the places (H, W, 2), and outside those of the edge."""
    import tensorflow as tf

    size = tf.shape(image)[:2]
    corner = tf.floor(places)
    down, right = tf.unstack(places - corner, axis=-1)
    corner = tf.cast(corner, "int32")
    top, left = tf.unstack(tf.clip_by_value(corner, 0, size - 1), axis=-1)
    bottom, beside = tf.unstack(tf.clip_by_value(corner + 1, 0, size - 1), axis=-1)
    top, bottom = top * size[1], bottom * size[1]
    # the four neighbours in one gather, which is three times as fast as four
    indices = tf.stack([top + left, top + beside, bottom + left, bottom + beside])  # (4, H, W)
    up, close = 1 - down, 1 - right
    weights = tf.stack([up * close, up * right, down * close, down * right])  # (4, H, W)
    neighbours = tf.gather(tf.reshape(image, (-1, image.shape[-1])), indices)  # (4, H, W, C)
    return tf.reduce_sum(neighbours * weights[..., None], 0)
