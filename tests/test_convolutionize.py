from fractions import Fraction

import keras
import numpy as np
import pytest
from conftest import call, narrow_keras_networks, randomize
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from keras_fcn import UNet, compare, dense_to_conv, fully_convolutional, window_of


def outputs_of(model, images):
    result = model(np.asarray(images, "float32"), training=False)
    return [keras.ops.convert_to_numpy(output) for output in keras.tree.flatten(result)]


def check_every_window(classifier, rng, rows=2, columns=3):
    """The converted model's outputs are the classifier's on each window of a larger image."""
    model = fully_convolutional(classifier)
    assert model.count_params() == classifier.count_params()
    strides = model.stride if isinstance(model.stride, list) else [model.stride]
    (height, width), step = model.window, strides[0]
    size = (height + (rows - 1) * step[0] + 1, width + (columns - 1) * step[1] + step[1] - 1)
    image = rng.normal(size=(1, *size, classifier.input_shape[-1]))
    for number, (result, stride) in enumerate(zip(outputs_of(model, image), strides, strict=True)):
        tops = range(0, size[0] - height + 1, stride[0])
        lefts = range(0, size[1] - width + 1, stride[1])
        windows = [image[0, y : y + height, x : x + width] for y in tops for x in lefts]
        expected = outputs_of(classifier, np.stack(windows))[number]
        expected = expected.reshape(len(tops), len(lefts), -1)
        # windows of which only pixels are missing that the classifier drops may come last
        result = result[0, : len(tops), : len(lefts)]
        np.testing.assert_allclose(result, expected, atol=1e-5 * abs(expected).max())
    return model


def lenet5():
    return keras.Sequential(
        [
            keras.Input((32, 32, 1), name="digits"),
            layers.Conv2D(6, 5, activation="tanh", name="C1"),
            layers.AveragePooling2D(2, name="S2"),
            layers.Conv2D(16, 5, activation="tanh", name="C3"),
            layers.AveragePooling2D(2, name="S4"),
            layers.Flatten(name="flatten"),
            layers.Dense(120, activation="tanh", name="C5"),
            layers.Dense(84, activation="tanh", name="F6"),
            layers.Dense(10, activation="softmax", name="output"),
        ],
        name="lenet5",
    )


def alexnet():
    """AlexNet's strides, kernels and overlapping pooling, unpadded, with few filters."""
    return keras.Sequential(
        [
            keras.Input((163, 163, 3)),
            layers.Conv2D(8, 11, strides=4, activation="relu"),
            layers.MaxPooling2D(3, strides=2),
            layers.Conv2D(12, 5, activation="relu"),
            layers.MaxPooling2D(3, strides=2),
            layers.Conv2D(12, 3, activation="relu"),
            layers.MaxPooling2D(3, strides=2),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(32, use_bias=False),
            layers.BatchNormalization(axis=1),
            layers.ReLU(),
            layers.Dense(5),
            layers.Softmax(),
        ]
    )


def two_outputs():
    """Branches, joined flattened maps, a pooled head beside a dense one, a shared layer."""
    images = keras.Input((20, 26, 3))
    x = layers.Conv2D(4, 3, name="shared_by_both")(images)
    a, b = layers.MaxPooling2D(2)(x), layers.AveragePooling2D(2)(x)
    shared = layers.Conv2D(4, 3, activation="relu")
    a, b = shared(a), shared(b)
    joined = layers.Concatenate()([layers.Flatten()(a), layers.Flatten()(b)])
    pooled = layers.Concatenate(axis=1)(
        [layers.GlobalMaxPooling2D()(a), layers.GlobalAveragePooling2D(keepdims=False)(b)]
    )
    first = layers.Dense(5, activation="softmax")(layers.Dense(8)(joined))
    second = layers.Add()([layers.Dense(3)(pooled), layers.Dense(3)(joined)])
    return keras.Model(images, [first, second])


def nested():
    """A Sequential trunk and head in a functional model, with arithmetic between."""
    trunk = keras.Sequential(
        [keras.Input((14, 14, 2)), layers.Conv2D(3, 3), layers.MaxPooling2D(2)], name="trunk"
    )
    head = keras.Sequential([keras.Input((108,)), layers.Dense(6), layers.Dense(4)], name="head")
    images = keras.Input((14, 14, 2))
    return keras.Model(images, head(layers.Flatten()(trunk(images * 2.0 - 1.0))))


