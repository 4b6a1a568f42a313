"""Kill what the package does at random moments, as `kill -9` does, and see that nothing is lost.

    python tools/kills.py --kills 20
    python tools/kills.py train tune --kills 5 --seed 3

Each kind of work is done once to its end. Then it is begun in a fresh folder, killed at random,
and begun again by the same call until it ends, until there were so many kills. After each kill
what bears its final name is whole; at the end the files are those of the work that was left alone,
with the same content but for what tells times, and nothing lies beside them.
"""

import argparse
import csv
import functools
import http.server
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import tifffile
from fuzz import field, varint
from PIL import Image

import keras_fcn
from keras_fcn import caffe, vgg16
from keras_fcn.arguments import check_choice
from keras_fcn.atomic import PREFIX
from keras_fcn.commands import main as keras_fcn_command

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["keras_fcn.training", "keras_fcn.tuning", "keras_fcn.exports"])
BOARD = "tensorboard"  # folder of files that TensorBoard names by the time
WORK = "work"  # folder of what is written, in the folder of the trial
TIMES = {"seconds", "begun", "ended", "date"}  # columns and entries that differ
EXPORTED = (".pb", ".onnx", ".tflite", ".xml")
SMALL = ["--crop-size", "16", "--batch-size", "2"]


# --- what is killed ------------------------------------------------------------------------------


def command(*words):
    """Return a function that runs `keras-fcn`."""
    return functools.partial(keras_fcn_command, list(words))


def predict_into(suffix):
    model = keras_fcn.load_model("mine.keras")
    keras_fcn.predict_into(model, np.load("large.npy"), f"{WORK}/labels{suffix}", tile_size=32)


def published():
    """Fetch the authors' weights, of a small network, from a server here, and convert them."""
    os.environ["KERAS_HOME"] = str(Path(WORK).resolve())
    caffe.PASCAL_VOC_URL = Path("address").read_text()
    caffe.PASCAL_VOC_SIZES["fc_filters"] = 8
    caffe.load_pascal_voc(small_fcn())


def small_fcn():
    vgg16.BLOCKS = tuple(dict.fromkeys(block, 4) for block in vgg16.BLOCKS)
    return keras_fcn.FCN32s(fc_filters=8, padding="valid")


TRAIN = ["train", "--data", "data", "--output", f"{WORK}/run", "--filters", "4", "8", *SMALL]
TUNE = ["tune", "--data", "data", "--output", f"{WORK}/search", "--tuner", "grid", *SMALL]
MODEL = ["--weights", "mine.keras"]
EXPORT = ["export", *MODEL, "--format"]
# kind: functions, in turn one for each beginning
KINDS = {
    "train": [command(*TRAIN, "--epochs", "6", "--steps", "20")],
    "tune": [command(*TUNE, "--trials", "3", "--epochs", "1", "--steps", "1")],
    "predict": [command("predict", "data/val", *MODEL, "--output", f"{WORK}/predictions")],
    "evaluate": [
        command(
            *["evaluate", *MODEL, "--images", "data/val", "--masks", "data/valannot"],
            *["--output", f"{WORK}/scores"],
        )
    ],
    "into": [functools.partial(predict_into, suffix) for suffix in (".npy", ".tif")],
    "export": [
        command(*EXPORT, format, "--output", f"{WORK}/model{suffix}")
        for format, suffix in (
            ("litert", ".tflite"),
            ("openvino", ".xml"),
            ("onnx", ".onnx"),
            ("saved_model", ""),
        )
    ],
    "weights": [published],
}


