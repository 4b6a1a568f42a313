"""Turn a finished run of `keras-fcn train` into weights that ship, and write their card.

    python tools/ship_weights.py unet_camvid --run runs/unet_camvid --data path/to/camvid \
        --hardware "2 CPU cores, float32"

Where the run went on from the model of another, the card has the commands of both, and says how
far one came that was stopped before its end; call it from the folder where they ran, if their
paths are relative. Where it began on weights that ship, those of their card come first, and it has
the sha256 of their file as it was. Of a run its best epoch by mean IoU is taken, or with `--last`
its last, as the card then says. Of several runs, of one command with other seeds, the mean of their
weights is taken, and the card has the mean and the range of their own scores, objects found as on
the card. Writes `NAME.weights.h5`, its kernels in half precision or, with `--bits 8`, in eight
bits, and `NAME.json` into `--output`. The scores on the card are those of that file on the
validation images of the run, whole, with and without test-time augmentation. Thresholds of cells
and objects are chosen on the same images.
"""

import argparse
import dataclasses
import json
import shlex
import sys
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from skimage.measure import label

import keras_fcn
from keras_fcn import datasets
from keras_fcn.atomic import write_json
from keras_fcn.cards import sha256
from keras_fcn.classes import voc_palette
from keras_fcn.datasets import SOURCES
from keras_fcn.inference.objects import ObjectSettings, choose_settings, find_objects
from keras_fcn.metrics import ObjectMetrics, SegmentationMetrics, rand_information_scores
from keras_fcn.training.log import read_log
from keras_fcn.training.network import describe
from keras_fcn.training.recipe import FACTORIES
from keras_fcn.visualize import PALETTES
from keras_fcn.weights import fingerprint, load_file, save_eight_bit, save_half_precision

THRESHOLDS = np.arange(0.3, 1, 0.05).round(2).tolist()
DATA = {
    "camvid": {
        "description": "CamVid road scenes, 480x360, in the split of SegNet: 367 images to train "
        "on, 101 to validate (Brostow, Fauqueur and Cipolla, 2009)",
        "licence": "no licence text comes with the data; published for research",
        "channels": 3,
        "palette": PALETTES["camvid"],
        "test_time_augmentation": {"test_time_augmentation": True, "scales": [0.75, 1, 1.25]},
    },
    "isbi2012": {
        "description": "ISBI 2012 electron microscopy of a larva's nerve cord, 512x512: slices 0 "
        "to 19 to train on, 20 to 23 to validate (Cardona et al., 2010)",
        "licence": "free for generating and testing non-commercial segmentation software, with "
        "citation of Cardona et al., 2010, as the challenge's page has it",
        "channels": 1,
        "palette": voc_palette(2),
        "test_time_augmentation": {"test_time_augmentation": "dihedral", "scales": [1]},
    },
    "nuclei": {
        "description": "BBBC038, nuclei of the 2018 Data Science Bowl, stage 1, 256x256 to "
        "1040x1388: four fifths of 532 images to train on, one to validate, drawn by image size "
        "(Caicedo et al., 2019)",
        "licence": "public domain, CC0 1.0",
        "channels": 3,
        "palette": np.array([(0, 0, 0), (0, 160, 96), (255, 176, 0)]),
        "test_time_augmentation": {"test_time_augmentation": "dihedral", "scales": [1]},
    },
}
VGG16 = {
    "description": "the contracting path from VGG16 on ImageNet (Simonyan and Zisserman, 2015)",
    "licence": "of VGG16's weights: Creative Commons Attribution",
}
LAST = "last.keras"
# What a card says of single commands: how far one came that would give another network, run to
# its end, the sha256 of the file that shipped then, on which one began, and what of its run was
# taken, if not its `model.keras` alone.
BY_COMMAND = ("stopped", "began_on", "took")
STORES = {16: save_half_precision, 8: save_eight_bit}


def describe_network(model, channels):
    """Return the factory's name and its arguments, of a trained model."""
    given = {name: value for name, value in describe(model).items() if value}
    factory = FACTORIES[given.pop("model")]
    if given.get("upsampling") == "transpose":
        del given["upsampling"]
    num_classes = model.output_shape[-1]
    return factory, {"input_shape": [None, None, channels], "num_classes": num_classes, **given}


def find_stages(run):
    """Return the records of a run, and before it of those from which it went on."""
    record = json.loads((run / "training.json").read_text())
    weights = str(record["parameters"]["weights"])
    earlier = []
    if weights in keras_fcn.pretrained():
        card = keras_fcn.pretrained()[weights]
        earlier = list_stages(card)
        record["began_on"] = {card["name"]: card["sha256"]}
    elif weights.endswith(".keras"):
        earlier = find_stages(Path(weights).parent)
    return [*earlier, record if "result" in record else describe_stopped(run, record)]


