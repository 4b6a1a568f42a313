"""What is written of a prediction, and as files of which kind."""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from keras_fcn.arguments import suggest
from keras_fcn.atomic import parse_json, replacing
from keras_fcn.inference.addresses import opened
from keras_fcn.inference.ledger import RECORD
from keras_fcn.inference.memory import release
from keras_fcn.remedies import choose, spell

KINDS = ("labels", "overlay", "objects", "outlines", "probabilities")
SUFFIXES = (".png", ".tif", ".tiff", ".npy")
DEFAULT = ("labels", "overlay")
WITH_OBJECTS = ("objects", "outlines")
TILE = (256, 256)  # of a TIFF
LARGE = 2**31  # bytes of pixels from which on a TIFF has offsets of 64 bits
GEO_TAGS = (33550, 33922, 34264, 34735, 34736, 34737)  # of GeoTIFF: where on Earth the pixels are


def parse_formats(output_format: str | Iterable[str] | None, objects: bool = False) -> dict:
    """Return {kind: suffix} of what is to be written.

    Args:
        output_format: kinds, each alone or with the suffix of its file, as "labels.tif"; by
            default label maps and overlays. Without a suffix it is a PNG file, and a TIFF file
            of probabilities.
        objects: whether objects and their outlines are written too.

    Raises:
        ValueError: for another kind or suffix, and one kind twice.

    Example:

    >>> parse_formats(["labels", "probabilities.npy"])
    {'labels': '.png', 'probabilities': '.npy'}
    """
    given = [output_format] if isinstance(output_format, str) else output_format
    formats = {}
    for name in DEFAULT if given is None else given:
        kind, suffix = parse_format(name)
        if kind in formats:
            raise ValueError(
                f"{spell('output_format')} takes each kind once. Received: {kind} twice."
            )
        formats[kind] = suffix
    if objects:
        formats = {**dict.fromkeys(WITH_OBJECTS, ".png"), **formats}
    if not formats:
        raise ValueError(
            f"{spell('output_format')} should be one or more of {', '.join(KINDS)}. Received: none."
        )
    return {kind: formats[kind] for kind in KINDS if kind in formats}


def parse_format(name: str) -> tuple[str, str]:
    """Return the kind and the suffix of a format, as "labels.tif".

    Raises:
        ValueError: for another kind or suffix.
    """
    kind, dot, suffix = str(name).partition(".")
    if kind not in KINDS:
        raise ValueError(
            f"{spell('output_format')} should be one or more of {', '.join(KINDS)}. Received: "
            f"{name!r}.{suggest(kind, KINDS)}{choose('', ' The images come before it.')}"
        )
    suffix = dot + suffix or (".tif" if kind == "probabilities" else ".png")
    takes = SUFFIXES[1:] if kind == "probabilities" else SUFFIXES
    if suffix not in takes:
        raise ValueError(
            f"{spell('output_format')} writes {kind} as {', '.join(takes)}. Received: {name!r}. "
            f"Pass {spell('output_format', kind + '.tif')}."
        )
    return kind, suffix


def is_ours(path: Path, output: Path, name: str) -> bool:
    """Return whether an existing file is one that this package wrote.

    Args:
        path: file.
        output: folder of the predictions, whose record says what is written there: a `.npy`
            has no room for a mark.
        name: the file's format, as "labels.npy".
    """
    from keras_fcn.visualize.pictures import is_ours as is_our_picture

    if path.suffix == ".png":
        return is_our_picture(path)
    if path.suffix == ".npy":
        return is_recorded(output, name)
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            return file.pages.first.software == "keras_fcn"
    except (OSError, ValueError, LookupError, tifffile.TiffFileError):
        return False


def is_recorded(output: Path, name: str) -> bool:
    """Return whether the record of a folder says that files of a format are written there."""
    try:
        return name in parse_json((output / RECORD).read_text())["output_format"]
    except (OSError, ValueError, LookupError, TypeError):
        return False


def is_tiff(place: str) -> bool:
    """Return whether an address has the suffix of a TIFF file."""
    return place.lower().endswith((".tif", ".tiff"))


@contextlib.contextmanager
def writing(path: Path, pages: int | None = None):
    """Yield a function that writes an image of a file, which has its name when the block ends.

    The function takes an array `(height, width)` or `(height, width, channels)`; as `palette`
    the colours `(classes, 3)` of its numbers, and as `tags` those of `geo_tags`. What a file
    of the kind has no room for is left out.

    Args:
        path: file with one of the `SUFFIXES`.
        pages: how many images it will hold, for a stack.
    """
    with replacing(path) as beside, contextlib.ExitStack() as stack:
        if path.suffix == ".png":
            yield lambda array, palette=None, **_: _write_png(beside, array, palette)
        elif path.suffix == ".npy":
            yield _npy_writer(path, beside, pages)
        else:
            yield _tiff_writer(beside, pages or 1, stack)


