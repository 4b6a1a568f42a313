import os

import forked
import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from keras import ops
from scipy import ndimage
from skimage.metrics import adapted_rand_error, contingency_table, variation_of_information
from sklearn import metrics as sklearn_metrics

from keras_fcn.losses import WeightedCrossentropy
from keras_fcn.metrics import (
    SegmentationMetrics,
    _thinned_segments,
    boundary_f1,
    rand_information_scores,
)

CLASSES = 4
VOID = 255
NAMES = {"mean_iou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou"}


def maps(seed=0, size=(6, 9, 7)):
    """True labels with void, and predicted labels."""
    rng = np.random.default_rng(seed)
    truth = rng.choice([0, 1, 2, 3, VOID], size)
    return truth, np.where(rng.random(size) < 0.5, rng.integers(0, CLASSES, size), truth % CLASSES)


def measured(truth, prediction, **arguments):
    metric = SegmentationMetrics(CLASSES, ignore_class=VOID)
    metric.update_state(truth, prediction, **arguments)
    return metric


def results(metric):
    return {name: float(value) for name, value in metric.result().items()}


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_scikit_learn(seed):
    truth, prediction = maps(seed)
    metric = measured(truth, prediction)
    y_true, y_pred = truth[truth != VOID], prediction[truth != VOID]
    expected = {
        "mean_iou": sklearn_metrics.jaccard_score(y_true, y_pred, average="macro"),
        "pixel_accuracy": sklearn_metrics.accuracy_score(y_true, y_pred),
        "mean_accuracy": sklearn_metrics.balanced_accuracy_score(y_true, y_pred),
        "frequency_weighted_iou": sklearn_metrics.jaccard_score(y_true, y_pred, average="weighted"),
    }
    assert results(metric) == pytest.approx(expected, rel=1e-6)
    np.testing.assert_array_equal(
        metric.confusion_matrix, sklearn_metrics.confusion_matrix(y_true, y_pred)
    )
    np.testing.assert_allclose(
        metric.per_class_iou(), sklearn_metrics.jaccard_score(y_true, y_pred, average=None)
    )


@settings(max_examples=20, deadline=None)
@given(
    truth=hnp.arrays("uint8", (5, 3, 4), elements=st.sampled_from([0, 1, 2, 3, VOID])),
    prediction=hnp.arrays("uint8", (5, 3, 4), elements=st.integers(0, CLASSES - 1)),
    cuts=st.sets(st.integers(1, 4)),
)
def test_the_batches_do_not_matter(truth, prediction, cuts):
    whole, parts = measured(truth, prediction), SegmentationMetrics(CLASSES, ignore_class=VOID)
    batches = (np.split(array, sorted(cuts)) for array in (truth, prediction))
    for y_true, y_pred in zip(*batches, strict=True):
        parts.update_state(y_true, y_pred)
    np.testing.assert_array_equal(whole.confusion_matrix, parts.confusion_matrix)
    np.testing.assert_equal(results(whole), results(parts))


def test_scores_and_labels_channels_and_dtypes_are_the_same():
    truth, prediction = maps()
    scores = np.eye(CLASSES, dtype="float32")[prediction] - 3
    expected = measured(truth, prediction).confusion_matrix
    for y_true, y_pred in [
        (truth, scores),
        (truth[..., None], scores),
        (truth[..., None], prediction[..., None]),
        (truth.astype("float32"), prediction.astype("uint8")),
        (keras.ops.convert_to_tensor(truth), keras.ops.convert_to_tensor(scores)),
        (truth[..., :1], prediction[..., :1]),
    ]:
        matrix = measured(y_true, y_pred).confusion_matrix
        if y_true.shape[-1] == 1 and len(y_true.shape) == 3:
            assert matrix.sum() == np.sum(truth[..., 0] != VOID)
        else:
            np.testing.assert_array_equal(matrix, expected)


@pytest.mark.parametrize("shape", [(6,), (6, 9, 7), (6, 9, 7, 1)])
def test_pixels_of_weight_zero_are_left_out(shape):
    truth, prediction = maps()
    weights = np.random.default_rng(1).choice([0, 0.3, 2], shape)
    kept = np.broadcast_to(weights.reshape((*shape, 1, 1)[:3]), truth.shape) != 0
    np.testing.assert_array_equal(
        measured(truth, prediction, sample_weight=weights).confusion_matrix,
        measured(np.where(kept, truth, VOID), prediction).confusion_matrix,
    )