def twins():
    """A small MobileNet-like head: pooling that keeps its axes, 1x1 convolution, `Reshape`."""
    images = keras.Input((12, 15, 2))
    x = layers.SeparableConv2D(6, 3, strides=2)(images)
    x = layers.LeakyReLU()(layers.BatchNormalization()(x))
    x = layers.GlobalAveragePooling2D(keepdims=True)(x)
    x = layers.Reshape((4,))(layers.Conv2D(4, 1)(layers.Dropout(0.1)(x)))
    return keras.Model(images, layers.Activation("softmax")(x))


@pytest.mark.parametrize("build", [lenet5, alexnet, two_outputs, nested, twins])
def test_every_window_is_the_classifiers(build, rng):
    classifier = build()
    randomize(classifier, rng, scale=0.3)
    check_every_window(classifier, rng)


def test_result_is_an_ordinary_model_of_the_same_layers(rng, tmp_path):
    classifier = lenet5()
    model = fully_convolutional(classifier)
    assert model.name == "lenet5"
    assert (model.window, model.stride) == ((32, 32), (4, 4))
    assert [layer.name for layer in model.layers] == [
        "digits", *(layer.name for layer in classifier.layers),
    ]  # fmt: skip
    assert model.get_layer("C5").kernel.shape == (5, 5, 16, 120)
    assert model.get_layer("F6").kernel.shape == (1, 1, 120, 84)
    images = rng.normal(size=(2, 40, 37, 1)).astype("float32")
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(call(loaded, images), call(model, images))
    before = classifier.get_weights()
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(images, np.zeros((2, 3, 2)), verbose=0)
    for old, new in zip(before, classifier.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)  # the classifier's weights are its own


def test_settings_of_dense_layers_go_over():
    dense = layers.Dense(3, kernel_regularizer="l2", bias_constraint="non_neg", trainable=False)
    model = fully_convolutional(keras.Sequential([keras.Input((4, 4, 1)), layers.Flatten(), dense]))
    conv = model.get_layer(dense.name)
    assert conv.kernel_regularizer.get_config() == dense.kernel_regularizer.get_config()
    assert isinstance(conv.bias_constraint, keras.constraints.NonNeg)
    assert not conv.trainable


@pytest.mark.slow
@pytest.mark.parametrize("name", ["VGG16", "VGG19", "MobileNet", "Xception", "ResNet50",
                                  "EfficientNetV2B0"])  # fmt: skip
def test_keras_applications_agree_at_their_size_and_slide(name, rng, monkeypatch):
    narrow_keras_networks(monkeypatch)
    size = 71 if name == "Xception" else 64
    classifier = getattr(keras.applications, name)(
        weights=None, input_shape=(size, size, 3), classes=12
    )
    model = fully_convolutional(classifier)
    assert model.stride == (32, 32)
    image = rng.uniform(0, 255, (1, size, size, 3))
    expected = call(classifier, image)
    np.testing.assert_allclose(call(model, image)[0, 0], expected, atol=1e-5 * abs(expected).max())
    assert call(model, rng.random((1, size + 32, size + 64, 3))).shape == (1, 2, 3, 12)


