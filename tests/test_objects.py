import dataclasses

import numpy as np
import pytest
from conftest import randomize
from scipy import ndimage

from keras_fcn import UNet, set_classes
from keras_fcn.classes import Classes
from keras_fcn.inference.objects import (
    ObjectSettings,
    choose_thresholds,
    find_objects,
    predict_objects,
)
from keras_fcn.object_metrics import ObjectMetrics


def disks(middles, radius, size=(60, 80)):
    """An instance map of disks; the later lie over the earlier."""
    rows, columns = np.indices(size)
    truth = np.zeros(size, "int32")
    for number, (row, column) in enumerate(middles, 1):
        truth[(rows - row) ** 2 + (columns - column) ** 2 <= radius**2] = number
    return truth


def object_f1(truth, objects):
    metric = ObjectMetrics()
    metric.update_state(truth, objects)
    return metric.result()["object_f1"]


def border_probabilities(truth, rng, noise=0.05):
    """What a good network of three classes gives: background, inside, border between two."""
    labels = (truth > 0).astype(int)
    largest = ndimage.maximum_filter(truth, 3)
    smallest = ndimage.minimum_filter(np.where(truth == 0, truth.max() + 1, truth), 3)
    labels[(truth > 0) & (largest != smallest)] = 2
    scores = np.eye(3)[labels] * 0.8 + 0.2 / 3 + rng.uniform(0, noise, (*truth.shape, 3))
    return (scores / scores.sum(-1, keepdims=True)).astype("float32")


TOUCHING = [(20, 20), (20, 37), (20, 54), (45, 30)]


def test_a_border_class_parts_what_touches(rng):
    truth = disks(TOUCHING, 9)
    objects = find_objects(border_probabilities(truth, rng), ObjectSettings(border=2))
    assert objects.dtype == "int32"
    assert objects.max() == 4
    assert object_f1(truth, objects) == 1
    np.testing.assert_array_equal(objects > 0, truth > 0)  # the border's pixels belong to them


@pytest.mark.parametrize("channels", [1, 2])
def test_two_classes_are_parted_at_their_necks(channels, rng):
    truth = disks(TOUCHING, 9)
    probability = np.where(truth > 0, 0.9, 0.05) + rng.uniform(0, 0.05, truth.shape)
    scores = np.stack([1 - probability, probability], -1)[..., -channels:]
    objects = find_objects(scores)
    assert objects.max() == 4
    assert object_f1(truth, objects) == 1


def test_necks_part_what_the_border_class_does_not(rng):
    """Of a border between two disks the network sees nothing, and of the others all."""
    truth = disks(TOUCHING, 9)
    scores = border_probabilities(truth, rng)
    seen = border_probabilities((truth > 0).astype("int32"), rng)
    scores[:, 20:37] = seen[:, 20:37]
    objects = find_objects(scores, ObjectSettings(border=2))
    assert objects.max() == 4
    assert object_f1(truth, objects) == 1
    assert find_objects(scores, ObjectSettings(border=2, neck=20)).max() == 3


def test_rough_outlines_make_no_objects(rng):
    """Each pixel of a ragged outline makes a ridge of the depth, and ridges meet in middles."""
    rows, columns = np.indices((40, 100))
    far = np.hypot((rows - 20) / 6, (columns - 50) / 40) + rng.uniform(-0.2, 0.2, rows.shape)
    objects = find_objects(np.where(far < 1, 0.9, 0.1)[..., None], ObjectSettings(minimum_area=20))
    assert objects.max() == 1


def test_objects_of_several_classes():
    """Two that touch are two, for they are of different classes."""
    scores = np.zeros((10, 12, 3))
    scores[..., 0] = 1
    scores[2:8, 2:6], scores[2:8, 6:10] = (0, 0.9, 0.1), (0, 0.2, 0.8)
    objects = find_objects(scores)
    assert objects[5, 3] != objects[5, 8]
    assert objects.max() == 2
    np.testing.assert_array_equal(objects > 0, scores[..., 0] == 0)