def test_a_void_label_among_the_classes():
    metric = SegmentationMetrics(3, ignore_class=0)
    metric.update_state(np.array([[0, 0, 1, 2]]), np.array([[0, 1, 1, 0]]))
    np.testing.assert_array_equal(metric.confusion_matrix, [[0, 0, 0], [0, 1, 0], [1, 0, 0]])


def test_absent_classes_are_left_out_of_the_means():
    metric = SegmentationMetrics(4)
    metric.update_state(np.array([[0, 0, 1, 1]]), np.array([[0, 0, 1, 2]]))
    # class 2 is predicted but not there: IoU 0, no accuracy; class 3 is nowhere
    np.testing.assert_array_equal(metric.per_class_iou(), [1, 0.5, 0, np.nan])
    assert results(metric) == pytest.approx(
        {
            "mean_iou": 0.5,
            "pixel_accuracy": 0.75,
            "mean_accuracy": 0.75,
            "frequency_weighted_iou": 0.75,
        }
    )


def test_without_pixels_the_scores_are_nan():
    metric = measured(np.full((2, 2), VOID), np.zeros((2, 2), int))
    assert np.isnan(list(results(metric).values())).all()
    assert np.isnan(metric.per_class_iou()).all()


@pytest.mark.parametrize("count", [2**20 - 1, 2**24, 2**31 - 1, 2**31, 2**33 + 7, 2**51 - 2000])
def test_the_counts_are_exact_beyond_int32(count):
    metric = SegmentationMetrics(2)
    metric.high.assign(np.full((2, 2), count // 2**20))
    metric.low.assign(np.full((2, 2), count % 2**20))
    for _ in range(3):
        metric.update_state(np.zeros((5, 8, 9), int), np.ones((5, 8, 9), int))
    np.testing.assert_array_equal(metric.confusion_matrix, [[count, count + 1080], [count, count]])
    assert results(metric)["pixel_accuracy"] == pytest.approx(count / (2 * count + 540), rel=1e-6)


def test_the_counts_of_another_metric_are_added_exactly():
    metric, counts = SegmentationMetrics(2), np.array([[2**40 + 3, 5], [2**20, 2**31 + 1]])
    for times in (1, 2):
        metric.add_counts(counts)
        np.testing.assert_array_equal(metric.confusion_matrix, times * counts)


def test_reset_and_config():
    metric = measured(*maps())
    metric.reset_state()
    assert not metric.confusion_matrix.any()
    copy = keras.metrics.deserialize(keras.metrics.serialize(metric))
    assert isinstance(copy, SegmentationMetrics) and copy.get_config() == metric.get_config()


def small_model():
    """A 1x1 convolution from 3 channels to the classes, and data for it."""
    truth, _ = maps()
    images = np.random.default_rng(0).random((*truth.shape, 3)).astype("float32")
    layer = keras.layers.Conv2D(CLASSES, 1, activation="softmax")
    model = keras.Sequential([keras.Input((None, None, 3)), layer])
    return model, images, truth.astype("int32")


def compiled(model, **arguments):
    model.compile("sgd", WeightedCrossentropy(ignore_class=VOID), **arguments)
    return model


@pytest.mark.parametrize("batch_size", [1, 4, 6])
@pytest.mark.parametrize("argument", ["metrics", "weighted_metrics"])
def test_evaluate_is_the_host_computation(batch_size, argument):
    model, images, truth = small_model()
    compiled(model, **{argument: [SegmentationMetrics(CLASSES, ignore_class=VOID)]})
    logs = model.evaluate(images, truth, batch_size=batch_size, verbose=0, return_dict=True)
    expected = results(measured(truth, model.predict(images, verbose=0)))
    assert {name: logs[name] for name in NAMES} == pytest.approx(expected, rel=1e-6)


def test_fit_shows_the_scores_and_callbacks_see_them():
    model, images, truth = small_model()
    compiled(model, metrics=[SegmentationMetrics(CLASSES, ignore_class=VOID)])
    stop = keras.callbacks.EarlyStopping("val_mean_iou", mode="max", patience=5)
    weights = (np.arange(6) > 0).astype("float32")
    history = model.fit(
        images,
        truth,
        sample_weight=weights,
        validation_data=(images, truth),
        epochs=2,
        verbose=0,
        callbacks=[stop],
    ).history
    assert set(history) == {"loss", "val_loss"} | NAMES | {f"val_{name}" for name in NAMES}
    expected = results(measured(truth, model.predict(images, verbose=0)))
    assert {name: history[f"val_{name}"][-1] for name in NAMES} == pytest.approx(expected, rel=1e-6)


def test_weighted_metrics_leave_out_images_of_weight_zero():
    model, images, truth = small_model()
    metric = SegmentationMetrics(CLASSES, ignore_class=VOID)
    compiled(model, weighted_metrics=[metric])
    weights = np.array([1, 0, 1, 0.5, 0, 2], "float32")
    model.evaluate(images, truth, sample_weight=weights, batch_size=4, verbose=0)
    kept = weights > 0
    expected = measured(truth[kept], model.predict(images[kept], verbose=0))
    np.testing.assert_array_equal(metric.confusion_matrix, expected.confusion_matrix)


DISTRIBUTED = """
import keras, numpy as np
from keras_fcn.losses import WeightedCrossentropy
from keras_fcn.metrics import SegmentationMetrics

def run():
    keras.utils.set_random_seed(0)
    images = np.random.default_rng(0).random((8, 6, 5, 3)).astype("float32")
    truth = np.random.default_rng(1).choice([0, 1, 2, 255], (8, 6, 5)).astype("int32")
    truth[:, :3] = truth[:, 3:]  # as many void pixels in each half batch as in the whole
    layer = keras.layers.Conv2D(3, 1, activation="softmax")
    model = keras.Sequential([keras.Input((None, None, 3)), layer])
    metric = SegmentationMetrics(3, ignore_class=255)
    model.compile("sgd", WeightedCrossentropy([1, 2, 3], ignore_class=255), metrics=[metric])
    model.evaluate(images, truth, batch_size=4, verbose=0)
    logs = model.evaluate(images, truth, batch_size=4, verbose=0, return_dict=True)
    return metric.confusion_matrix, {k: v for k, v in logs.items() if k != "loss"}

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    alone = run()
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        together = run()
else:
    alone = run()
    assert len(keras.distribution.list_devices()) == 2
    keras.distribution.set_distribution(keras.distribution.DataParallel())
    together = run()
np.testing.assert_array_equal(alone[0], together[0])
np.testing.assert_equal(alone[1], together[1])
assert alone[0].sum() > 100
"""


@pytest.mark.slow
def test_two_devices_count_as_one():
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    forked.run(["-c", DISTRIBUTED], env=os.environ | flags, check=True)


@pytest.mark.parametrize(
    ("y_true", "y_pred", "message"),
    [
        (np.zeros((2, 3, 3), int), np.zeros((2, 3, 3, 5)), "num_classes|channels|shape"),
        (np.zeros((2, 3, 3), int), np.zeros((2, 3, 3)), "should be integers"),
        (np.zeros((2, 3, 3), int), np.zeros((2, 3, 4), int), "shape of `y_true`"),
        (np.zeros((1, 3, 3), int), np.zeros((2, 3, 3), int), "shape of `y_true`"),
        (np.zeros((2, 3, 3, 1), int), np.zeros((2, 3, 3, 1)), "integer labels"),
        (np.full((2, 3, 3), 12), np.zeros((2, 3, 3), int), r"\[12\] in y_true"),
        (np.zeros((2, 3, 3), int), np.full((2, 3, 3), 4), r"\[4\] in y_pred"),
    ],
)
def test_misfits_are_refused(y_true, y_pred, message):
    with pytest.raises(ValueError, match=message):
        measured(y_true, y_pred)


def test_num_classes_is_a_positive_integer():
    with pytest.raises(ValueError, match="num_classes"):
        SegmentationMetrics(0)


def test_boundary_f1_of_a_moved_edge():
    truth = np.repeat([[0] * 5 + [1] * 5], 10, axis=0)
    moved = np.repeat([[0] * 7 + [1] * 3], 10, axis=0)
    np.testing.assert_array_equal(boundary_f1(truth, truth, 3), [1, 1, np.nan])
    np.testing.assert_array_equal(boundary_f1(truth, moved, 2, tolerance=2), [1, 1])
    np.testing.assert_array_equal(boundary_f1(truth, moved, 2, tolerance=1.9), [0, 0])
    # a class that is found nowhere, and one found where it is not
    np.testing.assert_array_equal(boundary_f1(truth, truth + 1, 3, tolerance=0), [0, 0, 0])


def boundary_f1_by_definition(truth, prediction, label, tolerance, labelled):
    points = []
    for mask in (truth == label, prediction == label):
        points.append(
            [
                (y, x)
                for y, x in np.argwhere(mask & labelled)
                for v, w in [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
                if 0 <= v < mask.shape[0] and 0 <= w < mask.shape[1]
                if labelled[v, w] and not mask[v, w]
            ]
        )
    true, predicted = (np.unique(np.reshape(p, (-1, 2)), axis=0) for p in points)
    if not len(true) or not len(predicted):
        return 0 if len(true) or len(predicted) else np.nan
    near = np.hypot(*(true[:, None] - predicted).transpose(2, 0, 1)) <= tolerance
    precision, recall = near.any(0).mean(), near.any(1).mean()
    return 2 * precision * recall / max(precision + recall, 1e-9)


@settings(max_examples=30, deadline=None)
@given(
    truth=hnp.arrays("uint8", (7, 6), elements=st.sampled_from([0, 0, 1, 2, VOID])),
    prediction=hnp.arrays("uint8", (7, 6), elements=st.sampled_from([0, 0, 1, 2])),
    tolerance=st.sampled_from([0, 1, 1.5, 3]),
)
def test_boundary_f1_by_definition(truth, prediction, tolerance):
    scores = boundary_f1(truth, prediction, 3, tolerance, ignore_class=VOID)
    expected = [
        boundary_f1_by_definition(truth, prediction, label, tolerance, truth != VOID)
        for label in range(3)
    ]
    np.testing.assert_allclose(scores, expected)


@pytest.mark.parametrize(
    "arguments",
    [
        {"prediction": np.zeros((5, 6), int)},
        {"prediction": np.zeros((5, 5), int), "tolerance": -1},
        {"prediction": np.zeros((5, 5), int), "num_classes": 0},
    ],
)
def test_boundary_f1_refuses(arguments):
    with pytest.raises(ValueError):
        boundary_f1(np.zeros((5, 5), int), **{"num_classes": 2} | arguments)


def cells(seed=0, width=3):
    """A Voronoi map of cells, parted by membranes of `width` pixels: instances, 0 membrane."""
    rng = np.random.default_rng(seed)
    seeds = rng.integers(0, 60, (12, 2))
    grid = np.stack(np.mgrid[:60, :60], -1)
    distances = np.sort(np.hypot(*(grid[:, :, None] - seeds).transpose(3, 0, 1, 2)), axis=-1)
    nearest = np.hypot(*(grid[:, :, None] - seeds).transpose(3, 0, 1, 2)).argmin(-1) + 1
    return np.where(distances[..., 1] - distances[..., 0] > width, nearest, 0)


def test_the_width_of_the_membranes_costs_nothing():
    bricks = np.arange(1, 13).reshape(3, 4).repeat(20, 0).repeat(15, 1)
    membrane = (np.diff(bricks, axis=0, append=13) != 0) | (np.diff(bricks, append=13) != 0)
    truth = np.where(membrane, 0, bricks)
    for growth in range(5):
        thick = ndimage.binary_dilation(membrane, iterations=growth) if growth else membrane
        scores = rand_information_scores(truth, 1 - thick)
        assert scores == pytest.approx({"rand": 1, "information": 1}, abs=0.03)
    assert rand_information_scores(truth, truth > 0) == {"rand": 1, "information": 1}


def test_a_gap_costs_more_than_its_pixels():
    truth = (np.arange(40) != 20)[None, :].repeat(30, 0)
    gap = truth.copy()
    gap[15, 20] = True
    speck = truth.copy()
    speck[15, 10] = False
    assert rand_information_scores(truth, gap)["rand"] == pytest.approx(2 / 3, abs=0.01)
    assert rand_information_scores(truth, gap)["information"] == pytest.approx(0, abs=0.01)
    assert rand_information_scores(truth, speck)["rand"] > 0.99


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_scores_agree_with_scikit_learn_and_scikit_image(seed, threshold):
    truth = cells(seed)
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=truth.shape), 2)
    probability = np.clip(ndimage.gaussian_filter(1.0 * (truth > 0), 1) + noise, 0, 1)
    scores = rand_information_scores(truth > 0, probability, threshold)
    segments = _thinned_segments(probability > threshold)
    numbers = ndimage.label(truth > 0)[0]
    lines = segments == 0
    segments[lines] = segments.max() + 1 + np.arange(lines.sum())
    foreground = numbers > 0
    t, s = numbers[foreground], segments[foreground]
    information = sklearn_metrics.normalized_mutual_info_score(t, s)
    assert scores["information"] == pytest.approx(information, abs=1e-9)
    # scikit-image counts pairs of two pixels, the challenge also each pixel with itself
    assert scores["rand"] == pytest.approx(1 - adapted_rand_error(numbers, segments)[0], abs=0.01)
    table = contingency_table(t, s, normalize=True, sparse_type="array").toarray()
    squares = [np.sum(p**2) for p in (table, table.sum(0), table.sum(1))]
    assert scores["rand"] == pytest.approx(2 * squares[0] / (squares[1] + squares[2]))
    entropies = [-np.sum(p[p > 0] * np.log2(p[p > 0])) for p in (table.sum(0), table.sum(1))]
    split_merge = variation_of_information(t, s).sum()
    assert scores["information"] == pytest.approx(1 - split_merge / sum(entropies))


def test_thinned_membranes_are_lines_that_part_every_cell():
    mask = cells(width=6) > 0
    segments = _thinned_segments(mask)
    count = ndimage.label(mask)[1]
    assert ndimage.label(segments > 0)[1] == count == segments.max()
    assert not ndimage.binary_erosion(segments == 0, np.ones((2, 2))).any()


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_predictions_without_borders_or_cells_score_low(value):
    truth = cells()
    scores = rand_information_scores(truth, np.full(truth.shape, value))
    assert 0 <= scores["rand"] < 0.3 and 0 <= scores["information"] < 0.7


def test_one_cell_found_as_one_is_perfect():
    ones = np.ones((5, 5), int)
    assert rand_information_scores(ones, ones) == {"rand": 1.0, "information": 1.0}


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        (np.ones((5, 5), int), np.ones((5, 6)), "one shape"),
        (np.ones((1, 5, 5), int), np.ones((1, 5, 5)), "one shape"),
        (np.ones((5, 5), int), np.full((5, 5), 255), "Divide 8-bit"),
        (np.ones((5, 5), int), np.full((5, 5), np.nan), "probability"),
        (np.zeros((5, 5), int), np.ones((5, 5)), "have cells"),
    ],
)
def test_scores_refuse(truth, prediction, message):
    with pytest.raises(ValueError, match=message):
        rand_information_scores(truth, prediction)