STAGES = {
    "conv": lambda x, kernel, stride: layers.Conv2D(kernel + 1, kernel, strides=stride)(x),
    "depthwise": lambda x, kernel, _: layers.DepthwiseConv2D(kernel, activation="relu")(x),
    "pool": lambda x, kernel, stride: layers.MaxPooling2D(kernel, strides=stride)(x),
    "norm": lambda x, *_: layers.ReLU()(layers.BatchNormalization()(x)),
    "residual": lambda x, *_: x + layers.Conv2D(x.shape[-1], 1, activation="tanh")(x),
}
HEADS = {
    "flatten": lambda x: layers.Dropout(0.2)(layers.Flatten()(x)),
    "average": lambda x: layers.GlobalAveragePooling2D()(x),
    "max": lambda x: layers.GlobalMaxPooling2D(keepdims=True)(x),
    "both": lambda x: layers.Concatenate()(
        [layers.Dense(3)(layers.Flatten()(x)), layers.GlobalAveragePooling2D()(x)]
    ),
}


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    shape=st.tuples(st.integers(12, 20), st.integers(12, 20), st.integers(1, 3)),
    stages=st.lists(
        st.tuples(st.sampled_from(sorted(STAGES)), st.integers(1, 3), st.integers(1, 2)),
        min_size=1,
        max_size=3,
    ),
    head=st.sampled_from(sorted(HEADS)),
    units=st.lists(st.integers(1, 4), min_size=1, max_size=2),
)
def test_random_architectures_slide(shape, stages, head, units):
    images = x = keras.Input(shape)
    for stage, kernel, stride in stages:
        x = STAGES[stage](x, kernel, stride)
    x = HEADS[head](x)
    for count in units:
        x = layers.Dense(count, activation="tanh")(x)
    classifier = keras.Model(images, x)
    rng = np.random.default_rng(0)
    randomize(classifier, rng, scale=0.2)  # sums of what a tanh tells apart in float32
    check_every_window(classifier, rng)


def image_model(*stack, shape=(8, 8, 3)):
    return keras.Sequential([keras.Input(shape), *stack])


def add_the_row(images):
    return images + keras.ops.arange(images.shape[1], dtype=images.dtype)[:, None, None]


@pytest.mark.parametrize(
    ("build", "layer", "reason"),
    [
        (lambda: image_model(layers.Reshape((8, 24)), layers.LSTM(4, name="lstm")), "lstm", "LSTM"),
        (
            lambda: image_model(layers.Reshape((4, 16, 3), name="mix"), layers.Conv2D(1, 3)),
            "mix",
            "mixes positions",
        ),
        (
            lambda: image_model(layers.Lambda(
                lambda x: keras.ops.reshape(x, (-1, 4, 4, 12)), name="fixed",
                output_shape=(4, 4, 12))),
            "fixed",
            "every pixel alike",
        ),
        (
            lambda: image_model(layers.Permute((2, 1, 3), name="transpose"),
                                layers.Conv2D(2, 3, name="conv"), layers.Flatten(),
                                layers.Dense(2)),
            "conv",
            "axes of its map are permuted",
        ),
        (
            lambda: image_model(layers.PReLU(name="slopes"), layers.Flatten(), layers.Dense(2)),
            "slopes",
            "every pixel alike",
        ),
        (lambda: image_model(layers.RandomCrop(4, 4, name="crop")), "crop", "every pixel alike"),
        (
            lambda: image_model(layers.Lambda(add_the_row, name="row"), layers.Flatten(),
                                layers.Dense(2)),
            "row",
            "every pixel alike",
        ),
        (
            lambda: image_model(layers.LayerNormalization(axis=[1, 2, 3], name="norm")),
            "norm",
            "every pixel alike",
        ),
        (lambda: image_model(layers.Resizing(4, 4, name="resize")), "resize", "every pixel alike"),
        (lambda: image_model(layers.Flatten(name="flat")), "flat", "ends in a flattened"),
        (
            lambda: image_model(layers.Permute((2, 1, 3)), layers.GlobalMaxPooling2D(name="pool"),
                                layers.Dense(2)),
            "pool",
            "axes of its map are permuted",
        ),
        (
            lambda: image_model(layers.MaxPooling2D(2, data_format="channels_first", name="pool"),
                                layers.Flatten(), layers.Dense(2)),
            "pool",
            "data format is channels first",
        ),
        (
            lambda: image_model(layers.Flatten(data_format="channels_first", name="flat")),
            "flat",
            "channels first",
        ),
    ],
)  # fmt: skip
def test_what_can_not_slide_is_named(build, layer, reason):
    with pytest.raises(ValueError, match=f"'{layer}'.*{reason}"):
        fully_convolutional(build())


def join_along_the_height(images):
    return layers.Flatten()(layers.Concatenate(axis=1, name="join")([images, images]))


def join_flattened(images):
    smaller = layers.AveragePooling2D(3, strides=1)(images)
    return layers.Concatenate(name="join")([layers.Flatten()(images), layers.Flatten()(smaller)])


