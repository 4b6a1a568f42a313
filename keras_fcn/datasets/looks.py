"""What images and masks look like together, which tells when they may be something else."""

import hashlib

import numpy as np

from keras_fcn.datasets.doubts import is_dark, largest_pixel

FEW = 32  # values: more than a mask of classes has, less than an image
OBJECTS = 3  # at least, of a mask that may be an instance map


class Palette:
    """Notes palette files, and indices whose colour changes from file to file."""

    def __init__(self):
        self.colors, self.first = {}, {}  # of each index, and the file where it was first

    def note(self, found, path, palette):
        if palette is None:
            return
        found["palette"].append(str(path))
        for label, color in palette.items():
            if self.colors.setdefault(label, color) != color:
                found["palettes differ"].append(
                    f"{path}, index {label} is {color}, and {self.colors[label]} in "
                    f"{self.first[label]}"
                )
                return
            self.first.setdefault(label, path)


class Copies:
    """Notes images whose pixels are in several files."""

    def __init__(self, splits):
        self.splits, self.paths = splits, {}  # {image path: split}, {hash: image paths}

    def note(self, image, path):
        pixels = hashlib.blake2b(np.ascontiguousarray(image), digest_size=16).digest()
        self.paths.setdefault((image.shape, pixels), []).append(path)

    def tell(self, found):
        """Note those in several splits before others."""
        copies = [paths for paths in self.paths.values() if len(paths) > 1]
        copies.sort(key=lambda paths: len({self.splits.get(path) for path in paths}), reverse=True)
        found["copies"] += [" and ".join(map(self._name, paths)) for paths in copies]

    def _name(self, path):
        split = self.splits.get(path)
        return f"{path} (of {split!r})" if split else str(path)


class Looks:
    """Notes what images and masks look like, to tell when they may be something else."""

    def __init__(self, ignore):
        self.ignore = ignore
        self.deep = []  # the largest pixel of images of more than 8 bits
        self.plain_images = self.images = self.rich_masks = 0
        self.numbered, self.numbers = True, set()  # objects in each mask, as far as seen

    def is_dark(self):
        return bool(self.deep) and is_dark(max(self.deep))

    def note_image(self, image, raster):
        self.images += 1
        self.plain_images += len(np.unique(image)) <= FEW
        largest = largest_pixel(raster)
        if largest is not None:
            self.deep.append(largest)

    def note_mask(self, labels, counts):
        self.rich_masks += len(counts) > 2 * FEW
        numbers = counts.keys() - {0, self.ignore}
        if self.numbered and numbers:
            self.numbered = min(numbers) == 1 and _regions(labels, numbers) == len(numbers)
            self.numbers.add(len(numbers))

    def tell(self, found, unknown):
        """Note images and masks that were swapped, and masks that number objects."""
        colored = sum(len(found[kind]) for kind in ("lossy", "rgb", "gray as rgb"))
        if 0 < self.images == self.plain_images == self.rich_masks + colored:
            found["swapped"].append(f"{self.images} masks of many values or colours")
        if unknown and self.numbered and len(self.numbers) > 1 and max(self.numbers) >= OBJECTS:
            found["objects"].append(f"{min(self.numbers)} to {max(self.numbers)} in a mask")


def _regions(labels, numbers):
    """Return the number of connected regions of the objects."""
    from skimage.measure import label

    return label(np.where(np.isin(labels, list(numbers)), labels, 0), connectivity=2).max()
