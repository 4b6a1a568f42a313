import contextlib
import ctypes
import gc
import json
import os
import signal
import socket
import subprocess
import types

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# TensorFlow's own allocator would keep for good what the largest network once took
os.environ.setdefault("TF_ONEDNN_USE_SYSTEM_ALLOCATOR", "1")
# one thread: for small networks a second one waits, busily, for more of the time than it computes
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

import keras
import numpy as np
import psutil
import pytest

import keras_fcn
from keras_fcn import UNet, cards, pretrained, vgg16
from keras_fcn.cards import sha256
from keras_fcn.private import without_traces
from keras_fcn.weights import fingerprint, save_half_precision

for name in keras_fcn.__all__:  # first asked for while a test replaces it, it would stay replaced
    getattr(keras_fcn, name)

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # a shell lets what it starts in the background ignore Ctrl-C, and so would what we start
    signal.signal(signal.SIGINT, signal.default_int_handler)

GROWTH = 2**27  # bytes by which the process may grow before its memory is cleared


def pytest_collection_finish():
    """What is imported stays: half a million objects that no search for memory need pass over."""
    import hypothesis  # noqa: F401 (its plugins ask what refers to an object, before that is hidden)

    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def floor():
    """What the process takes after its memory was cleared, in bytes."""
    return [psutil.Process().memory_info().rss]


@pytest.fixture(autouse=True)
def memory(floor):
    """Networks and graphs go: they refer to themselves, and Python finds that late."""
    with without_traces():
        yield
    process = psutil.Process()
    if process.memory_info().rss > floor[0] + GROWTH:
        gc.collect()
        with contextlib.suppress(AttributeError, OSError):  # of the GNU C library
            ctypes.CDLL(None).malloc_trim(0)
        floor[0] = process.memory_info().rss


@pytest.fixture(autouse=True)
def seed():
    """Every test starts from the same random state and the default precision."""
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")


@contextlib.contextmanager
def run_eagerly():
    """Let TensorFlow's functions run as they are written, within the block.

    Of a training of few steps most of the time is tracing. For tests of what a training leaves;
    that its graphs do the same others see.
    """
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)


@pytest.fixture
def eagerly():
    """As `run_eagerly`."""
    with run_eagerly():
        yield


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def narrow_vgg16(monkeypatch):
    """VGG16 with 4 filters in every layer, for tests of geometry."""
    blocks = tuple(dict.fromkeys(block, 4) for block in vgg16.BLOCKS)
    monkeypatch.setattr(vgg16, "BLOCKS", blocks)


@pytest.fixture
def shallow_vgg16(monkeypatch):
    """VGG16 with one convolution of 4 filters in each block: the others are layers like it."""
    blocks = tuple(dict.fromkeys(list(block)[:1], 4) for block in vgg16.BLOCKS)
    monkeypatch.setattr(vgg16, "BLOCKS", blocks)


