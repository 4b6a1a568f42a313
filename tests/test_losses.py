import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_fcn.losses import DiceCrossentropy, WeightedCrossentropy, border_weights

CLASSES = 3
VOID = 255
CLASS_WEIGHTS = [0.5, 1.0, 4.0]


def maps(void=VOID, seed=0):
    """Labels (2, 4, 5) with void pixels, and probabilities (2, 4, 5, 3)."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, (2, 4, 5))
    labels[0, :2] = void
    probabilities = rng.dirichlet(np.ones(CLASSES), labels.shape).astype("float32")
    return labels, probabilities


def pixel_losses(labels, probabilities, void=VOID, class_weights=(1, 1, 1)):
    """The losses of the labelled pixels, by definition, and which pixels they are."""
    labelled = labels != void
    label = labels[labelled]
    picked = np.take_along_axis(probabilities[labelled], label[:, None], axis=1)[:, 0]
    return -np.log(picked) * np.asarray(class_weights)[label], labelled


@pytest.mark.parametrize("void", [VOID, CLASSES, -1, 1])
@pytest.mark.parametrize("dtype", ["int32", "int64", "float32"])
@pytest.mark.parametrize("channel", [False, True])
def test_mean_over_the_labelled_pixels(void, dtype, channel):
    labels, probabilities = maps(void)
    expected, _ = pixel_losses(labels, probabilities, void, CLASS_WEIGHTS)
    y_true = labels.astype(dtype)[..., None] if channel else labels.astype(dtype)
    loss = WeightedCrossentropy(CLASS_WEIGHTS, ignore_class=void)
    assert float(loss(y_true, probabilities)) == pytest.approx(expected.mean(), rel=1e-5)


@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize("ignore_class", [None, VOID])
@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "mean_with_sample_weight"])
def test_without_class_weights_it_is_kerass_own(from_logits, ignore_class, reduction):
    labels, y_pred = maps(void=0 if ignore_class is None else VOID)
    weights = np.random.default_rng(1).random(labels.shape)
    arguments = dict(ignore_class=ignore_class, from_logits=from_logits, reduction=reduction)
    ours = WeightedCrossentropy(**arguments)(labels, y_pred, weights)
    keras_own = keras.losses.SparseCategoricalCrossentropy(**arguments)(labels, y_pred, weights)
    assert float(ours) == pytest.approx(float(keras_own), rel=1e-5)


@pytest.mark.parametrize("shape", [(2,), (2, 1), (2, 4, 5), (2, 4, 5, 1)])
def test_sample_weights_of_images_and_pixels(shape):
    labels, probabilities = maps()
    weights = np.random.default_rng(1).random(shape)
    expected, labelled = pixel_losses(labels, probabilities, class_weights=CLASS_WEIGHTS)
    per_pixel = np.broadcast_to(weights.reshape((*shape, 1, 1)[:3]), labels.shape)[labelled]
    loss = WeightedCrossentropy(CLASS_WEIGHTS, ignore_class=VOID)
    value = float(loss(labels, probabilities, weights))
    assert value == pytest.approx((expected * per_pixel).mean(), rel=1e-5)


def test_the_sum_of_the_fcn_paper_and_the_map():
    labels, probabilities = maps()
    expected, labelled = pixel_losses(labels, probabilities, class_weights=CLASS_WEIGHTS)
    total = WeightedCrossentropy(CLASS_WEIGHTS, VOID, reduction="sum")(labels, probabilities)
    assert float(total) == pytest.approx(expected.sum(), rel=1e-5)
    each = np.asarray(
        WeightedCrossentropy(CLASS_WEIGHTS, VOID, reduction=None)(labels, probabilities)
    )
    np.testing.assert_allclose(each[labelled], expected, rtol=1e-4)
    assert not each[~labelled].any()


@pytest.mark.parametrize("loss", [WeightedCrossentropy, DiceCrossentropy])
def test_only_void_pixels_give_no_loss(loss):
    labels, probabilities = maps()
    assert float(loss(ignore_class=VOID)(np.full_like(labels, VOID), probabilities)) == 0


@pytest.mark.parametrize("loss", [WeightedCrossentropy, DiceCrossentropy])
@pytest.mark.parametrize("from_logits", [False, True])
def test_fit_with_class_weights_void_and_sample_weights(loss, from_logits):
    classes = np.random.default_rng(0).integers(0, CLASSES, (4, 8, 8))
    images = np.eye(CLASSES, dtype="float32")[classes]
    labels = classes.astype("float32")
    labels[:2, :3] = VOID
    labels[3] = VOID  # an image without labels
    weights = np.where(labels == 2, 2.0, 1.0)
    activation = "linear" if from_logits else "softmax"
    model = keras.Sequential([keras.layers.Conv2D(CLASSES, 1, activation=activation)])
    loss = loss(CLASS_WEIGHTS, ignore_class=VOID, from_logits=from_logits)
    model.compile(keras.optimizers.Adam(0.2), loss)
    history = model.fit(
        images, labels, sample_weight=weights, batch_size=2, epochs=15, verbose=0
    ).history["loss"]
    assert np.isfinite(history).all()
    np.testing.assert_array_equal(model.predict(images, verbose=0).argmax(-1), classes)


@pytest.mark.parametrize("loss", [WeightedCrossentropy, DiceCrossentropy])
def test_a_saved_model_keeps_its_loss(loss, tmp_path):
    labels, probabilities = maps()
    model = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Activation("softmax")])
    model.compile("sgd", loss(CLASS_WEIGHTS, ignore_class=VOID, from_logits=False))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.loss.get_config() == model.loss.get_config()
    before, after = (m.evaluate(probabilities, labels, verbose=0) for m in (model, loaded))
    assert before == after


@pytest.mark.parametrize(
    "weights", [[1, -1, 1], [1, np.inf, 1], [1, np.nan, 1], [[1, 1, 1]], {0: 1, 1: 1, 2: 1}, 2]
)
def test_wrong_class_weights_are_refused(weights):
    with pytest.raises(ValueError, match="class_weights"):
        WeightedCrossentropy(weights)


def test_the_number_of_class_weights_is_that_of_the_classes():
    with pytest.raises(ValueError, match="2 weights for 3 classes"):
        WeightedCrossentropy([1, 2])(*maps(void=0))


@pytest.mark.parametrize("shape", [(2, 4, 5), (4, 5, 3)])
def test_y_pred_is_a_batch_of_maps_of_classes(shape):
    with pytest.raises(ValueError, match="y_pred"):
        WeightedCrossentropy()(np.zeros((2, 4, 5), int), np.zeros(shape))


def dice_losses(labels, probabilities):
    """The Dice losses of images, by definition, from their labelled pixels."""
    losses = []
    for label, probability in zip(labels, probabilities, strict=True):
        labelled = label != VOID
        label, probability = label[labelled], probability[labelled]
        dice = [
            2 * probability[label == c, c].sum() / (probability[:, c].sum() + np.sum(label == c))
            for c in np.unique(label)
        ]
        losses.append(1 - np.mean(dice))
    return np.array(losses)


@pytest.mark.parametrize("from_logits", [False, True])
def test_dice_crossentropy_by_definition(from_logits):
    labels, probabilities = maps()
    labels[1][labels[1] == 2] = 0  # a class that does not occur in the truth of an image
    crossentropy, labelled = pixel_losses(labels, probabilities, class_weights=CLASS_WEIGHTS)
    dice = np.broadcast_to(dice_losses(labels, probabilities)[:, None, None], labels.shape)
    y_pred = np.log(probabilities) + 3 if from_logits else probabilities
    loss = DiceCrossentropy(CLASS_WEIGHTS, ignore_class=VOID, from_logits=from_logits)
    expected = crossentropy.mean() + dice[labelled].mean()
    assert float(loss(labels, y_pred)) == pytest.approx(expected, rel=1e-4)


def test_the_best_prediction_has_no_dice_crossentropy():
    labels, _ = maps()
    perfect = np.eye(CLASSES, dtype="float32")[np.where(labels == VOID, 0, labels)]
    assert float(DiceCrossentropy(ignore_class=VOID)(labels, perfect)) == pytest.approx(0, abs=1e-5)


def border_weights_by_definition(labels, w0, sigma):
    """Equation 2 of the U-Net paper, pixel by pixel, for an instance map of connected cells."""
    padded = np.pad(labels, 1, mode="edge")
    sides = [padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]]
    border = np.any([side != labels for side in sides], axis=0)
    weights = np.ones(labels.shape)
    for y, x in np.ndindex(*labels.shape):
        distances = [
            np.sqrt(((np.argwhere(border & (labels == cell)) - (y, x)) ** 2).sum(1)).min()
            for cell in np.unique(labels[labels > 0])
            if np.any(border & (labels == cell))
        ]
        if len(distances) >= 2:
            weights[y, x] += w0 * np.exp(-(sum(sorted(distances)[:2]) ** 2) / (2 * sigma**2))
    return weights


@settings(max_examples=30, deadline=None)
@given(
    cells=hnp.arrays("uint8", (3, 4), elements=st.integers(0, 12), unique=False),
    sigma=st.sampled_from([0.4, 2.0, 5.0]),
)
def test_border_weights_by_definition(cells, sigma):
    # blocks with labels of their own, some touching, some removed, some with a gap
    labels = np.where(cells > 4, np.arange(1, 13).reshape(3, 4), 0).repeat(4, 0).repeat(4, 1)
    labels[:, 6:8] = 0
    expected = border_weights_by_definition(labels, 10, sigma)
    np.testing.assert_allclose(border_weights(labels, sigma=sigma), expected, rtol=1e-5)


def test_a_semantic_map_counts_connected_pieces():
    instances = np.zeros((20, 20), "int32")
    instances[2:9, 2:9], instances[2:9, 11:18], instances[11:18, 2:18] = 1, 2, 3
    semantic = (instances > 0).astype("uint8")
    np.testing.assert_array_equal(border_weights(semantic), border_weights(instances))
    np.testing.assert_array_equal(border_weights(semantic == 1), border_weights(instances))


@pytest.mark.parametrize("labels", [np.zeros((5, 6), int), np.ones((5, 6), int), np.eye(5, 6) > 2])
def test_without_two_cells_the_class_weights_are_left(labels):
    weights = border_weights(labels, class_weights=(2, 3))
    assert weights.dtype == "float32"
    np.testing.assert_array_equal(weights, np.where(labels > 0, 3, 2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": np.zeros((5, 5, 1), int)}, "labels"),
        ({"labels": np.zeros((5, 5))}, "labels"),
        ({"labels": np.full((5, 5), -1)}, "labels"),
        ({"labels": np.zeros((5, 5), int), "sigma": 0}, "sigma"),
        ({"labels": np.zeros((5, 5), int), "w0": -1}, "w0"),
        ({"labels": np.zeros((5, 5), int), "class_weights": (1, 2, 3)}, "class_weights"),
    ],
)
def test_border_weights_refuse(arguments, message):
    with pytest.raises(ValueError, match=message):
        border_weights(**arguments)


@pytest.mark.parametrize("loss", [WeightedCrossentropy, DiceCrossentropy])
def test_a_sigmoid_is_a_softmax_over_zero_and_its_score(loss, rng):
    scores = rng.normal(0, 2, (2, 4, 5, 1)).astype("float32")
    labels = rng.choice([0, 1, VOID], (2, 4, 5))
    pair = np.concatenate([np.zeros_like(scores), scores], -1)
    options = {"class_weights": [1, 3], "ignore_class": VOID}
    expected = float(loss(**options, from_logits=True)(labels, pair))
    assert float(loss(**options, from_logits=True)(labels, scores)) == pytest.approx(expected)
    probabilities = 1 / (1 + np.exp(-scores))
    assert float(loss(**options)(labels, probabilities)) == pytest.approx(expected, rel=1e-5)


def test_one_channel_is_kerass_binary_crossentropy(rng):
    probabilities = rng.uniform(0.01, 0.99, (2, 4, 5, 1))
    labels = rng.integers(0, 2, (2, 4, 5))
    expected = keras.losses.BinaryCrossentropy()(labels[..., None], probabilities)
    ours = WeightedCrossentropy()(labels, probabilities)
    assert float(ours) == pytest.approx(float(expected), rel=1e-5)


def gradient(loss, labels, scores, weights=None):
    """The loss of a convolution's weight after a step of 1, and whether all weights are finite."""
    model = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(3, 1)])
    model.layers[0].set_weights([np.eye(3)[None, None], np.zeros(3)])
    model.compile(keras.optimizers.SGD(1.0), loss, jit_compile=False)
    value = model.train_on_batch(scores, labels, weights)
    return float(value), np.isfinite(model.layers[0].get_weights()[0]).all()


