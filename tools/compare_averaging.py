"""What test-time augmentation gives, on the validation images: the tables of weights/RECIPES.md.

    python tools/compare_averaging.py --weights unet_camvid --data camvid --every 3
    python tools/compare_averaging.py --weights unet_isbi2012 --data isbi2012
    python tools/compare_averaging.py --weights isbi_fold_1/model.keras --data isbi2012 \
        --split "train[:8]"

For street scenes the mean IoU of every averaging; for cells the Rand and information scores over
the threshold, from which `ship_weights.py` takes the one with the highest Rand score.
"""

import argparse

import keras
from ship_weights import THRESHOLDS, open_validation, predict, score_cells, score_labels

import keras_fcn
from keras_fcn.datasets import SOURCES

SPLITS = {"camvid": "val", "isbi2012": "train[20:24]"}
AVERAGES = {
    "camvid": [
        (False, (1,)),
        (True, (1,)),
        (True, (0.75, 1)),
        (True, (1, 1.25)),
        (True, (1, 1.5)),
        (True, (0.75, 1, 1.25)),
        (True, (1, 1.25, 1.5)),
    ],
    "isbi2012": [(False, (1,)), ("dihedral", (1,))],
}


def describe(augmentation, scales):
    flips = {False: "none", True: "mirror image", "dihedral": "flips and quarter turns"}
    at = "" if scales == (1,) else f", scales {', '.join(map(str, scales))}"
    return flips[augmentation] + at


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", required=True, help="a name of the catalogue, or a model")
    parser.add_argument("--data", choices=sorted(AVERAGES), required=True)
    parser.add_argument("--every", type=int, default=1, help="take every n-th image only")
    parser.add_argument("--split", help="other images than those to validate on, as of a fold")
    options = parser.parse_args()
    if options.weights in keras_fcn.pretrained():
        model = keras_fcn.from_pretrained(options.weights)
    else:
        model = keras.saving.load_model(options.weights, compile=False)
    source = SOURCES[options.data]
    split = options.split or SPLITS[options.data]
    pairs = open_validation(options.data, split, source.ignore)[:: options.every]

    cells = options.data == "isbi2012"
    print("| averaged over | " + ("threshold | Rand | information |" if cells else "mean IoU, % |"))
    print("| --- " * (4 if cells else 2) + "|")
    for augmentation, scales in AVERAGES[options.data]:
        name = describe(augmentation, scales)
        predictions = predict(
            model, pairs, name, test_time_augmentation=augmentation, scales=scales
        )
        if cells:
            for threshold in THRESHOLDS:
                scores = score_cells(pairs, predictions, threshold)
                print(f"| {name} | {threshold} | {scores['rand']} | {scores['information']} |")
        else:
            scores, _ = score_labels(pairs, predictions, source.classes, source.ignore)
            print(f"| {name} | {100 * scores['mean_iou']:.1f} |")


if __name__ == "__main__":
    main()