def share_a_dense_layer(images):
    dense = layers.Dense(2, name="join")
    pools = [layers.AveragePooling2D(size, strides=1)(images) for size in ((3, 6), (5, 3))]
    return layers.Add()([dense(layers.Flatten()(pool)) for pool in pools])


@pytest.mark.parametrize(
    ("join", "reason"),
    [
        (join_along_the_height, "joins maps along their height or width"),
        (join_flattened, "joins flattened maps of different sizes"),
        (share_a_dense_layer, "shared by maps of different sizes"),  # 6x6 and 4x9 pixels
    ],
)
def test_joins_that_can_not_slide_are_named(join, reason):
    images = keras.Input((8, 11, 3))
    with pytest.raises(ValueError, match=f"'join'.*{reason}"):
        fully_convolutional(keras.Model(images, layers.Dense(2)(join(images))))


def test_attention_over_positions_is_named():
    images = keras.Input((8, 8, 3))
    x = layers.Reshape((64, 3))(images)
    x = layers.MultiHeadAttention(1, 2, name="attention")(x, x)
    with pytest.raises(ValueError, match=r"'attention'.*relates positions"):
        fully_convolutional(keras.Model(images, layers.Dense(2)(layers.Flatten()(x))))


@pytest.mark.parametrize("model", [keras.Sequential([layers.Dense(2)]), "vgg16"])
def test_models_without_a_graph_are_refused(model):
    with pytest.raises(ValueError, match="built Sequential or functional"):
        fully_convolutional(model)


def test_inputs_that_are_no_images_of_fixed_size_are_refused():
    with pytest.raises(ValueError, match="fixed size"):
        fully_convolutional(keras.Sequential([keras.Input((7,)), layers.Dense(2)]))
    with pytest.raises(ValueError, match="fixed size"):
        fully_convolutional(keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(2, 1)]))
    volumes = keras.Sequential([keras.Input((4, 4, 4, 1)), layers.Flatten(), layers.Dense(2)])
    with pytest.raises(ValueError, match=r"fixed size.*Received: .* of shape \(4, 4, 4, 1\)"):
        fully_convolutional(volumes)


def test_lambda_that_treats_pixels_alike_goes_over(rng):
    classifier = image_model(
        layers.Lambda(lambda x: x / 255 - 0.5), layers.Flatten(), layers.Dense(2)
    )
    check_every_window(classifier, rng)


def test_dense_to_conv_is_the_dense_layer(rng):
    maps = rng.normal(size=(5, 3, 4, 2))
    kernel = rng.normal(size=(24, 6))
    conv = dense_to_conv(kernel, (3, 4))
    assert conv.shape == (3, 4, 2, 6)
    np.testing.assert_allclose(np.einsum("nhwc,hwcu->nu", maps, conv), maps.reshape(5, -1) @ kernel)
    with pytest.raises(ValueError, match=r"height=5 and width=5. Received: kernel.shape=\(24, 6\)"):
        dense_to_conv(kernel, 5)


def test_comparison_tells_shapes_parameters_and_difference():
    comparison = compare(lenet5())
    rows = {row.name: row for row in comparison.rows}
    assert rows["C5"].dense_kernel == (400, 120)
    assert rows["C5"].conv_kernel == (5, 5, 16, 120)
    assert rows["C1"].dense_kernel is None
    assert sum(row.parameters for row in comparison.rows) == comparison.parameters == 61_706
    assert comparison.largest_difference < 1e-5 * comparison.largest_output
    assert "dense layers: 59,134 of 61,706 parameters, 95.8%" in str(comparison)
    line = next(line for line in str(comparison).splitlines() if line.startswith("C5"))
    assert line.split() == ["C5", "400x120", "5x5x16x120", "48,120", "78.0%"]