@pytest.mark.parametrize("loss", [WeightedCrossentropy, DiceCrossentropy])
@pytest.mark.parametrize("of", ["void", "weight"])
def test_what_does_not_count_may_be_nan(loss, of, rng):
    scores = rng.normal(size=(2, 4, 5, 3)).astype("float32")
    labels = rng.integers(0, 3, (2, 4, 5))
    weights = np.ones(labels.shape, "float32")
    if of == "void":
        labels[0, 0] = VOID
    else:
        weights[0, 0] = 0
    loss = loss(ignore_class=VOID, from_logits=True)
    expected = float(loss(labels, scores, weights))
    scores[0, 0] = np.nan
    assert float(loss(labels, scores, weights)) == pytest.approx(expected, rel=1e-5)
    if of == "void":  # of a convolution 0 times NaN is NaN: its own gradient, not the loss's
        assert np.isfinite(expected)


@pytest.mark.parametrize(
    "reduction", ["sum_over_batch_size", "mean", "sum", "mean_with_sample_weight"]
)
@pytest.mark.parametrize("loss", [WeightedCrossentropy, DiceCrossentropy])
def test_a_batch_of_no_images_adds_nothing(loss, reduction):
    value = loss(reduction=reduction, ignore_class=VOID)(
        np.zeros((0, 4, 5), int), np.zeros((0, 4, 5, 3), "float32")
    )
    assert float(value) == 0


