"""Networks that compute in integers of 8 bits, by OpenVINO's NNCF and images of the user.

NNCF runs the network on these images, and spreads the 256 integers over the numbers that it sees
in each map. So they should be like those that the network is for.
"""

import contextlib
import dataclasses
import hashlib
import io
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from keras_fcn.datasets.files import SUFFIXES, natural_order
from keras_fcn.datasets.images import read_image
from keras_fcn.datasets.stacks import count_pages, read_stack
from keras_fcn.inference.images import check_image
from keras_fcn.inference.progress import track
from keras_fcn.inference.tiles import View, takes_size
from keras_fcn.label_maps import to_labels
from keras_fcn.remedies import choose, given, spell

LEAST, MOST = 10, 20  # images to calibrate on; of more, so many evenly spread ones are taken
SIDE = 512  # pixels; of a larger image a part is taken
CPUINFO = Path("/proc/cpuinfo")
# Instructions that multiply and add integers of 8 bits at once: of Intel and AMD, and of ARM.
INSTRUCTIONS = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"}
# What may differ from Keras's scores: on average, as a share of their scale; and of the pixels
# whose first class leads by a tenth of that, the share with another label.
MEAN_TOLERANCE = 0.02
LEAD = 0.1
OTHER_LABELS = 0.02


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Images for `precision="int8"`, in a folder.

    Args:
        folder: folder of at least 10 images such as the network is for; those in folders
            below do not count. Stacks are as many images as they have pages.
        white, max_pixels: as in `keras_fcn.datasets.images.read_image`.
    """

    folder: Path
    white: float | None = None
    max_pixels: int | None = None

    def files(self) -> list[Path]:
        """Return the paths of the images that count.

        Raises:
            NotADirectoryError: when there is no such folder.
        """
        folder = Path(self.folder)
        if not folder.is_dir():
            raise NotADirectoryError(
                f"{spell('calibration')} should be a folder of images such as the network is for. "
                f"Received: '{folder}', and there is no such folder."
            )
        files = [
            path
            for path in folder.iterdir()
            if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
        ]
        return _spread(sorted(files, key=natural_order))

    def read(self, channels: int) -> list[np.ndarray]:
        """Return the images, large ones in part, as uint8 arrays `(height, width, channels)`.

        Raises:
            NotADirectoryError: when there is no such folder.
            ValueError: for a file that is no image, or of other channels.
        """
        options: dict = {"channels": channels, "white": self.white, "max_pixels": self.max_pixels}
        images = []
        for path in self.files():
            pages = count_pages(path, channels)
            if pages is None:
                images.append(cut(read_image(path, **options)))
                continue
            wanted = set(_spread(range(pages)))
            stack = enumerate(read_stack(path, **options))
            images += [cut(image) for number, image in stack if number in wanted]
        return _spread(images)


def as_calibration(calibration, white: float | None = None, max_pixels: int | None = None):
    """Return a path as a `Calibration`, and what is none as it is."""
    if isinstance(calibration, str | Path):
        return Calibration(Path(calibration).absolute(), white, max_pixels)
    return calibration


def key(calibration) -> tuple | Calibration | None:
    """Return what a calibration is known by: of a list of arrays by which they are."""
    known = as_calibration(calibration)
    if known is None or isinstance(known, Calibration):
        return known
    return tuple(map(id, held(known)))


def held(calibration) -> tuple:
    """Return the objects of a calibration, which `key` tells apart as long as they live."""
    return tuple(calibration) if isinstance(calibration, list | tuple) else (calibration,)


def check_calibration(precision: str, calibration) -> None:
    """Raise for images to calibrate on without "int8", and for the reverse."""
    if precision == "int8" and calibration is None:
        raise ValueError(
            "A network in integers of 8 bits needs images that it is calibrated on. Received: "
            f"no {spell('calibration')}. Pass a folder of at least {LEAST} images such as the "
            f"network is for, as {spell('calibration', 'photos')}."
        )
    if precision != "int8" and calibration is not None:
        remedy = choose('`precision="int8"`', "`--precision int8`, to export `--int8`")
        raise ValueError(
            f"{spell('calibration')} is for integers of 8 bits. Received: "
            f"{given('precision', precision)}. Pass {remedy}, or leave it out."
        )


def fingerprint_of(calibration) -> str | None:
    """Return a sha256 of a calibration's images, in hexadecimal; None of none."""
    known = key(calibration)
    if known is None:
        return None
    digest = hashlib.sha256()
    if isinstance(known, Calibration):
        digest.update(f"{known.white}".encode())
        for path in known.files():
            digest.update(path.read_bytes())
    else:
        for image in _spread(calibration):
            digest.update(np.asarray(image).tobytes())
    return digest.hexdigest()


