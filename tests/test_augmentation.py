import hypothesis
import hypothesis.strategies as st
import keras
import numpy as np
import pytest
import tensorflow as tf
from skimage.color import rgb2hsv

from keras_fcn.datasets import Augmentation

IGNORE = 255
EVERYTHING = Augmentation(
    "horizontal_and_vertical", 180, 0.5, 0.5, 0.2, elastic=5, saturation=0.5, hue=0.2
)
NONE = Augmentation(flip=None)
DIHEDRAL = [
    lambda x, turns=turns, step=step: np.rot90(x[::step], turns)
    for turns in range(4)
    for step in (1, -1)
]


def pair(rng, height=24, width=40, channels=3, labels=(0, 1, 2)):
    image = rng.integers(0, 256, (height, width, channels), "uint8")
    return image, rng.choice(labels, (height, width)).astype("int32")


def numpy(pair):
    return [tensor.numpy() for tensor in pair]


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(
    st.sets(st.integers(-1, 2**20), min_size=1, max_size=4),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.sampled_from([0, 11, 255]),
    st.integers(0, 2**31 - 1),
)
def test_no_label_appears_that_was_not_there(labels, size, ignore, seed):
    rng = np.random.default_rng(seed)
    image, label_map = pair(rng, *size, labels=sorted(labels))
    image, augmented = numpy(EVERYTHING(image, label_map, (seed, 0), ignore))
    assert image.dtype == np.uint8
    assert augmented.dtype == np.int32
    assert augmented.shape == image.shape[:2] == size
    assert set(np.unique(augmented)) <= set(np.unique(label_map)) | {ignore}


def test_without_transformations_nothing_changes(rng):
    image, labels = pair(rng)
    for result, original in zip(numpy(NONE(image, labels, (0, 0))), (image, labels), strict=True):
        np.testing.assert_array_equal(result, original)


@pytest.mark.parametrize(
    ("augmentation", "transforms"),
    [
        (Augmentation("horizontal"), [lambda x: x, lambda x: x[:, ::-1]]),
        (Augmentation("vertical"), [lambda x: x, lambda x: x[::-1]]),
        (Augmentation("horizontal_and_vertical"), DIHEDRAL[:2] + DIHEDRAL[4:6]),
        (Augmentation("dihedral"), DIHEDRAL),
    ],
)
def test_flips_are_exact_and_all_occur(rng, augmentation, transforms):
    image, labels = pair(rng)
    seen = set()
    for seed in range(6 * len(transforms)):
        flipped = numpy(augmentation(image, labels, (seed, 0)))
        match = [
            np.array_equal(flipped[0], transform(image))
            and np.array_equal(flipped[1], transform(labels))
            for transform in transforms
        ]
        assert sum(match) == 1
        seen.add(match.index(True))
    assert seen == set(range(len(transforms)))


@pytest.mark.parametrize(
    "augmentation",
    [
        Augmentation(None, rotation=180),
        Augmentation(None, scale=0.5),
        Augmentation(None, elastic=8),
        Augmentation("horizontal_and_vertical", 180, 0.5, elastic=8),
        Augmentation("dihedral", 180, 0.5, elastic=8),
    ],
    ids=str,
)
def test_image_and_labels_move_together(augmentation):
    """On an image that shows its labels, coarse enough that few pixels are edges."""
    labels = np.kron(np.arange(16).reshape(4, 4) % 5, np.ones((16, 16))).astype("int32")
    image = (labels * 50).astype("uint8")[..., None]
    for seed in range(4):
        moved, moved_labels = numpy(augmentation(image, labels, (seed, 0), IGNORE))
        inside = moved_labels != IGNORE
        assert 0 < inside.sum()
        agree = np.abs(moved[..., 0][inside] - 50.0 * moved_labels[inside]) < 25
        assert agree.mean() > 0.95
        assert not moved[~inside].any()


def test_void_appears_where_nothing_was():
    image, labels = np.full((32, 64, 1), 200, "uint8"), np.ones((32, 64), "int32")
    zoomed_out = Augmentation(None, scale=0.9)
    results = [numpy(zoomed_out(image, labels, (seed, 0), IGNORE)) for seed in range(8)]
    assert any((labels == IGNORE).any() for _, labels in results)
    for image, labels in results:
        np.testing.assert_array_equal(labels == IGNORE, image[..., 0] == 0)
        assert labels[16, 32] == 1