def list_stages(card):
    """Return what the card of weights that ship says of their commands, as records of runs."""
    stages = [{"command": command, "result": {"seconds": 0}} for command in card["commands"]]
    for entry in BY_COMMAND:
        for number, said in card.get(entry, {}).items():
            stages[int(number) - 1][entry] = said
    stages[0]["result"]["seconds"] = 60 * card["training_minutes"]  # of all
    return stages


def describe_stopped(run, record):
    """Return the record of a run without an end, with what its log says of it."""
    rows, _ = read_log(run)
    seconds = sum(float(row["seconds"]) for row in rows.values())
    stopped = f"after {len(rows)} of {record['parameters']['epochs']} epochs"
    return {**record, "result": {"file": "best.keras", "seconds": seconds}, "stopped": stopped}


def list_by_command(stages):
    """Return the card's entries on single commands, by their number, from 1."""
    entries = {
        entry: {
            str(number): stage[entry]
            for number, stage in enumerate(stages, start=1)
            if entry in stage
        }
        for entry in BY_COMMAND
    }
    return {entry: said for entry, said in entries.items() if said}


def hide_folders(command):
    """Return a command without one machine's folders."""
    words = [Path(word).name if Path(word).is_absolute() else word for word in shlex.split(command)]
    return shlex.join(words)


def open_validation(data, split, ignore=None, **options):
    """Return images and label maps on which to measure."""
    return list(datasets.load(data, split, ignore=ignore, **options).as_numpy_iterator())


def predict(model, pairs, description, **options):
    """Return the probabilities of every image, with a bar of progress."""
    bar = track(pairs, description, console=Console(stderr=True))
    return [keras_fcn.predict_image(model, image, **options) for image, _ in bar]


def score_labels(pairs, predictions, classes, ignore):
    """Return mean IoU and the IoU of each class."""
    metric = SegmentationMetrics(len(classes), ignore_class=ignore)
    for (_, truth), probabilities in zip(pairs, predictions, strict=True):
        metric.update_state(truth, probabilities.argmax(-1))
    iou = metric.per_class_iou()
    per_class = dict(zip(classes, iou.round(4).tolist(), strict=True))
    return {"mean_iou": round(float(iou.mean()), 4)}, per_class


def score_cells(pairs, predictions, threshold):
    """Return Rand and information scores after thinning, averaged over the slices."""
    scores = [
        rand_information_scores(truth, probabilities[..., 1], threshold)
        for (_, truth), probabilities in zip(pairs, predictions, strict=True)
    ]
    return {
        name: round(float(np.mean([score[name] for score in scores])), 4)
        for name in ("rand", "information")
    }


def score_best_cells(pairs, predictions):
    """Return the scores of cells at the threshold with the highest Rand score, and that."""
    scores = [{**score_cells(pairs, predictions, t), "threshold": t} for t in THRESHOLDS]
    return max(scores, key=lambda score: score["rand"])


def score_objects(predictions, numbers, settings):
    """Return the scores of objects, and the IoU of what is not background."""
    metric, found, either = ObjectMetrics(), 0, 0
    for probabilities, truth in zip(predictions, numbers, strict=True):
        objects = find_objects(probabilities, settings)
        metric.update_state(truth, objects)
        found += np.count_nonzero((objects > 0) & (truth > 0))
        either += np.count_nonzero((objects > 0) | (truth > 0))
    scores = {**metric.result(), "foreground_iou": found / either}
    return {name: round(float(score), 4) for name, score in scores.items()}


def score(model, pairs, dataset, classes, numbers=None, settings=None, **options):
    """Return the scores in one way of predicting, IoU by class, and how objects were found."""
    predictions = predict(model, pairs, "averaged" if options else "plain", **options)
    own = score_best_cells(pairs, predictions) if dataset == "isbi2012" else {}
    if numbers is not None:
        known = list(zip(predictions, numbers, strict=True))
        border = classes.index("border") if "border" in classes else None
        settings = settings or choose_settings(known, ObjectSettings(border=border))
        own |= score_objects(predictions, numbers, settings)
    labels, per_class = score_labels(pairs, predictions, classes, SOURCES[dataset].ignore)
    return {**own, **labels}, per_class, settings


def measure(model, pairs, dataset, classes, numbers=None):
    """Return the entries `metric` and `objects` of the card."""
    what = (model, pairs, dataset, classes, numbers)
    plain, per_class, settings = score(*what)
    averaged, *_ = score(*what, settings, **DATA[dataset]["test_time_augmentation"])
    metric = {
        "split": f"the {len(pairs)} validation images",
        **plain,
        "per_class_iou": per_class,
        "with_test_time_augmentation": averaged,
    }
    return metric, settings