@pytest.mark.parametrize("num_classes", [1, 2, np.int64(2)])
@pytest.mark.parametrize("channel", [False, True])
def test_one_channel_of_a_sigmoid_is_class_1_above_a_half(num_classes, channel, rng):
    probabilities = rng.random((2, 5, 6, 1))
    truth = rng.integers(0, 2, (2, 5, 6))
    metric = SegmentationMetrics(num_classes, ignore_class=255)
    metric.update_state(truth[..., None] if channel else truth, probabilities)
    expected = sklearn_metrics.confusion_matrix(truth.ravel(), (probabilities > 0.5).ravel())
    np.testing.assert_array_equal(metric.confusion_matrix, expected)


@pytest.mark.parametrize("label", [0.5, 1.7, 2**32 + 1, np.nan, -1])
def test_labels_that_are_none_are_refused(label):
    truth = np.zeros((1, 2, 2), "float64" if isinstance(label, float) else "int64")
    truth[0, 0, 0] = label
    with pytest.raises(ValueError, match="whole numbers from 0 to 2"):
        SegmentationMetrics(3, ignore_class=255).update_state(truth, np.zeros((1, 2, 2), int))


@pytest.mark.parametrize("void", [-1, 1, 7, 255, 65535, 2**31 - 1, 2**40, np.uint8(255), 255.0])
def test_void_is_any_integer(void):
    truth = np.array([[[0, 2, int(void)]]])
    metric = SegmentationMetrics(3, ignore_class=void)
    metric.update_state(truth, np.array([[[0, 2, 2]]]))
    assert metric.confusion_matrix.sum() == metric.confusion_matrix.trace() == 2