@pytest.mark.parametrize("label", [3, -1, 0.5, 1.7, 2**32 + 1])
def test_labels_that_are_none_are_refused_on_the_host(label):
    labels = np.zeros((1, 2, 2)) + label
    with pytest.raises(ValueError, match="whole numbers from 0 to 2"):
        WeightedCrossentropy(ignore_class=VOID)(labels, np.full((1, 2, 2, 3), 1 / 3))


@pytest.mark.parametrize("label", [3, -1, 0.5])
def test_in_a_step_they_are_a_loss_of_nan_that_moves_no_weight(label, rng):
    labels = rng.integers(0, 3, (1, 4, 5)).astype("float32")
    labels[0, 0, 0] = label
    loss = WeightedCrossentropy(ignore_class=VOID, from_logits=True)
    value, finite = gradient(loss, labels, rng.normal(size=(1, 4, 5, 3)).astype("float32"))
    assert np.isnan(value)
    assert finite


@pytest.mark.parametrize("shape", [(4, 5), (2, 4), (3,), (2, 5, 4), (2, 4, 5, 3), ()])
def test_sample_weights_that_can_not_be_meant_are_refused(shape):
    labels, probabilities = maps()
    weights = np.ones(shape) if shape else 2.0
    with pytest.raises(ValueError, match="`sample_weight` should be one number an image"):
        WeightedCrossentropy(ignore_class=VOID)(labels, probabilities, weights)


def test_one_hot_masks_are_explained():
    with pytest.raises(ValueError, match="argmax"):
        WeightedCrossentropy()(np.zeros((1, 2, 2, 3), int), np.full((1, 2, 2, 3), 1 / 3))


@pytest.mark.parametrize("options", [{"sigma": np.inf}, {"sigma": np.nan}, {"w0": np.inf}])
def test_border_weights_are_finite(options):
    with pytest.raises(ValueError, match="both finite"):
        border_weights(np.ones((2, 2), int), **options)


def test_a_label_that_is_none_may_stand_where_nothing_counts(rng):
    labels = keras.ops.convert_to_tensor(np.array([[[0, 7]]]))
    scores = rng.normal(size=(1, 1, 2, 3))
    loss = WeightedCrossentropy(from_logits=True)
    assert np.isnan(float(loss(labels, scores)))
    assert np.isfinite(float(loss(labels, scores, np.array([[[1, 0]]]))))
