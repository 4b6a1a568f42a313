"""Damage files of every kind that the package reads, and see that each is read or refused.

    python tools/fuzz.py caffemodel --count 100000
    python tools/fuzz.py --count 1000 --keep damaged

Whole small files are damaged at random: bits, bytes and numbers changed, pieces removed, repeated,
moved and cut off, values of configurations replaced. A damaged file may load, to finite numbers, or
be refused in an error that the package promises, within a second and without much memory; a model
that was to take its weights is then as it was. Whatever else happens is printed, and the file is
kept. `--keep` keeps one file for each message too.
"""

import argparse
import io
import json
import logging
import re
import sys
import tempfile
import time
import warnings
import zipfile
from pathlib import Path

import keras
import numpy as np
import psutil
import tifffile
from keras import layers
from PIL import Image
from rich.console import Console
from rich.progress import track

from keras_fcn import UNet, load_model
from keras_fcn.arguments import check_choice
from keras_fcn.caffe import load_caffemodel
from keras_fcn.datasets.images import read_image
from keras_fcn.datasets.masks import read_mask
from keras_fcn.datasets.names import read_class_file
from keras_fcn.datasets.stacks import count_pages, read_stack
from keras_fcn.training.run import read_record
from keras_fcn.weights import load_file

SLOW = 1  # seconds of the processor that one file may take
LARGE = 2**28  # bytes by which the process may grow in all
MAX_PIXELS = 10**6
# what often lies at the edge of something, as bytes and as values of a configuration
EDGES = [b"\0", b"\xff", b"\x7f", b"\x80", b"\xff" * 4, b"\0" * 4, b"\xff" * 9 + b"\1", b"\n", b'"']
VALUES = [
    *"null true -1 0 1 2147483648 1e308 NaN [] {} [[]] [null]".split(),
    *('""', '"x"', '"../x"', '"Lambda"'),
]


# --- damage --------------------------------------------------------------------------------------


def damage(content, rng):
    """Return bytes with one to four changes."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        place, length = rng.integers(len(data) + 1), int(rng.geometric(0.1))
        change = rng.choice(["flip", "bytes", "edge", "remove", "repeat", "move", "cut"])
        if change == "flip" and place < len(data):
            data[place] ^= 1 << rng.integers(8)
        elif change == "bytes":
            data[place : place + length] = rng.bytes(length)
        elif change == "edge":
            edge = EDGES[rng.integers(len(EDGES))]
            data[place : place + len(edge)] = edge
        elif change == "remove":
            del data[place : place + length]
        elif change == "repeat":
            data[place:place] = data[place : place + length] * int(rng.integers(1, 50))
        elif change == "move":
            piece = data[place : place + length]
            del data[place : place + length]
            other = rng.integers(len(data) + 1)
            data[other:other] = piece
        elif change == "cut" and rng.random() < 0.3:
            del data[place:]
    return bytes(data)


def damage_values(config, rng):
    """Return a configuration in which one to three values, of any depth, are others."""
    config = json.loads(json.dumps(config))
    for _ in range(rng.integers(1, 4)):
        places = list(_places(config))
        if not places:
            return config
        holder, key = places[rng.integers(len(places))]
        if isinstance(holder, dict) and rng.random() < 0.2:
            del holder[key]
        else:
            holder[key] = json.loads(VALUES[rng.integers(len(VALUES))])
    return config


def _places(config):
    items = config.items() if isinstance(config, dict) else enumerate(config)
    for key, value in list(items):
        yield config, key
        if isinstance(value, dict | list):
            yield from _places(value)


def damage_json(content, rng):
    if rng.random() < 0.3:
        return damage(content, rng)
    return json.dumps(damage_values(json.loads(content), rng)).encode()


def damage_archive(content, rng):
    """Damage a `.keras` file: itself, or a member, which is then packed anew with a right sum."""
    if rng.random() < 0.2:
        return damage(content, rng)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(list(members))
    change = damage_json if name.endswith(".json") else damage
    members[name] = change(members[name], rng)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for member, data in members.items():
            archive.writestr(member, data)
    return packed.getvalue()


# --- kinds: whole files, how they are damaged, how they are read ----------------------------------


def bytes_of(suffix, write):
    """Return the bytes of the file that a function writes to the path that it is given."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"whole{suffix}")
        write(path)
        return path.read_bytes()


def varint(value):
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)