def test_thresholds_and_areas():
    scores = np.full((20, 20, 1), 0.1)
    scores[2:4, 2:4] = 0.9
    scores[8:16, 8:16] = 0.6
    assert find_objects(scores).max() == 2
    assert find_objects(scores, ObjectSettings(minimum_area=5)).max() == 1
    assert (find_objects(scores, ObjectSettings(threshold=0.7)) > 0).sum() == 4
    # no seed, an object all the same
    assert find_objects(scores, ObjectSettings(seed_threshold=0.7)).max() == 2
    assert find_objects(np.zeros((5, 5, 1))).max() == 0
    assert find_objects(np.ones((5, 5, 1))).max() == 1


@pytest.mark.parametrize(
    ("scores", "settings", "message"),
    [
        (np.zeros((4, 4)), {}, r"\(height, width, channels\)"),
        (np.full((4, 4, 2), 3.0), {}, r"values in \[3.0, 3.0\]"),
        (np.full((4, 4, 2), np.nan), {}, "nan"),
        (np.zeros((4, 4, 2)), {"border": 2}, "`border` should be one of"),
        (np.zeros((4, 4, 2)), {"threshold": 2}, "`threshold` should be a number from 0 to 1"),
        (np.zeros((4, 4, 2)), {"threshold": np.nan}, "Received: threshold=nan"),
        (np.zeros((4, 4, 2)), {"minimum_area": -1}, "Received: minimum_area=-1"),
    ],
)
def test_wrong_probabilities_are_explained(scores, settings, message):
    with pytest.raises(ValueError, match=message):
        find_objects(scores, ObjectSettings(**settings))


def test_settings_come_with_the_model(rng):
    model = UNet(num_classes=3, filters=(4, 8))
    randomize(model, rng)
    assert ObjectSettings.of(model) == ObjectSettings()
    layer = model.get_layer("predictions")
    layer.classes = Classes(("background", "nucleus", "border"))
    assert ObjectSettings.of(model).border == 2
    layer.classes = dataclasses.replace(layer.classes, objects={"threshold": 0.4, "border": 1})
    assert ObjectSettings.of(model) == ObjectSettings(threshold=0.4, border=1)
    image = rng.integers(0, 256, (30, 40, 3), "uint8")
    assert predict_objects(model, image, tile_size=16).shape == (30, 40)


def test_thresholds_are_chosen_by_f1(rng, monkeypatch):
    """Specks of noise are left out, when leaving them out scores better."""
    truth = disks(TOUCHING, 9)
    scores = border_probabilities(truth, rng)
    scores[50:53, 70:73] = (0.45, 0.5, 0.05)
    monkeypatch.setattr("keras_fcn.inference.objects.predict_image", lambda model, image: scores)
    model = UNet(num_classes=3, filters=(4, 8))
    model.get_layer("predictions").classes = Classes(("background", "nucleus", "border"))
    chosen = choose_thresholds(model, [(None, truth)])
    assert chosen["border"] == 2
    assert chosen.keys() == dataclasses.asdict(ObjectSettings()).keys()
    assert object_f1(truth, find_objects(scores, ObjectSettings(**chosen))) == 1
    with pytest.raises(ValueError, match="at least one image"):
        choose_thresholds(model, [])
    with pytest.raises(ValueError, match=r"Received: 1 of background alone.*images with objects"):
        choose_thresholds(model, [(None, np.zeros_like(truth))])
    chosen = choose_thresholds(model, [(None, np.zeros_like(truth)), (None, truth)])
    assert chosen["border"] == 2


def test_settings_that_are_none_are_refused():
    model = UNet(num_classes=2, filters=(4, 8))
    for objects, message in (({"size": 5}, "those of `ObjectSettings`"), ({"neck": "x"}, "`neck`")):
        set_classes(model, Classes("ab", objects=objects))
        with pytest.raises(ValueError, match=message):
            ObjectSettings.of(model)
    set_classes(model, Classes("ab", objects={"neck": 2}))
    assert ObjectSettings.of(model).neck == 2
