import keras
import numpy as np
import pytest
from conftest import call

from keras_fcn import FCN32s, UNet
from keras_fcn.optimizers import Muon


def one_step(optimizer, shape, scope="conv1_1"):
    """Return the variable's change in one step, and the gradient."""
    rng = np.random.default_rng(1)
    before, gradient = rng.normal(size=(2, *shape)).astype("float32")
    with keras.name_scope(scope):
        variable = keras.Variable(before, name="kernel")
    optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
    return variable.numpy() - before, gradient


@pytest.mark.parametrize("shape", [(3, 3, 4, 6), (1, 1, 3, 8), (2, 2, 5, 5)])
def test_step_of_a_kernel_is_the_orthogonal_factor_of_its_gradient(shape):
    """At first, momentum and Nesterov's look ahead only scale the gradient: the step is -U V^T."""
    optimizer = Muon(0.1, weight_decay=None, adam_weight_decay=None, ns_steps=30, muon_a=2,
                     muon_b=-1.5, muon_c=0.5)  # fmt: skip
    change, gradient = one_step(optimizer, shape)
    u, _, vt = np.linalg.svd(gradient.reshape(-1, shape[-1]), full_matrices=False)
    scale = 0.1 * 0.2 * max(np.prod(shape[:3]), shape[3]) ** 0.5
    np.testing.assert_allclose(change.reshape(-1, shape[-1]), -scale * u @ vt, atol=1e-3 * scale)


def test_bfloat16_is_near_enough():
    """Nearer than the iteration itself is to U V^T, whose singular values it makes 0.7 to 1.2."""
    shape = (3, 3, 4, 8)
    settings = {"weight_decay": None, "adam_weight_decay": None}
    exact, gradient = one_step(Muon(0.1, **settings), shape)
    keras.config.set_dtype_policy("mixed_bfloat16")
    change, _ = one_step(Muon(0.1, **settings), shape)
    assert change.dtype == "float32"
    u, _, vt = np.linalg.svd(gradient.reshape(-1, 8), full_matrices=False)
    orthogonal = -0.1 * 0.2 * 36**0.5 * (u @ vt).reshape(shape)
    error = np.linalg.norm(change - exact)
    assert 0 < error < np.linalg.norm(exact - orthogonal)
    assert error < 0.1 * np.linalg.norm(exact)


@pytest.mark.parametrize(("shape", "scope"), [((5,), "conv1_1"), ((3, 3, 2, 4), "score_fr")])
def test_all_else_goes_by_adamw(shape, scope):
    muon, _ = one_step(Muon(0.01, adam_weight_decay=0.1), shape, scope)
    adamw, _ = one_step(keras.optimizers.AdamW(0.01, weight_decay=0.1), shape, scope)
    np.testing.assert_allclose(muon, adamw, atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 3, 4, 6), (5,)])
def test_a_share_of_the_rate_is_a_share_of_the_step(shape):
    settings = {"weight_decay": None, "adam_weight_decay": None}
    whole, _ = one_step(Muon(0.1, **settings), shape)
    share, _ = one_step(Muon(0.1, shares={r"\bconv1_1/": 0.25}, **settings), shape)
    other, _ = one_step(Muon(0.1, shares={r"\bconv1_1/": 0.25}, **settings), shape, "up1_conv1")
    np.testing.assert_allclose(share, 0.25 * whole, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(other, whole, rtol=1e-4, atol=1e-7)
    copy = Muon.from_config(Muon(shares={"a": 0.5}).get_config())
    assert copy.shares == {"a": 0.5}


class Counted(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule of one rate that counts how often it is asked."""

    asked = 0

    def __call__(self, step):
        self.asked += 1
        return keras.ops.convert_to_tensor(0.1)


def test_a_schedule_is_asked_once_a_step(rng):
    """However many variables decay by it; between the steps it is asked as before."""
    values = rng.normal(size=(6, 3, 3, 2, 4)).astype("float32")
    trained, schedule = [], Counted()
    for rate in (0.1, schedule):
        optimizer = Muon(rate, weight_decay=0.1, adam_weight_decay=0.2)
        variables = [keras.Variable(value) for value in [*values, values[0, 0, 0, 0]]]
        optimizer.apply([keras.ops.ones(v.shape) for v in variables], variables)
        trained.append([keras.ops.convert_to_numpy(v) for v in variables])
    assert schedule.asked == 1
    for one, other in zip(*trained, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    assert float(optimizer.learning_rate) == pytest.approx(0.1)
    assert schedule.asked == 2
    optimizer = Muon(0.1)
    optimizer.learning_rate = 0.2
    assert float(optimizer.learning_rate) == pytest.approx(0.2)


@pytest.mark.parametrize("factory", [UNet, FCN32s])
def test_networks_learn_and_are_saved_with_it(factory, rng, tmp_path, shallow_vgg16):
    options = {"fc_filters": 16} if factory is FCN32s else {"filters": (4, 8)}
    model = factory(num_classes=2, **options)
    model.compile(Muon(0.002), "sparse_categorical_crossentropy")
    # a dark image of class 0 and a bright one of class 1: one score an image is enough for FCN-32s
    images = rng.integers(0, 128, (2, 32, 32, 3)) + np.reshape([0.0, 128.0], (2, 1, 1, 1))
    labels = np.ones((2, 32, 32), "int32") * [[[0]], [[1]]]
    before = model.evaluate(images, labels, verbose=0)
    model.fit(images, labels, epochs=30, verbose=0)
    assert model.evaluate(images, labels, verbose=0) < before
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.optimizer, Muon)
    np.testing.assert_allclose(call(loaded, images), call(model, images), atol=1e-6)
    loaded.fit(images, labels, verbose=0)