def test_two_images_and_a_trunk_shared_by_them(rng):
    trunk = keras.Sequential([keras.Input((10, 12, 2)), layers.Conv2D(3, 3), layers.MaxPooling2D()])
    first, second = keras.Input((10, 12, 2), name="first"), keras.Input((10, 12, 2), name="second")
    flat = [layers.Flatten()(trunk(images)) for images in (first, second)]
    x = layers.Dense(6, activation="relu")(layers.Concatenate()(flat))
    classifier = keras.Model([first, second], layers.Dense(4)(x))
    model = fully_convolutional(classifier)
    assert [tensor.name for tensor in model.inputs] == ["first", "second"]
    assert model.count_params() == classifier.count_params()  # the trunk is there once
    images = rng.normal(size=(2, 1, 14, 16, 2)).astype("float32")
    result = keras.ops.convert_to_numpy(model(list(images)))
    assert result.shape == (1, 3, 3, 4)
    for i, j in np.ndindex(3, 3):
        windows = images[:, :, 2 * i : 2 * i + 10, 2 * j : 2 * j + 12]
        expected = keras.ops.convert_to_numpy(classifier(list(windows)))
        np.testing.assert_allclose(result[:, i, j], expected, atol=1e-5 * abs(expected).max())
    comparison = compare(classifier)
    assert comparison.largest_difference < 1e-5 * comparison.largest_output


@pytest.mark.parametrize("turn", [1, -1])
def test_squeeze_and_excitation_stays_global_and_its_head_slides(turn, rng):
    images = keras.Input((12, 12, 3))
    x = layers.Conv2D(4, 3, activation="relu")(images)
    gate = layers.GlobalAveragePooling2D(name="squeeze")(x)
    gate = layers.Dense(4, activation="sigmoid")(layers.Dense(2, activation="relu")(gate))
    x = layers.Multiply()([x, layers.Reshape((1, 1, 4))(gate)][::turn])
    classifier = keras.Model(images, layers.Dense(5)(layers.GlobalAveragePooling2D(name="head")(x)))
    model = fully_convolutional(classifier)
    assert isinstance(model.get_layer("squeeze"), layers.GlobalAveragePooling2D)
    assert model.get_layer("head").pool_size == (10, 10)
    image = rng.normal(size=(2, 12, 12, 3))
    np.testing.assert_allclose(call(model, image)[:, 0, 0], call(classifier, image), atol=1e-5)
    assert call(model, rng.normal(size=(1, 14, 17, 3))).shape == (1, 3, 6, 5)


def test_windows_are_known_after_saving_too(rng, tmp_path):
    unpadded, padded = lenet5(), keras.applications.MobileNet(weights=None, alpha=0.25, classes=3)
    oblong = [keras.Input((20, 34, 1)), layers.Conv2D(2, 5, strides=2), layers.Flatten()]
    oblong = keras.Sequential([*oblong, layers.Dense(3)])
    for classifier, stride in ((unpadded, (4, 4)), (padded, (32, 32)), (oblong, (2, 2))):
        model = fully_convolutional(classifier)
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        assert window_of(loaded) == window_of(model) == (classifier.input_shape[1:3], stride)
    dense = keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(2, 3, padding="same")])
    assert window_of(dense) == ((1, 1), (1, 1))
    assert window_of(unpadded) == ((32, 32), (1, 1))  # of one size


@pytest.mark.parametrize(
    ("filters", "smallest"),
    [((2, 2), 18), ((2, 2, 2), 44), ((2,) * 5, 188)],  # by the paper's figure 2
)
def test_the_window_of_a_network_that_takes_one_size_in_so_many(filters, smallest):
    model = UNet(filters=filters, padding="valid")
    assert window_of(model) == ((smallest, smallest), (1, 1))


def test_the_window_of_patches():
    patches = layers.Conv2D(2, 7, strides=7)
    model = keras.Sequential([keras.Input((None, None, 1)), patches])
    assert window_of(model) == ((7, 7), (7, 7))


def test_no_window_where_a_larger_image_makes_no_more():
    images = keras.Input((None, None, 3), name="images")
    model = keras.Model(images, layers.GlobalAveragePooling2D(keepdims=True)(images), name="mean")
    with pytest.raises(ValueError, match=r"more outputs of a larger image\. Received: 'mean'"):
        window_of(model)


