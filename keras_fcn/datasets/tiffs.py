"""What a TIFF says of its pages: which are images, what is white, what is transparency."""

import contextlib
import lzma
import math
import re
import struct
import zlib
from collections.abc import Callable

import numpy as np

from keras_fcn.archives import holds_more
from keras_fcn.datasets.problems import FileError

TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
REDUCED, MASK = 1, 4  # bits of `NewSubfileType`
WHITE_IS_ZERO = 0  # a value of `PhotometricInterpretation`
# Compressions that tifffile unpacks by Python's own modules, however much there is in a piece.
UNPACKERS: dict[int, Callable] = dict.fromkeys((8, 32946, 50013), zlib.decompressobj)
UNPACKERS[34925] = lzma.LZMADecompressor
HARMLESS = 2**16  # bytes of a piece, which can hold no more than some tens of MB


@contextlib.contextmanager
def open_tiff(source):
    """Yield a TIFF as tifffile opens it, once its pages are known to come to an end.

    Args:
        source: path, or a file that is open.

    Raises:
        ValueError: for pages that lead back to one before, which tifffile would read forever.
    """
    import tifffile

    with tifffile.TiffFile(source) as file:
        with contextlib.suppress(struct.error):  # of a file that ends before its pages do
            _check_chain(file)
        yield file


def _check_chain(file):
    place, seen = file.pages.first.offset, set()
    while place:
        if place in seen:
            raise ValueError("its pages lead back to one before")
        seen.add(place)
        tags = _number(file, place, file.tiff.tagnosize, file.tiff.tagnoformat)
        place += file.tiff.tagnosize + tags * file.tiff.tagsize
        place = _number(file, place, file.tiff.offsetsize, file.tiff.offsetformat)


def _number(file, place, size, kind):
    file.filehandle.seek(place)
    return struct.unpack(kind, file.filehandle.read(size))[0]


def image_pages(file) -> list[int]:
    """Return the places of a TIFF's pages that are images of their own.

    Others are smaller copies of the one before, or tell which of its pixels are valid, as in
    a GeoTIFF with overviews.
    """
    return [n for n, page in enumerate(file.pages) if n == 0 or _is_image(page)]


def image_series(file) -> list:
    """Return the series of tifffile that are images of their own."""
    return [series for n, series in enumerate(file.series) if n == 0 or _is_image(series.keyframe)]


def _is_image(page):
    return not int(page.subfiletype) & (REDUCED | MASK)


def is_for_pillow(file, page, channels):
    """Whether Pillow reads all that the file holds: gray to 16 bits, 8-bit colours, palettes."""
    if len(image_pages(file)) > 1:  # bands where something says so; else Pillow tells of them
        says = file.is_imagej or file.is_ome or file.is_shaped
        return not says and channels in (None, 1, 3)
    if int(page.photometric) not in (0, 1, 2):  # not gray or RGB: palette, CMYK, YCbCr, Lab
        return True
    bits, samples = np.max(page.bitspersample), page.samplesperpixel
    unsigned = page.sampleformat in (1, None)
    is_rgb = samples == 3 and int(page.photometric) == 2
    return unsigned and (bits <= 16 if samples == 1 else bits <= 8 and is_rgb)


def pixels_of(series, path):
    """Return the pixels of a series of tifffile."""
    _check_pieces(series, path)
    try:
        pixels = series.asarray()
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
        fix = "Run `pip install imagecodecs`, or save the file without compression."
        raise FileError("unreadable", path, str(error), fix) from error
    if pixels.dtype.kind not in "biuf" or not pixels.size:
        raise FileError("unreadable", path, f"pixels of the type {pixels.dtype}")
    return pixels


def _check_pieces(series, path):
    """Raise for a tile, or rows, that would be unpacked to far more than their pixels."""
    unpacker = UNPACKERS.get(int(series.keyframe.compression))
    if unpacker is None:
        return
    room = math.prod(series.keyframe.chunks) * series.keyframe.dtype.itemsize
    for page in filter(None, series.pages):
        for place, count in zip(page.dataoffsets, page.databytecounts, strict=False):
            if count > HARMLESS:
                file = page.parent.filehandle
                file.seek(place)
                if holds_more(file.read(count), room, unpacker()):
                    raise FileError("unreadable", path, f"a piece of more than its {room:,} bytes")


def white_is_zero(page) -> bool:
    """Return whether a page of tifffile says that 0 is white."""
    return int(page.photometric) == WHITE_IS_ZERO


def white_is_high(page, pixels):
    """Return integer pixels of which the smallest is black, also where a TIFF has it as white."""
    turned = white_is_zero(page) and pixels.dtype.kind == "u"
    return np.iinfo(pixels.dtype).max - pixels if turned else pixels


def orientation_of(page) -> int:
    """Return the orientation of a page of tifffile, as EXIF numbers it."""
    turn = page.tags.get("Orientation")
    return 1 if turn is None else int(turn.value)


def has_alpha(page) -> bool:
    """Return whether the last band of a page of tifffile is transparency."""
    extra = page.tags.get("ExtraSamples")
    return extra is not None and np.atleast_1d(extra.value)[-1] in (1, 2)


def stated_white(file, page, pixels) -> int | None:
    """Return the largest value of the camera, where a file of 16 bits says it, else None."""
    if (pixels.dtype.kind, pixels.dtype.itemsize) != ("u", 2):
        return None
    tag = page.tags.get("MaxSampleValue")
    stated = [] if tag is None else np.atleast_1d(tag.value).tolist()
    stated.append((file.imagej_metadata or {}).get("max"))
    bits = re.search(r'SignificantBits="(\d+)"', file.ome_metadata or "")
    if bits:
        stated.append(2 ** int(bits[1]) - 1)
    cameras = [2**bits - 1 for bits in range(8, 17)]  # other numbers are of this image alone
    return max((int(n) for n in stated if n in cameras and n >= pixels.max()), default=None)