def test_void_is_no_fraction():
    with pytest.raises(ValueError, match="`ignore_class` should be an integer"):
        SegmentationMetrics(3, ignore_class=0.5)


def test_predictions_of_nan_are_no_score():
    truth = np.zeros((1, 2, 2), int)
    scores = np.zeros((1, 2, 2, 3))
    scores[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="finite scores"):
        SegmentationMetrics(3).update_state(truth, scores)
    metric = SegmentationMetrics(3, ignore_class=255)
    metric.update_state(ops.convert_to_tensor(truth), ops.convert_to_tensor(scores))
    assert all(np.isnan(float(score)) for score in metric.result().values())
    assert np.isnan(metric.per_class_iou()).all()
    assert metric.confusion_matrix.sum() == 3
    metric.reset_state()
    truth[0, 0, 0] = 255  # what does not count may be anything
    metric.update_state(ops.convert_to_tensor(truth), ops.convert_to_tensor(scores))
    assert float(metric.result()["mean_iou"]) == 1


@pytest.mark.parametrize("shape", [(3, 4), (2, 3), (2, 4, 3), (2, 3, 4, 2), (3,)])
def test_sample_weights_that_can_not_be_meant_are_refused(shape):
    with pytest.raises(ValueError, match="`sample_weight` should be one number an image"):
        SegmentationMetrics(2).update_state(
            np.zeros((2, 3, 4), int), np.zeros((2, 3, 4), int), np.ones(shape)
        )