def narrow_keras_networks(patch):
    """Give Keras's own VGG16, VGG19 and Xception a 16th of the filters, and 64 dense units."""
    layers = types.SimpleNamespace(**vars(keras.layers))

    def narrow(kind):
        return lambda filters, *args, **options: kind(filters // 16, *args, **options)

    layers.Conv2D = narrow(keras.layers.Conv2D)
    layers.SeparableConv2D = narrow(keras.layers.SeparableConv2D)
    layers.Dense = lambda units, **options: keras.layers.Dense(
        64 if units == 4096 else units, **options
    )
    for network in ("vgg16", "vgg19", "xception"):
        patch.setattr(f"keras.src.applications.{network}.layers", layers)


def narrow_networks(patch):
    """Give the networks a 16th of the filters where nobody says how many, Keras's own as well."""
    narrow_keras_networks(patch)
    blocks = tuple({name: count // 16 for name, count in block.items()} for block in vgg16.BLOCKS)
    patch.setattr(vgg16, "BLOCKS", blocks)
    widths = (64, 128, 256, 512, 1024)
    defaults = [(4, 8, 16, 32, 64) if value == widths else value for value in UNet.__defaults__]
    patch.setattr(UNet, "__defaults__", tuple(defaults))
    narrow_search(patch)


def narrow_search(patch):
    """Let a search of U-Nets choose among an 8th of the filters."""
    patch.setattr("keras_fcn.tuning.hypermodels.WIDTHS", (2, 4, 8))


def ship_small(patch, folder, *names):
    """Let U-Nets that ship be small ones, of the same classes, where large ones take gigabytes.

    Those on VGG16's encoder are as wide as it is: see `narrow_networks`.
    """
    for name in names:
        card = pretrained()[name]
        filters = [4] * 5 if "encoder" in card["arguments"] else [4, 8]
        arguments = card["arguments"] | {"filters": filters}
        path = folder / card["file"]
        save_half_precision(UNet(**arguments), path)
        small = UNet(**arguments, weights=path)
        card |= {"arguments": arguments, "parameters": small.count_params()}
        card |= {"sha256": sha256(path), "fingerprint": fingerprint(small)}
        (folder / f"{name}.json").write_text(json.dumps(card))
    patch.setattr(cards, "_directory", lambda: folder)


def randomize(model, rng, scale=0.1):
    """Give every weight a random value, so that no layer is zero or symmetric."""
    for weight in model.weights:
        values = rng.normal(0, scale, weight.shape).astype("float32")
        weight.assign(abs(values) + 0.5 if "variance" in weight.path else values)


def pass_through(model):
    """Make every convolution hand on channel 0 at its kernel's centre, unchanged."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            kernel = np.zeros(layer.kernel.shape, "float32")
            kernel[kernel.shape[0] // 2, kernel.shape[1] // 2, 0, 0] = 1
            layer.set_weights([kernel, np.zeros(layer.filters, "float32")])


def call(model, images):
    """The model's output in inference, as a NumPy array."""
    return keras.ops.convert_to_numpy(model(np.asarray(images, "float32"), training=False))


def check_free_size(model, rng, tmp_path):
    """After save and load, after clone, and in fit, the size of images stays free."""
    randomize(model, rng)
    images = rng.random((1, 35, 41, 3))
    expected = call(model, images)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(call(loaded, images), expected, rtol=1e-5)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    np.testing.assert_allclose(call(clone, images), expected, rtol=1e-5)
    clone.compile("sgd", "sparse_categorical_crossentropy")
    for height, width in [(7, 33), (32, 20)]:
        labels = rng.integers(0, model.output_shape[-1], (1, height, width))
        history = clone.fit(rng.random((1, height, width, 3)), labels, verbose=0)
        assert np.isfinite(history.history["loss"]).all()


def leave_half(folder, name):
    """Write half of a file as a process does that is killed, and return where it lies."""
    process = subprocess.Popen(["sleep", "0"])
    process.wait()
    place = folder / f".writing-{socket.gethostname()}-{process.pid}-abc"
    place.mkdir(parents=True)
    (place / name).write_bytes(b"half of a file")
    return place


@pytest.fixture(scope="module")
def model():
    """A U-Net of three classes, all of which it sees in noise."""
    model = UNet(num_classes=3, filters=(4, 8))
    randomize(model, np.random.default_rng(3), scale=0.3)
    return model


@pytest.fixture(scope="session")
def server():
    """The address of an S3 server on this machine."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(server, monkeypatch):
    """The file system of S3 with an empty bucket "box", also for processes begun from here."""
    import s3fs

    environment = {"AWS_ENDPOINT_URL": server, "AWS_DEFAULT_REGION": "us-east-1"}
    environment |= {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    system = s3fs.S3FileSystem()
    system.invalidate_cache()
    if system.exists("box"):
        system.rm("box", recursive=True)
    system.mkdir("box")
    return system