def test_windows_of_a_classifier_that_enlarges_its_maps(rng, tmp_path):
    """Two outputs a pixel: every second one is that of a window."""
    stack = [keras.Input((6, 7, 1)), layers.UpSampling2D(2), layers.Conv2D(2, 3)]
    classifier = keras.Sequential([*stack, layers.Flatten(), layers.Dense(3)])
    model = fully_convolutional(classifier)
    assert model.stride == (Fraction(1, 2), Fraction(1, 2)) and model.window == (6, 7)
    image = rng.normal(size=(1, 8, 8, 1))
    result = call(model, image)
    assert result.shape == (1, 5, 3, 3)
    for row, column in np.ndindex(3, 2):
        expected = call(classifier, image[:, row : row + 6, column : column + 7])
        np.testing.assert_allclose(result[:, 2 * row, 2 * column], expected, atol=1e-5)
    model.save(tmp_path / "model.keras")
    assert window_of(keras.saving.load_model(tmp_path / "model.keras")) == ((6, 7), model.stride)


def test_numbers_for_permuted_places_are_refused(rng):
    stack = [keras.Input((4, 5, 2)), layers.Permute((3, 1, 2)), layers.Flatten()]
    norm = layers.BatchNormalization(name="norm")
    classifier = keras.Sequential([*stack, norm, layers.Dense(3)])
    randomize(classifier, rng)
    with pytest.raises(ValueError, match="'norm', but it does not treat every pixel alike"):
        fully_convolutional(classifier)


# State and per-place numbers


def adapted(rng):
    normalization = layers.Normalization()
    normalization.adapt(rng.normal(20, 7, size=(9, 12, 12, 3)))
    return [normalization, layers.Conv2D(4, 3, activation="relu"), layers.Flatten()]


def adapted_vector(rng):
    normalization = layers.Normalization()
    normalization.adapt(rng.normal(2, 3, size=(50, 12 * 12 * 3)))
    return [layers.Flatten(), normalization, layers.Dense(5, activation="relu")]


def augmented(rng):
    del rng
    return [
        layers.RandomFlip(), layers.RandomRotation(0.2), layers.RandomContrast(0.3),
        layers.RandomZoom(0.2), layers.Rescaling(1 / 255), layers.Conv2D(4, 3), layers.Flatten(),
    ]  # fmt: skip


def nested_augmentation(rng):
    augmentation = keras.Sequential([layers.RandomFlip(), layers.RandomTranslation(0.1, 0.1)])
    return [augmentation, *adapted(rng)]


def slopes(rng):
    """MTCNN's: PReLU with a slope for each channel, for each unit, and for each place."""
    del rng
    return [
        layers.Conv2D(4, 3), layers.PReLU(shared_axes=[1, 2]), layers.MaxPooling2D(2),
        layers.Permute((3, 2, 1)), layers.Flatten(), layers.Dense(6), layers.PReLU(),
    ]  # fmt: skip


def slopes_of_places(rng):
    del rng
    return [layers.Conv2D(4, 5, strides=2), layers.Flatten(), layers.PReLU(), layers.Dense(6)]


def normalized_places(rng):
    del rng
    return [
        layers.Conv2D(4, 5, strides=2), layers.Flatten(), layers.BatchNormalization(),
        layers.Dropout(0.5), layers.Dense(6, activation="relu"), layers.LayerNormalization(),
    ]  # fmt: skip


def normalized_windows(rng):
    del rng
    return [layers.Conv2D(4, 9), layers.Flatten(), layers.LayerNormalization(), layers.ReLU()]


def kept_axes(rng):
    del rng
    return [
        layers.Conv2D(4, 3), layers.GlobalMaxPooling2D(keepdims=True), layers.PReLU(),
        layers.Conv2D(3, 1), layers.UnitNormalization(), layers.Flatten(),
    ]  # fmt: skip


def adaptive(rng):
    del rng
    return [layers.Conv2D(4, 3), layers.AdaptiveAveragePooling2D(1), layers.Flatten()]


def spectral(rng):
    del rng
    return [layers.SpectralNormalization(layers.Conv2D(4, 3)), layers.GlobalAveragePooling2D()]


@pytest.mark.parametrize(
    "stack",
    [adapted, adapted_vector, augmented, nested_augmentation, slopes, slopes_of_places,
     normalized_places, normalized_windows, kept_axes, adaptive, spectral],
)  # fmt: skip
def test_what_layers_know_goes_over(stack, rng):
    keras.utils.set_random_seed(1)
    classifier = image_model(*stack(rng), layers.Dense(3), shape=(12, 12, 3))
    for layer in classifier.layers:
        if not isinstance(layer, (layers.Normalization, keras.Sequential)):
            randomize(layer, rng, scale=0.5)
    check_every_window(classifier, rng)