def prepare(folder):
    """Write what the work is done on: a model, images with masks, a large image, weights."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 24)):
        for name in (split, f"{split}annot"):
            Path(folder, "data", name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (40, 56, 3), "uint8")
            Image.fromarray(pixels).save(folder / "data" / split / f"{number}.png")
            labels = Image.fromarray((pixels[..., 0] > 127).astype("uint8"))
            labels.save(folder / "data" / f"{split}annot" / f"{number}.png")
    np.save(folder / "large.npy", rng.integers(0, 256, (400, 500, 3), "uint8"))
    keras.utils.set_random_seed(0)
    keras_fcn.UNet(filters=(4, 8)).save(folder / "mine.keras")
    layers = b""
    for layer in small_fcn().layers:
        if layer.weights:
            blobs = b""
            for array in layer.get_weights():
                array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
                shape = field(7, field(1, b"".join(map(varint, array.shape))))
                blobs += field(7, shape + field(5, array.astype("<f4").tobytes()))
            layers += field(100, field(1, layer.name.encode()) + blobs)
    (folder / "served").mkdir()
    (folder / "served" / caffe.PASCAL_VOC_FILES["upscore"]).write_bytes(layers)


class Slowly(http.server.SimpleHTTPRequestHandler):
    """A server that takes two seconds for a file."""

    def copyfile(self, source, outputfile):
        content = source.read()
        for begin in range(0, len(content), len(content) // 20 + 1):
            outputfile.write(content[begin : begin + len(content) // 20 + 1])
            time.sleep(0.1)

    def log_message(self, *_):
        pass


# --- what is looked at ---------------------------------------------------------------------------


def files(folder):
    """Yield the files of a folder that bear their final names."""
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and not any(part.startswith((PREFIX, BOARD)) for part in parts):
            yield path


def content(path):
    """Return what of a file is to be the same, as bytes or text; raise for half a file."""
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None, path
            with archive.open("model.weights.h5") as file:
                return arrays(file)
    if path.suffix == ".h5":
        return arrays(path)
    if path.suffix == ".png":
        Image.open(path).verify()  # every piece, to the last
    if path.suffix == ".npy":
        np.load(path)
    if path.suffix == ".tif":
        return tifffile.imread(path).tobytes()
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        return repr([{key: row[key] for key in sorted(row.keys() - TIMES)} for row in rows])
    if path.suffix == ".json":
        return repr(without_times(json.loads(path.read_text())))
    return path.read_bytes()


def arrays(file):
    """Return the names and bytes of all arrays of an HDF5 file."""
    found = []
    with h5py.File(file) as opened:
        opened.visititems(
            lambda name, item: (
                found.append((name, item[()].tobytes())) if isinstance(item, h5py.Dataset) else None
            )
        )
    return repr(sorted(found))


def without_times(record):
    if isinstance(record, dict):
        return {key: without_times(record[key]) for key in sorted(record.keys() - TIMES)}
    return [without_times(one) for one in record] if isinstance(record, list) else record


def differences(folder, whole):
    """Return the names of what a folder holds otherwise than another, or beside it."""
    return changed(folder, whole) + [str(path) for path in folder.rglob(f"{PREFIX}*")]


def changed(folder, whole):
    """Return the names of the files that differ between two folders, or are in one only."""
    found = [{path.relative_to(one): path for path in files(one)} for one in (folder, whole)]
    names = found[0].keys() ^ found[1].keys()
    names |= {n for n in found[0].keys() & found[1].keys() if differ(found[0][n], found[1][n])}
    return sorted(map(str, names))


def differ(one, other):
    # runtimes write the same network in other bytes; `export` has compared what it computes
    is_exported = one.suffix in EXPORTED or "variables" in one.parts
    return not is_exported and content(one) != content(other)


# --- the trial -----------------------------------------------------------------------------------


def work(function, folder):
    """Do the work in a process of its own, which has this folder; output goes into a file."""
    os.chdir(folder)
    Path(WORK).mkdir(exist_ok=True)
    log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.exit(function())


def begin(function, folder):
    process = FORKS.Process(target=work, args=(function, folder))
    process.start()
    return process


def try_kind(kind, kills, rng, folder):
    """Kill a kind of work so many times; return what was wrong, as texts."""
    functions, wholes, seconds = KINDS[kind], [], []
    begin(bool, folder).join()  # the processes' imports
    for number, function in enumerate(functions):
        whole = copy(folder, folder / f"whole{number}")
        begun = time.monotonic()
        process = begin(function, whole)
        process.join()
        if process.exitcode:
            return [f"left alone, it ends with {process.exitcode}: {last_line(whole)}"]
        wholes.append(whole)
        seconds.append(time.monotonic() - begun)
    done, number, faults = 0, 0, []
    while done < kills:
        place, which = copy(folder, folder / f"trial{number}"), number % len(functions)
        share = (number + 1) * kills / len(functions)  # of this function and those before it
        ended = False
        while not ended:
            process = begin(functions[which], place)
            process.join(rng.uniform(0, seconds[which]) if done < min(kills, share) else None)
            ended = process.exitcode is not None
            if not ended:
                process.kill()
                process.join()
                done += 1
                faults += [f"kill {done}: {fault}" for fault in halves(place / WORK)]
                ended = not changed(place / WORK, wholes[which] / WORK)  # some refuse what is done
        killed = process.exitcode == -signal.SIGKILL
        if process.exitcode and not killed:
            faults.append(f"after kill {done} it ends with {process.exitcode}: {last_line(place)}")
        faults += [
            f"after kill {done}: {name} is not as it should be"
            for name in (changed if killed else differences)(place / WORK, wholes[which] / WORK)
        ]
        number += 1
        if not faults:
            shutil.rmtree(place)
    print(f"{kind}: {done} kills in {number} beginnings of {np.mean(seconds):.1f} s, ", end="")
    return faults


def copy(folder, place):
    """Return a fresh folder with what the work is done on."""
    place.mkdir()
    for name in ("data", "large.npy", "mine.keras", "address"):
        (place / name).symlink_to(folder / name)
    return place


def last_line(place):
    lines = (place / "log").read_text(errors="replace").splitlines()
    return lines[-1] if lines else "nothing is printed"


def halves(folder):
    """Return an error for each file of a final name that is not whole."""
    found = []
    for path in files(folder):
        # of what is added to line by line, the last line may be cut short
        if path.suffix in (".keras", ".png", ".json", ".h5", ".tif") or path.name == "log.csv":
            try:
                content(path)
            except Exception as error:
                found.append(f"{path.relative_to(folder)}: {type(error).__name__}: {error}")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)}; all")
    parser.add_argument("--kills", type=int, default=20, help="of each kind; 20")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for kind in options.kinds:
        check_choice("kind", kind, KINDS)
    failed = False
    for kind in options.kinds or KINDS:
        folder = Path(tempfile.mkdtemp(prefix=f"{kind}-"))
        prepare(folder)
        handler = functools.partial(Slowly, directory=folder / "served")
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            (folder / "address").write_text(f"http://127.0.0.1:{server.server_port}/")
            rng = np.random.default_rng([options.seed, *kind.encode()])
            faults = try_kind(kind, options.kills, rng, folder)
            server.shutdown()
        print(f"{len(faults)} faults")
        for fault in faults:
            print(f"  {folder}: {fault}")
        if faults:
            failed = True
        else:
            shutil.rmtree(folder)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
