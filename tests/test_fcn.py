import keras
import numpy as np
import pytest
from conftest import call, check_free_size, pass_through, randomize
from scipy.ndimage import center_of_mass

from keras_fcn import FCN8s, FCN8sAtOnce, FCN16s, FCN32s, UNet
from keras_fcn.private import without_numbers

FACTORIES = [FCN32s, FCN16s, FCN8s]
SIZES = [(1, 1), (1, 9), (2, 31), (33, 32), (40, 57)]


@pytest.mark.parametrize(
    ("factory", "num_parameters"),
    [(FCN8s, 134_489_759), (FCN8sAtOnce, 134_489_759)],
)
def test_parameters_are_the_papers(factory, num_parameters):
    with without_numbers():
        assert factory(num_classes=21).count_params() == num_parameters


def test_layers_bear_the_authors_names():
    with without_numbers():
        names, *coarser = (
            [layer.name for layer in factory(fc_filters=8).layers]
            for factory in (FCN8s, FCN32s, FCN16s)
        )
    expected = [
        "conv1_1 conv1_2 pool1 conv2_1 conv2_2 pool2 conv3_1 conv3_2 conv3_3 pool3",
        "conv4_1 conv4_2 conv4_3 pool4 conv5_1 conv5_2 conv5_3 pool5 fc6 drop6 fc7 drop7",
        "score_fr upscore2 score_pool4 fuse_pool4 upscore_pool4 score_pool3 fuse_pool3 upscore8",
    ]
    assert set(" ".join(expected).split()) <= set(names)
    assert "upscore" in coarser[0]
    assert "upscore16" in coarser[1]


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("factory", FACTORIES)
def test_output_has_the_images_size(narrow_vgg16, rng, factory, padding):
    model = factory(num_classes=3, fc_filters=4, padding=padding)
    for height, width in SIZES:
        assert call(model, rng.random((1, height, width, 3))).shape == (1, height, width, 3)


def test_size_is_free_after_save_load_and_clone_and_in_fit(narrow_vgg16, rng, tmp_path):
    check_free_size(FCN8s(num_classes=3, fc_filters=4), rng, tmp_path)


@pytest.mark.parametrize("factory", FACTORIES)
def test_image_moved_by_the_stride_moves_the_scores_by_it(narrow_vgg16, rng, factory):
    model = factory(num_classes=2, fc_filters=4, include_preprocessing=False)
    randomize(model, rng)
    for layer in model.layers:  # no biases: outside the patch everything stays zero
        if isinstance(layer, keras.layers.Conv2D) and layer.use_bias:
            layer.bias.assign(np.zeros(layer.filters))
    images = np.zeros((2, 493, 510, 3), "float32")
    patch = rng.random((9, 9, 3))
    images[0, 224:233, 230:239] = images[1, 256:265, 262:271] = patch
    scores = call(keras.Model(model.input, model.get_layer("score").output), images)
    assert abs(scores[0]).max() > 0
    moved = np.roll(scores[0], (32, 32), axis=(0, 1))
    np.testing.assert_allclose(
        scores[1, 64:-64, 64:-64], moved[64:-64, 64:-64], atol=1e-5 * abs(scores).max()
    )


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("shape", [(192, 224), (191, 209)])
@pytest.mark.parametrize("factory", FACTORIES)
def test_response_to_a_bright_pixel_is_centred_on_it(narrow_vgg16, factory, shape, padding):
    """A cell of 32 pixels can't tell where in it the pixel is: on average it is right."""
    model = factory(num_classes=1, fc_filters=1, classifier_activation=None, padding=padding,
                    include_preprocessing=False)  # fmt: skip
    pass_through(model)
    positions = 80 + np.arange(32)  # each place of a cell once
    images = np.zeros((len(positions), *shape, 3), "float32")
    images[np.arange(len(positions)), positions, positions, 0] = 1
    responses = np.concatenate([call(model, part) for part in np.split(images, 8)])[..., 0]
    offsets = [
        np.subtract(center_of_mass(response), position)
        for response, position in zip(responses, positions, strict=True)
    ]
    assert abs(np.mean(offsets, axis=0)).max() < 0.5
    # in the middle of its 32-pixel cell a pixel alone is met, by the coarsest network
    if factory is FCN32s:
        assert abs(np.asarray(offsets)).min(axis=0).max() <= 0.5


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_upsampling_starts_bilinear_and_scores_start_at_zero(narrow_vgg16, rng, padding):
    model = FCN8s(num_classes=4, fc_filters=4, padding=padding)
    for name in ("score_fr", "score_pool4", "score_pool3"):
        assert not any(w.any() for w in model.get_layer(name).get_weights())
    np.testing.assert_allclose(call(model, rng.random((1, 20, 30, 3))), 0.25)