@pytest.mark.parametrize("dims", [(2, 1, 3), (3, 1, 2), (3, 2, 1), (1, 3, 2), (2, 3, 1)])
def test_permuted_maps_are_flattened_as_they_were(dims, rng):
    classifier = image_model(
        layers.Conv2D(5, 3), layers.Permute(dims), layers.Flatten(), layers.Dense(4),
        shape=(8, 9, 2),
    )  # fmt: skip
    check_every_window(classifier, rng)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="subclassed")
        self.trunk = keras.Sequential([layers.Conv2D(4, 3, activation="relu")], name="trunk")
        self.flatten = layers.Flatten()
        self.dense = layers.Dense(3)

    def call(self, images, training=False):
        return keras.ops.tanh(self.dense(self.flatten(self.trunk(images / 2.0))))


class Untraceable(Subclassed):
    def call(self, images):
        return np.asarray(images).sum()


def test_subclassed_models_are_followed_through_their_call(rng):
    classifier = Subclassed()
    with pytest.raises(ValueError, match=r"call it on an image: `model\(np.zeros"):
        fully_convolutional(classifier)
    classifier(np.zeros((1, 10, 9, 2)))
    model = fully_convolutional(classifier)
    assert (model.window, model.stride) == ((10, 9), (1, 1))
    assert compare(classifier).largest_difference < 1e-4
    image = rng.normal(size=(1, 12, 10, 2)).astype("float32")
    np.testing.assert_allclose(
        call(model, image)[:, 2, 1], call(classifier, image[:, 2:, 1:]), atol=1e-5
    )
    images = keras.Input((10, 9, 2))
    nested = keras.Model(images, layers.Softmax()(classifier(images)))
    check_every_window(nested, rng)
    untraceable = Untraceable()
    untraceable.built, untraceable._build_shapes_dict = True, {"images": (None, 8, 8, 3)}
    with pytest.raises(ValueError, match=r"made of Keras layers and `keras.ops`.*'subclassed'"):
        fully_convolutional(untraceable)


def test_pools_of_different_stride_are_refused_when_converted():
    images = keras.Input((16, 16, 3))
    fine = layers.Conv2D(4, 3, name="fine")(images)
    coarse = layers.MaxPooling2D(2)(fine)
    pools = [layers.GlobalAveragePooling2D()(x) for x in (fine, coarse)]
    for merge in (layers.Concatenate(name="merge"), layers.Add(name="merge")):
        with pytest.raises(ValueError, match=r"'merge'.*maps of different strides"):
            fully_convolutional(keras.Model(images, layers.Dense(2)(merge(pools))))
    # gates of different strides may meet: they stay global
    gate = layers.Reshape((1, 1, 4))(layers.Dense(4)(layers.Concatenate()(pools)))
    x = layers.GlobalAveragePooling2D()(layers.Multiply()([fine, gate]))
    model = fully_convolutional(keras.Model(images, layers.Dense(2)(x)))
    assert model.compute_output_shape((1, 19, 17, 3)) == (1, 4, 2, 2)


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method")
def test_weights_that_are_not_all_that_is_computed_with_are_refused():
    lora, quantized = (image_model(layers.Flatten(), layers.Dense(4, name="dense")) for _ in "ab")
    lora.get_layer("dense").enable_lora(2)
    with pytest.raises(ValueError, match="'dense', but it has LoRA"):
        fully_convolutional(lora)
    quantized.quantize("int8")
    with pytest.raises(ValueError, match="'dense', but its weights are quantised"):
        fully_convolutional(quantized)


class Forgetful(layers.Layer):
    """Computes with a number that it does not save."""

    factor = 1.0

    def call(self, x):
        return x * self.factor


def test_a_copy_that_computes_something_else_is_not_given_back():
    layer = Forgetful()
    classifier = image_model(layer, layers.Flatten(), layers.Dense(2))
    fully_convolutional(classifier)
    layer.factor = 3.0
    with pytest.raises(ValueError, match="should give what the classifier gives"):
        fully_convolutional(classifier)