def write_tiled(path: Path, array: np.ndarray, palette=None) -> None:
    """Write an array that memory may not hold into a TIFF file, a row of tiles at a time.

    Args:
        path: file to write.
        array: array `(height, width)` or `(height, width, channels)`, as a `numpy.memmap`.
        palette: colours `(classes, 3)` of its numbers.
    """
    import tifffile

    array = array[..., 0] if array.shape[2:] == (1,) else array
    with (
        replacing(path) as beside,
        tifffile.TiffWriter(beside, bigtiff=array.nbytes > LARGE) as writer,
    ):
        look = {"shape": array.shape, "dtype": array.dtype, **_tiff_options(array, palette)}
        writer.write(_tiles(array), **look)


def _tiles(array):
    """Yield the tiles of an array, those at its end filled up."""
    height, width = TILE
    for top in range(0, array.shape[0], height):
        band = np.array(array[top : top + height])
        release(array)
        for left in range(0, array.shape[1], width):
            part = band[:, left : left + width]
            tile = np.zeros((height, width, *array.shape[2:]), array.dtype)
            tile[: part.shape[0], : part.shape[1]] = part
            yield tile


def geo_tags(place: Path | str) -> list:
    """Return the tags of a GeoTIFF that say where it is on Earth, as tifffile takes them.

    Of any other file, and of one that is turned when it is read, the list is empty. Of an
    address the name says whether it may be one.
    """
    import tifffile

    if isinstance(place, str) and not is_tiff(place):
        return []
    try:
        with opened(place) as stream, tifffile.TiffFile(stream) as file:
            tags = file.pages.first.tags
            turn = tags.get("Orientation")
            if turn is not None and turn.value != 1:
                return []
            found = [tags[code] for code in GEO_TAGS if code in tags]
            return [(tag.code, tag.dtype, tag.count, tag.value, True) for tag in found]
    except (OSError, ValueError, LookupError, tifffile.TiffFileError):
        return []


def _write_png(path, array, palette):
    from PIL import Image

    from keras_fcn.visualize import write_png

    if array.dtype == np.uint32:
        raise ValueError(
            f"A PNG file has 16 bits, so it holds 65535 objects at most. Received: {array.max()}. "
            f"Write another, by {spell('output_format', 'objects.tif')}."
        )
    picture = Image.fromarray(array)
    if palette is not None:
        picture.putpalette(np.asarray(palette, "uint8").tobytes())
    write_png(path, picture)


def _npy_writer(path, beside, pages):
    made = []

    def write(array, **_):
        if not pages:
            np.save(beside, array)
            return
        if not made:
            shape = (pages, *array.shape)
            made.append(create_npy(beside, array.dtype, shape))
            made.append(0)
        if made[0].shape[1:] != array.shape:
            raise ValueError(
                f"An .npy file holds images of one size. Received: pages of {made[0].shape[1:3]} "
                f"and {array.shape[:2]} pixels for '{path.name}'. Write TIFF, as "
                f"{spell('output_format', 'labels.tif')}."
            )
        made[0][made[1]] = array
        made[1] += 1

    return write


def create_npy(path: Path, dtype: np.dtype, shape: tuple) -> np.memmap:
    """Make a file of an array, with its room on the disk: a full one would end the process."""
    array = np.lib.format.open_memmap(path, "w+", dtype, shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, array.offset + array.nbytes)
    return array


def _tiff_writer(beside, pages, stack):
    made = []

    def write(array, palette=None, tags=()):
        import tifffile

        array = array[..., 0] if array.shape[2:] == (1,) else array
        if not made:
            large = pages * array.nbytes > LARGE
            made.append(stack.enter_context(tifffile.TiffWriter(beside, bigtiff=large)))
        made[0].write(array, extratags=tags, **_tiff_options(array, palette))

    return write


def _tiff_options(array, palette):
    """Return how tifffile writes an array."""
    options = {"tile": TILE, "compression": "zlib", "software": "keras_fcn", "metadata": None}
    if palette is not None:
        colors = np.zeros((3, 256), "uint16")
        colors[:, : len(palette)] = np.transpose(palette).astype("uint16") * 257
        return {**options, "photometric": "palette", "colormap": colors}
    if array.ndim == 2:
        return {**options, "photometric": "minisblack"}
    rgb = array.dtype == np.uint8 and array.shape[2] == 3
    return {
        **options,
        "photometric": "rgb" if rgb else "minisblack",
        "planarconfig": "contig",
    }
