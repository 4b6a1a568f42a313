"""What the classes of a model are: names, colours, the void label, thresholds of objects."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from keras_fcn.arguments import as_label


def voc_palette(num_classes: int) -> np.ndarray:
    """Return the PASCAL VOC colours.

    Args:
        num_classes: number of classes; the colours repeat after 256.

    Returns:
        uint8 array `(num_classes, 3)`, RGB; the first is black.

    Source: the VOC development kit, `VOClabelcolormap`: the bits of the class
    number, lowest first, are the highest bits of red, green and blue in turn.

    Example:

    >>> voc_palette(3).tolist()
    [[0, 0, 0], [128, 0, 0], [0, 128, 0]]
    """
    classes = np.arange(num_classes)[:, None]
    channels = np.arange(3)
    bits = [((classes >> (3 * bit + channels)) & 1) << (7 - bit) for bit in range(8)]
    return np.sum(bits, axis=0).astype("uint8")


def unique(names: Iterable[str]) -> list[str]:
    """Return names, of those that come twice with their places.

    Example:

    >>> unique(["sky", "car", "car"])
    ['sky', 'car (1)', 'car (2)']
    """
    names = list(names)
    while len(set(names)) < len(names):  # again where one is called as another with its place
        names = [
            f"{name} ({place})" if names.count(name) > 1 else name
            for place, name in enumerate(names)
        ]
    return names


def _as_array(colors):
    try:
        return np.asarray(colors)
    except ValueError:  # of several lengths
        return np.asarray(colors, dtype=object)


@dataclasses.dataclass(frozen=True)
class Classes:
    """The classes of a model or a data set.

    Args:
        names: one text a class.
        colors: one `(red, green, blue)` a class, integers in [0, 255]; by default
            those of PASCAL VOC.
        ignore: the label of void pixels, or None.
        data: what the model learned from, or None.
        objects: settings of `keras_fcn.inference.find_objects` for this model, or None.

    Raises:
        ValueError: when names and colours differ in number, or a colour is none.

    Example:

    >>> Classes(("road", "car"), ignore=255).colors
    ((0, 0, 0), (128, 0, 0))
    """

    names: Sequence[str]
    colors: Sequence[Sequence[int]] | None = None
    ignore: int | None = None
    data: str | None = None
    objects: dict | None = None

    def __post_init__(self):
        names = tuple(map(str, self.names))
        colors = voc_palette(len(names)) if self.colors is None else _as_array(self.colors)
        whole = np.issubdtype(colors.dtype, np.integer) and names
        if colors.shape != (len(names), 3) or not whole or colors.min() < 0 or colors.max() > 255:
            raise ValueError(
                "Each class should have a name and a colour of three integers in [0, 255]. "
                f"Received: {len(names)} names, and colours of the shape {colors.shape} and dtype "
                f"{colors.dtype}, {colors.tolist()}"
            )
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "colors", tuple(map(tuple, colors.tolist())))
        object.__setattr__(self, "ignore", as_label("ignore", self.ignore))
        if self.objects is not None:  # as JSON stores it
            objects = {
                name: value.tolist() if isinstance(value, np.generic) else value
                for name, value in self.objects.items()
            }
            object.__setattr__(self, "objects", objects)

    def __len__(self):
        return len(self.names)

    @property
    def palette(self) -> np.ndarray:
        """The colours as a uint8 array `(num_classes, 3)`."""
        return np.array(self.colors, "uint8")

    @classmethod
    def default(cls, count: int) -> "Classes":
        """Return classes of which nothing is known: numbers, in the colours of PASCAL VOC."""
        return cls([f"class {label}" for label in range(count)])

    def to_config(self) -> dict:
        """Return a dict as JSON stores it."""
        return {
            "names": list(self.names),
            "colors": self.palette.tolist(),
            "ignore": self.ignore,
            "data": self.data,
            "objects": self.objects,
        }

    @classmethod
    def from_config(cls, config: dict) -> "Classes":
        """Return the classes that `to_config` gave.

        Raises:
            ValueError: for a dict that is another.
        """
        try:
            return cls(**config)
        except (TypeError, AttributeError, OverflowError) as error:
            raise ValueError(
                f"Classes should be stored as `to_config` gives them. Received: {config!r}"
            ) from error