def measure_seeds(files, *where):
    """Return the mean and the range of the scores of models."""
    scores = [score(keras_fcn.load_model(file), *where)[0] for file in files]
    return {
        name: {
            "mean": round(float(np.mean([one[name] for one in scores])), 4),
            "range": [min(one[name] for one in scores), max(one[name] for one in scores)],
        }
        for name in scores[0]
    }


def build(name, files, channels):
    """Return the network of trained models, with the mean of their weights, and its card's call."""
    models = [keras_fcn.load_model(file) for file in files]
    factory, arguments = describe_network(models[0], channels)
    model = getattr(keras_fcn, factory)(**arguments, weights=str(files[0]), name=name)
    weights = zip(*(one.get_weights() for one in models), strict=True)
    model.set_weights([np.mean(arrays, axis=0) for arrays in weights])
    return model, factory, arguments


def open_measured(data, dataset, record):
    """Return what to measure on: the validation images of a run, and their instance maps."""
    parameters = record["parameters"]
    values = parameters.get("values") and {"values": dict(parameters["values"])}
    split = parameters["validation"]
    pairs = open_validation(data, split, record["ignore"], **(values or {}))
    numbers = None
    if SOURCES[dataset].instances:
        numbered = open_validation(data, split, instances="numbers")
        numbers = [truth for _, truth in numbered]
    elif dataset == "isbi2012":  # what lies between the membranes
        numbers = [label(truth == 1, connectivity=1).astype("int32") for _, truth in pairs]
    return pairs, dataset, record["classes"], numbers


def read_options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help="unet_camvid, unet_isbi2012 and so on: network_dataset")
    parser.add_argument("--run", type=Path, nargs="+", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--hardware", required=True, help="on which the run took its time")
    parser.add_argument("--output", type=Path, default=Path("weights"))
    parser.add_argument(
        "--last", action="store_true", help="of the epochs, not the best by mean IoU"
    )
    parser.add_argument("--bits", type=int, choices=sorted(STORES), default=16, help="of kernels")
    return parser.parse_args()


def find_all_stages(runs, last):
    """Return the records of runs of one command, and of those that they went on from, in turn."""
    stages = [*find_stages(runs[0]), *(find_stages(run)[-1] for run in runs[1:])]
    for run, record in zip(runs, stages[-len(runs) :], strict=True):
        if "stopped" in record:
            sys.exit(f"{run} has no end; repeat its command, which goes on")
        took = []
        if last:
            record["result"]["file"] = LAST
            took.append(f"the last epoch, {LAST}")
        if len(runs) > 1:
            took.append(f"the mean of the weights of the last {len(runs)} commands")
        if took:
            record["took"] = "; ".join(took)
    return stages


def main():
    options = read_options()
    dataset = options.name.rpartition("_")[2]
    data, runs = DATA[dataset], options.run
    stages = find_all_stages(runs, options.last)
    records = stages[-len(runs) :]
    origins = [data, *([VGG16] if "--weights" in stages[0]["command"] else [])]
    files = [run / record["result"]["file"] for run, record in zip(runs, records, strict=True)]
    model, factory, arguments = build(options.name, files, data["channels"])

    options.output.mkdir(parents=True, exist_ok=True)
    file = options.output / f"{options.name}.weights.h5"
    STORES[options.bits](model, file)
    load_file(model, file)  # what is measured is what ships
    where = open_measured(options.data, dataset, records[0])
    metric, settings = measure(model, *where)
    seeds = [record["seed"] for record in records]
    card = {
        "name": options.name,
        "factory": factory,
        "arguments": arguments,
        "parameters": model.count_params(),
        "input": f"{'RGB' if data['channels'] == 3 else 'gray'} pixels in [0, 255], any size",
        "classes": records[0]["classes"],
        "palette": data["palette"].tolist(),
        "ignore_label": SOURCES[dataset].ignore,
        "dataset": "; ".join(origin["description"] for origin in origins),
        "data_licence": "; ".join(origin["licence"] for origin in origins),
        "metric": metric,
        **({"objects": dataclasses.asdict(settings)} if settings else {}),
        "test_time_augmentation": data["test_time_augmentation"],
        "commands": [hide_folders(stage["command"]) for stage in stages],
        **list_by_command(stages),
        **({"seeds": measure_seeds(files, *where, settings)} if len(runs) > 1 else {}),
        "seed": seeds if len(runs) > 1 else seeds[0],
        "hardware": options.hardware,
        "training_minutes": round(sum(stage["result"]["seconds"] for stage in stages) / 60),
        "versions": records[0]["versions"],
        "file": file.name,
        "bytes": file.stat().st_size,
        "sha256": sha256(file),
        "fingerprint": fingerprint(model),
    }
    write_json(options.output / f"{options.name}.json", card)
    print(json.dumps(card["metric"], indent=2))


if __name__ == "__main__":
    main()