def calibration_images(
    model: keras.Model, calibration: "str | Path | Calibration | Sequence"
) -> list[np.ndarray]:
    """Return images as a model sees them, to calibrate it on.

    Args:
        model: Keras model.
        calibration: a folder, as a path or as `Calibration`, or a list of arrays as
            `predict_image` takes them.

    Returns:
        List of float32 arrays `(1, height, width, channels)`.

    Raises:
        NotADirectoryError: when there is no such folder.
        ValueError: for fewer than 10 images, and what `predict_image` does not take.
    """
    calibration = as_calibration(calibration)
    if isinstance(calibration, Calibration):
        images, where = calibration.read(model.inputs[0].shape[-1]), f"'{calibration.folder}'"
    else:
        images, where = [cut(image) for image in _spread(calibration)], "the list"
    if len(images) < LEAST:
        raise ValueError(
            f"{spell('calibration')} should hold at least {LEAST} images such as the network is "
            f"for. Received: {len(images)} in {where}. Add images; they need no masks."
        )
    batches = [View(model, check_image(image, model)).crop()[None] for image in images]
    small = next((batch.shape for batch in batches if not takes_size(model, batch.shape[1:3])), ())
    if small:
        raise ValueError(
            f"The images of {spell('calibration')} should be as large as the model's window. "
            f"Received: one of {small[1]}x{small[2]} pixels. Leave the small ones out."
        )
    return batches


def cut(image: np.ndarray) -> np.ndarray:
    """Return a part of an image of at most 512 pixels a side, from anywhere, always the same."""
    rng = np.random.default_rng(0)
    places = []
    for size in image.shape[:2]:
        start = int(rng.integers(max(0, size - SIDE) + 1))
        places.append(slice(start, start + SIDE))
    return np.asarray(image[tuple(places)])


def _spread(items):
    """Return at most `MOST` of the items, evenly spread."""
    items = list(items)
    step = max(1, len(items) / MOST)
    return [items[int(number * step)] for number in range(min(len(items), MOST))]


def check_processor() -> None:
    """Raise where the processor is known to have no instructions for integers of 8 bits."""
    words = set(CPUINFO.read_text().split()) if CPUINFO.exists() else set()
    if words and not words & INSTRUCTIONS:
        raise ValueError(
            f"{spell('precision')} should be one that the processor computes in. Received: "
            f"{given('precision', 'int8')}, and this processor has no instructions for it (VNNI). "
            "Leave it out."
        )


def quantize(network, batches: list[np.ndarray]):
    """Return a network of OpenVINO whose convolutions compute in integers of 8 bits.

    But for the first, which costs little, and by which most is lost: in 8 bits the shipped
    `unet_camvid` loses 0.6 points of mean IoU, and 0.04 with the first in float32.

    Args:
        network: `openvino.Model`, which is changed.
        batches: of `calibration_images`.

    Raises:
        ImportError: when NNCF is missing.
    """
    with without_torch(), contextlib.redirect_stdout(io.StringIO()):  # its own bars
        import nncf

        logging.getLogger("nncf").setLevel(logging.ERROR)
        return nncf.quantize(
            network,
            nncf.Dataset(_Shown(batches)),
            subset_size=len(batches),
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(names=_convolutions(network)[:1]),
        )


def _convolutions(network):
    """Return the names of a network's convolutions, in order."""
    return [
        operation.get_friendly_name()
        for operation in network.get_ordered_ops()
        if "Convolution" in operation.get_type_name()
    ]


@contextlib.contextmanager
def without_torch():
    """Let torch be as if it were not installed, within the block.

    NNCF asks whether a network is torch's, and imports for that what after TensorFlow's import is
    a segmentation fault.
    """
    known = sys.modules.get("torch")
    sys.modules["torch"] = None
    try:
        yield
    finally:
        del sys.modules["torch"]
        if known is not None:
            sys.modules["torch"] = known


@dataclasses.dataclass(frozen=True)
class _Shown:
    """Images that NNCF goes through, more than once, with a bar where that takes long."""

    batches: list

    def __iter__(self):
        return track(self.batches, "Calibrating")


def check_quantized(model: keras.Model, function, images: np.ndarray) -> float:
    """Return the largest difference of a quantized network's scores to Keras's.

    Args:
        model: Keras model.
        function: the network as a function of batches.
        images: float32 `(1, height, width, channels)`, one of those it is calibrated on.

    Raises:
        ValueError: unless it gives about Keras's scores, and its labels.
    """
    expected = keras.ops.convert_to_numpy(model(images, training=False))
    received = function(images)
    mean, other = np.inf, 1.0
    if received.shape == expected.shape and np.isfinite(received).all():
        scale = max(abs(expected).max(), 1e-6)
        mean = abs(received - expected).mean() / scale
        clear = _lead(expected) > LEAD * scale
        other = np.mean((to_labels(received) != to_labels(expected))[clear]) if clear.any() else 0
    if mean > MEAN_TOLERANCE or other > OTHER_LABELS:
        raise ValueError(
            "In integers of 8 bits the scores should be about Keras's. Received: scores of "
            f"{model.name!r} that differ by {mean:.2g} of their scale on average on one of the "
            f"images of {spell('calibration')}, and another label at {other:.1%} of the clear "
            "pixels. Do without, or calibrate on other images."
        )
    return float(abs(received - expected).max())


def _lead(scores):
    """Return by how much the label's score leads, (batch, rows, columns)."""
    if scores.shape[-1] == 1:  # of a sigmoid: from the threshold
        return 2 * abs(scores[..., 0] - 0.5)
    return np.ptp(np.partition(scores, -2, axis=-1)[..., -2:], axis=-1)