def field(number, content):
    """A field of Protobuf that holds bytes."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def fields(message):
    """Split a message of Protobuf into [(number, content)]; None if there are others than bytes."""
    found, place = [], 0

    def number():
        nonlocal place
        value = shift = 0
        while True:
            value |= (message[place] & 127) << shift
            place, shift = place + 1, shift + 7
            if message[place - 1] < 128:
                return value

    try:
        while place < len(message):
            tag, length = number(), number()
            if tag & 7 != 2 or place + length > len(message):
                return None
            found.append((tag >> 3, message[place : place + length]))
            place += length
    except IndexError:
        return None
    return found


def damage_message(content, rng):
    """Damage a message of Protobuf, or a field of it, around which all lengths are right."""
    parts = fields(content)
    if not parts or rng.random() < 0.1:
        return damage(content, rng)
    place = rng.integers(len(parts))
    number, inner = parts[place]
    change = rng.choice(["content", "number", "remove", "repeat"], p=[0.85, 0.05, 0.05, 0.05])
    if change == "content":
        parts[place] = number, damage_message(inner, rng)
    elif change == "number":
        parts[place] = int(rng.integers(1, 110)), inner
    elif change == "remove":
        del parts[place]
    else:
        parts[place:place] = [parts[place]] * int(rng.integers(1, 200))
    return b"".join(field(*part) for part in parts)


def caffemodels(model, rng):
    """Return files for a model of convolutions: old and new layers, packed and doubles."""
    files = []
    for message, name_field, blob_field in ((100, 1, 7), (2, 4, 6)):
        for number_field, kind in ((5, "<f4"), (8, "<f8")):
            net = b""
            for layer in model.layers:
                kernel, bias = (rng.normal(size=w.shape) for w in layer.get_weights())
                blobs = b""
                for array in (kernel.transpose(3, 2, 0, 1), bias):
                    shape = field(7, field(1, b"".join(map(varint, array.shape))))
                    numbers = field(number_field, array.astype(kind).tobytes())
                    blobs += field(blob_field, shape + numbers)
                net += field(message, field(name_field, layer.name.encode()) + blobs)
            files.append(net)
    return files


def into(model, load):
    """Return a function that loads a file into a model and looks at the model afterwards."""

    def read(path):
        before = model.get_weights()
        try:
            load(model, path)
        except ValueError:
            for old, new in zip(before, model.get_weights(), strict=True):
                assert np.array_equal(old, new), "the model is changed"
            raise
        assert all(np.isfinite(array).all() for array in model.get_weights()), "no finite numbers"
        model.set_weights(before)

    return read


def caffemodel(rng):
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Conv2D(2, 3, name="conv1"), layers.Conv2D(1, 1, name="fc6")]
    )
    return caffemodels(model, rng), damage_message, into(model, load_caffemodel), ".caffemodel"


def small_unet():
    return UNet(num_classes=2, filters=(2, 2))


def weights(_rng):
    model = small_unet()
    files = [bytes_of(".weights.h5", model.save_weights)]
    return files, damage, into(model, load_file), ".weights.h5"


def keras_file(_rng):
    return [bytes_of(".keras", small_unet().save)], damage_archive, load_model, ".keras"


def pictures(rng, form, modes, **options):
    pixels = rng.integers(0, 256, (9, 12, 4), dtype="uint8")
    for mode in modes:
        buffer = io.BytesIO()
        Image.fromarray(pixels).convert("RGB").convert(mode).save(buffer, form, **options)
        yield buffer.getvalue()


def tiffs(rng):
    for kind, options in (
        ("uint8", {}),
        ("uint16", {"compression": "zlib", "predictor": True}),
        ("float32", {"tile": (16, 16)}),
        ("uint8", {"compression": "lzw", "imagej": False, "rowsperstrip": 2}),
    ):
        buffer = io.BytesIO()
        array = rng.integers(0, 200, (9, 12, 3)).astype(kind)
        tifffile.imwrite(buffer, array, photometric="rgb", **options)
        yield buffer.getvalue()


def image(rng):
    files = [
        *pictures(rng, "PNG", ["RGB", "L", "P", "RGBA", "I;16", "1"]),
        *pictures(rng, "JPEG", ["RGB", "L", "CMYK"]),
        *pictures(rng, "GIF", ["P"]),
        *pictures(rng, "BMP", ["RGB"]),
        *pictures(rng, "WEBP", ["RGB"]),
        *tiffs(rng),
        bytes_of(".npy", lambda path: np.save(path, np.zeros((9, 12, 3), "uint8"))),
    ]

    def read(path):
        assert read_image(path, white=255, max_pixels=MAX_PIXELS).dtype == "uint8"

    return files, damage, read, ".png"


def stack(rng):
    files = []
    for kind, options in (("uint8", {}), ("uint16", {"compression": "zlib"}), ("float32", {})):
        buffer = io.BytesIO()
        with tifffile.TiffWriter(buffer) as file:
            for _ in range(3):
                page = rng.integers(0, 200, (9, 12)).astype(kind)
                file.write(page, photometric="minisblack", metadata=None, **options)
        files.append(buffer.getvalue())

    def read(path):
        if count_pages(path, 1) is None:
            read_image(path, white=255, max_pixels=MAX_PIXELS)
        else:
            pages = read_stack(path, 1, white=255, max_pixels=MAX_PIXELS)
            assert all(page.dtype == "uint8" for page in pages)

    return files, damage, read, ".tif"


def mask(rng):
    files = [
        *pictures(rng, "PNG", ["L", "P", "I;16", "1"]),
        *pictures(rng, "TIFF", ["L"], compression="tiff_lzw"),
        *pictures(rng, "GIF", ["L"]),
    ]

    def read(path):
        assert read_mask(path, max_pixels=MAX_PIXELS).ndim == 2

    return files, damage, read, ".png"


def classes(_rng):
    lines = [
        "label,name,red,green,blue",
        "0,water,0,0,255",
        "1,sand,250,220,130",
        "2,grass,0,160,0",
    ]
    plain = [line.split(",")[:2] for line in lines]
    files = ["\n".join(lines).encode(), "\n".join(map(",".join, plain)).encode()]
    return files, damage, read_class_file, ".csv"


def record(_rng):
    parameters = {"data": "photos", "epochs": 3, "filters": [4, 8], "class_weights": None}
    run = {"given": parameters, "parameters": parameters, "versions": {"keras": "3"}}

    def read(path):
        path.with_name("last.keras").touch()  # of a run that was interrupted
        read_record(path.parent, parameters, path.name)

    return [json.dumps(run).encode()], damage_json, read, ".json"


KINDS = {
    "caffemodel": caffemodel,
    "weights": weights,
    "keras": keras_file,
    "image": image,
    "stack": stack,
    "mask": mask,
    "classes": classes,
    "record": record,
}
# what the package promises to raise for a file that it cannot read
PROMISED = (ValueError, OSError)


# --- the trial -----------------------------------------------------------------------------------


class Outcome:
    """What happened to the files of one kind."""

    def __init__(self):
        self.read = self.refused = 0
        self.slowest = 0.0
        self.messages = {}  # what the message says: a file that it was said of
        self.faults = []  # (what happened, file)

    def add(self, content, error, seconds):
        self.slowest = max(self.slowest, seconds)
        if error is None:
            self.read += 1
        else:
            self.refused += 1
            self.messages.setdefault(skeleton(error), content)
        if error is not None and not is_promised(error):
            self.faults.append((f"{type(error).__name__}: {error}", content))
        elif seconds > SLOW:
            self.faults.append((f"took {seconds:.1f} s", content))


def is_promised(error):
    return isinstance(error, PROMISED) and not isinstance(error, UnicodeError) and str(error)


def skeleton(error):
    """Return what a message says, whatever numbers and names it holds."""
    text = str(error).replace("'s ", " ")
    text = re.sub(r"'[^']*'|\"[^\"]*\"|\[.*?\]|\(.*?\)|0x\w+|[-\d.,]*\d", "*", text)
    return f"{type(error).__name__}: {' '.join(text.split())[:200]}"


def try_file(read, path, content):
    """Read a file of these bytes; return the error, or None, and the seconds that it took."""
    path.write_bytes(content)
    error = None
    begin = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read(path)
    except Exception as raised:
        error = raised.with_traceback(None)
    return error, time.process_time() - begin


def fuzz(kind, count, seed, folder):
    """Read this many damaged files of a kind in a folder; return the `Outcome`."""
    rng = np.random.default_rng([seed, *kind.encode()])
    files, change, read, suffix = KINDS[kind](rng)
    path = Path(folder, f"damaged{suffix}")
    for content in files:
        error, _ = try_file(read, path, content)
        if error is not None:
            raise AssertionError(f"a whole file of {kind} does not load") from error
    outcome = Outcome()
    numbers = track(range(count), f"Damaging files: {kind}", console=Console(stderr=True))
    for _ in numbers:
        content = change(files[rng.integers(len(files))], rng)
        outcome.add(content, *try_file(read, path, content))
    return outcome


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)}; all")
    parser.add_argument("--count", type=int, default=1000, help="files of each kind; 1000")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for one file of each message")
    options = parser.parse_args()
    for kind in options.kinds:
        check_choice("kind", kind, KINDS)
    logging.disable()  # what tifffile says of every tag
    process, failed = psutil.Process(), False
    for kind in options.kinds or KINDS:
        with tempfile.TemporaryDirectory() as folder:
            before = process.memory_info().rss
            outcome = fuzz(kind, options.count, options.seed, folder)
            growth = process.memory_info().rss - before
        print(
            f"{kind}: {outcome.read} read, {outcome.refused} refused with "
            f"{len(outcome.messages)} messages, {len(outcome.faults)} faults, slowest "
            f"{outcome.slowest:.3f} s, memory {growth / 2**20:+.0f} MB"
        )
        failed |= bool(outcome.faults) or growth > LARGE
        kept = options.keep and list(outcome.messages.items())
        for number, (what, content) in enumerate([*outcome.faults, *(kept or [])]):
            place = (options.keep or Path(tempfile.gettempdir())) / f"{kind}{number}"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
            print(f"  {place}: {' '.join(what.split())[:200]}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