def test_at_once_scales_the_skips(narrow_vgg16, rng):
    model, plain = FCN8sAtOnce(num_classes=2, fc_filters=4), FCN8s(num_classes=2, fc_filters=4)
    randomize(model, rng)
    plain.set_weights(model.get_weights())
    for name, scale in (("score_pool4", 0.01), ("score_pool3", 0.0001)):
        kernel, bias = plain.get_layer(name).get_weights()
        plain.get_layer(name).set_weights([kernel * scale, bias])
    images = rng.uniform(0, 255, (1, 33, 40, 3))
    np.testing.assert_allclose(call(model, images), call(plain, images), atol=1e-5)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_training_goes_on_from_a_coarser_fcn(narrow_vgg16, rng, tmp_path, batch_norm):
    options = {"num_classes": 3, "fc_filters": 4, "batch_norm": batch_norm}
    images = rng.uniform(0, 255, (1, 64, 96, 3))
    coarser = FCN32s(**options)
    randomize(coarser, rng)
    for factory in (FCN16s, FCN8s):
        path = tmp_path / f"{coarser.name}.keras"
        coarser.save(path)
        finer = factory(weights=str(path), **options)
        for layer in ("fc7", "score_fr", *(["fuse_pool4"] if factory is FCN8s else [])):
            expected, result = (
                call(keras.Model(model.input, model.get_layer(layer).output), images)
                for model in (coarser, finer)
            )
            np.testing.assert_array_equal(result, expected)
        coarser = finer
    finest = "score_pool3"  # zero, as all score layers are at first
    assert not finer.get_layer(finest).kernel.numpy().any()


def test_coarser_fcn_should_have_the_same_sizes(narrow_vgg16, tmp_path):
    path = tmp_path / "fcn32s.keras"
    FCN32s(num_classes=3, fc_filters=4).save(path)
    with pytest.raises(ValueError, match="arrays are not in the model"):
        FCN16s(num_classes=4, fc_filters=4, weights=path)
    with pytest.raises(ValueError, match="arrays are not in the model"):
        UNet(num_classes=3, filters=(4, 8), weights=path)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_scores_stay_float32_in_mixed_precision(narrow_vgg16, rng, policy):
    keras.config.set_dtype_policy(policy)
    model = FCN8s(num_classes=3, fc_filters=4)
    assert model.get_layer("conv3_1").compute_dtype == policy.removeprefix("mixed_")
    for name in ("preprocessing", "score_fr", "upscore2", "fuse_pool3", "score", "predictions"):
        assert model.get_layer(name).compute_dtype == "float32"
    output = model(rng.uniform(0, 255, (1, 9, 9, 3)).astype("float32"))
    assert keras.backend.standardize_dtype(output.dtype) == "float32"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "num_classes=0"),
        ({"num_classes": True}, "num_classes=True"),
        ({"num_classes": 1}, "sigmoid"),
        ({"padding": "sam"}, "Did you mean 'same'"),
        ({"input_shape": (None, None)}, r"\(None, None, 3\)"),
        ({"input_shape": (None, None, None)}, "input_shape="),
        ({"fc_filters": 0}, "fc_filters=0"),
    ],
)
def test_wrong_arguments_are_explained(arguments, message):
    with pytest.raises(ValueError, match=message):
        FCN8s(**arguments)


def test_numbers_of_numpy_are_numbers(narrow_vgg16, tmp_path):
    model = FCN8s(num_classes=np.int64(3), fc_filters=np.int32(4))
    model.save(tmp_path / "model.keras")
    assert keras.saving.load_model(tmp_path / "model.keras").output_shape[-1] == 3