def test_elastic_displacements_are_the_papers():
    """Normal with the given deviation at the grid, smooth between, along both axes alike."""
    from keras_fcn.datasets.augmentation import _displacements

    fields = np.stack([_displacements((96, 96), 10.0, (seed, 0)) for seed in range(200)])
    at_grid = fields[:, 16::32, 16::32]  # the middles of thirds are the 3 x 3 grid's points
    assert at_grid.shape[1:] == (3, 3, 2)
    np.testing.assert_allclose(at_grid.std(0), 10, rtol=0.25)
    assert abs(np.corrcoef(at_grid[..., 0].ravel(), at_grid[..., 1].ravel())[0, 1]) < 0.1
    assert abs(np.diff(fields, axis=1)).max() < 3


def test_same_seed_same_result_and_another_seed_another(rng):
    image, labels = pair(rng)
    first, again, other = (numpy(EVERYTHING(image, labels, (s, 0))) for s in (1, 1, 2))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert (first[0] != other[0]).any()


@pytest.mark.parametrize("name", ["contrast", "brightness", "saturation", "hue"])
def test_values_change_and_labels_do_not(rng, name):
    image, labels = pair(rng, channels=3)
    augmented, unchanged = numpy(Augmentation(None, **{name: 0.5})(image, labels, (0, 0)))
    assert (augmented != image).any()
    np.testing.assert_array_equal(unchanged, labels)


def test_saturation_and_hue_are_those_of_hsv(rng):
    """Each leaves the other two of hue, saturation and value, of colours neither gray nor full."""
    image, labels = pair(rng, channels=3)
    image = np.clip(image, 60, 200) // [1, 2, 3]
    for name, index in (("hue", 0), ("saturation", 1)):
        augmented, _ = numpy(Augmentation(None, **{name: 0.2})(image, labels, (0, 0)))
        before, after = rgb2hsv(image.astype("uint8")), rgb2hsv(augmented)
        difference = abs(after - before).mean((0, 1))
        assert difference[index] > 0.02
        assert np.delete(difference, index).max() < 0.01


def test_colours_of_gray_images_are_explained(rng):
    image, labels = pair(rng)
    with pytest.raises(ValueError, match=r"RGB images\. Received: images of 1 channel"):
        Augmentation(hue=0.1)(image[..., :1], labels, (0, 0))


def test_margin_keeps_void_out_of_crops():
    augmentation = Augmentation("horizontal", 45, 0.25)
    side = 32 + 2 * augmentation.margin(32)
    image, labels = np.zeros((side, side, 1), "uint8"), np.zeros((side, side), "int32")
    for seed in range(20):
        _, crop = augmentation(image, labels, (seed, 0), IGNORE, augmentation.margin(32))
        assert crop.shape == (32, 32)
        assert not (crop.numpy() == IGNORE).any()


def test_half_precision_policy_does_not_blur_places(rng):
    image, labels = pair(rng, 300, 300)
    expected = numpy(Augmentation(None, 30)(image, labels, (3, 0)))
    keras.config.set_dtype_policy("mixed_bfloat16")
    actual = numpy(Augmentation(None, 30)(image, labels, (3, 0)))
    np.testing.assert_array_equal(actual[1], expected[1])


def test_inside_tf_data_it_gives_what_it_gives_outside(rng):
    image, labels = pair(rng)
    dataset = tf.data.Dataset.from_tensors((image, labels)).repeat(3)
    seeds = tf.data.Dataset.from_tensor_slices([[1, 0], [2, 0], [3, 0]])
    mapped = tf.data.Dataset.zip(dataset, seeds).map(
        lambda pair, seed: EVERYTHING(*pair, seed=seed, ignore=IGNORE), num_parallel_calls=2
    )
    for seed, result in enumerate(mapped, 1):
        for inside, outside in zip(
            numpy(result), numpy(EVERYTHING(image, labels, (seed, 0), IGNORE)), strict=True
        ):
            np.testing.assert_allclose(inside.astype(int), outside.astype(int), atol=1)


@pytest.mark.parametrize(
    "arguments",
    [
        {"flip": "horizontl"},
        {"rotation": 181},
        {"rotation": -1},
        {"scale": 1},
        {"contrast": 2},
        {"brightness": "0.1"},
        {"elastic": -1},
        {"saturation": 1},
        {"hue": -0.1},
    ],
    ids=str,
)
def test_arguments_out_of_range(arguments):
    with pytest.raises(ValueError, match=f"`{next(iter(arguments))}` should be"):
        Augmentation(**arguments)