def test_one_hot_masks_are_explained():
    with pytest.raises(ValueError, match="argmax"):
        SegmentationMetrics(3).update_state(np.zeros((1, 2, 2, 3), int), np.zeros((1, 2, 2, 3)))


def test_fit_keeps_two_metrics(rng):
    model = keras.Sequential([keras.Input((None, None, 1)), keras.layers.Conv2D(3, 1)])
    metrics = [SegmentationMetrics(3), SegmentationMetrics(3, ignore_class=0, name="foreground")]
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(True), metrics=metrics)
    truth = rng.integers(0, 3, (2, 4, 4))
    history = model.fit(rng.random((2, 4, 4, 1)), truth, verbose=0).history
    assert {"mean_iou", "foreground_mean_iou", "foreground_pixel_accuracy"} <= set(history)


def test_a_void_label_beyond_the_dtype_marks_nothing():
    metric = SegmentationMetrics(3, ignore_class=2**40)
    metric.update_state(np.array([[[0, 2]]], "int32"), np.array([[[0, 2]]]))
    assert metric.confusion_matrix.sum() == 2


@pytest.mark.parametrize("wrong", [3, -1, 0.5])
@pytest.mark.parametrize("argument", [0, 1])
def test_boundaries_are_of_labels(wrong, argument):
    maps = [np.zeros((4, 4)), np.zeros((4, 4))]
    maps[argument][0, 0] = wrong
    with pytest.raises(ValueError, match="whole numbers from 0 to 2"):
        boundary_f1(*maps, num_classes=3)


@pytest.mark.parametrize("wrong", [-1, 0.5, np.nan])
def test_cells_have_whole_numbers(wrong):
    with pytest.raises(ValueError, match="whole numbers from 0 up"):
        rand_information_scores(np.array([[1, wrong]]), np.array([[0.9, 0.1]]))


@pytest.mark.parametrize(("end", "is_scored"), [("sigmoid", True), (None, False)])
def test_scores_before_a_sigmoid_have_no_score(end, is_scored, rng):
    scores = rng.normal(0, 3, (2, 6, 7, 1)).astype("float32")
    truth = (scores[..., 0] > 0).astype("int32")
    metric = SegmentationMetrics(num_classes=1, ignore_class=255)
    tensor = keras.ops.convert_to_tensor(scores)
    metric.update_state(truth, keras.ops.sigmoid(tensor) if end else tensor)
    result = {name: float(value) for name, value in metric.result().items()}
    assert all(value == 1 if is_scored else np.isnan(value) for value in result.values()), result
    # where a pixel is void, its score is not looked at
    metric.reset_state()
    metric.update_state(np.where(abs(scores[..., 0] - 0.5) > 0.5, 255, truth), tensor)
    assert np.isfinite(float(metric.result()["pixel_accuracy"]))
