"""The server of examples/serve.py under what strangers post: it stays up, and says why not."""

import concurrent.futures
import io
import json
import re
import signal
import socket
import struct
import time
import urllib.error
import urllib.request
import zlib

import numpy as np
import psutil
import pytest
import tifffile
from conftest import randomize
from forked import Forked
from PIL import Image

import keras_fcn

# one process for what they share
pytestmark = pytest.mark.xdist_group("server")
LOG = re.compile(r"WARNING: All log messages|[IWE]\d{4} ")  # of TensorFlow, as it starts
MAX_BYTES = 400_000
MAX_PIXELS = 250_000
MAX_OBJECTS = 300


def png(picture, **options):
    """Return an array or picture as the bytes of a file."""
    file = io.BytesIO()
    picture = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    picture.save(file, **{"format": "PNG", **options})
    return file.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def claim(width, height):
    """Return a PNG file of some bytes that claims a size."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def photo(height=96, width=64):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), "uint8")


STACK = [Image.new("L", (400, 300)), Image.new("L", (400, 300)), Image.new("L", (400, 300))]

# what is posted, the status, words of the reason
REFUSED = {
    "nothing": (b"", 400, "should be an image file"),
    "text": (b"hello" * 100, 400, "should be an image file"),
    "truncated": (png(photo())[:5000], 400, "should be an image file"),
    "broken": (png(photo()).replace(b"IDAT", b"IDAX", 1), 400, "should be an image file"),
    "bomb": (claim(60000, 60000), 413, "at most 250000 pixels"),
    "large claim": (claim(5000, 5000), 413, "5000 x 5000"),
    "5000 x 5000": (png(np.zeros((5000, 5000), "uint8")), 413, "5000 x 5000"),
    "no pixels": (claim(0, 10), 400, "should be an image file"),
    "stack": (png(STACK[0], format="TIFF", save_all=True, append_images=STACK[1:]), 413, "pixels"),
    "too many bytes": (bytes(3 * MAX_BYTES), 413, "at most 400000 bytes"),
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("served") / "small.keras"
    model = keras_fcn.UNet(num_classes=3, filters=(4, 8))
    randomize(model, np.random.default_rng(3), scale=0.3)
    model.save(path)
    return path


class Served:
    """A server in a process of its own."""

    def __init__(self, script, *options):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        self.process = Forked([script, "--port", port, *options])
        for _ in range(1200):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                return
            except ConnectionRefusedError:
                assert self.process.poll() is None, self.process.communicate()[1]
                time.sleep(0.1)

    def post(self, endpoint, body):
        """Return status, headers and body of the answer."""
        request = urllib.request.Request(f"{self.address}/{endpoint}", body, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.status, response.headers, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()

    def memory(self):
        return psutil.Process(self.process.pid).memory_info().rss

    def interrupt(self):
        """Press Ctrl-C; return the status and what was written but TensorFlow's log."""
        self.process.send_signal(signal.SIGINT)
        _, errors = self.process.communicate(timeout=30)
        lines = [line for line in errors.splitlines() if not LOG.match(line)]
        return self.process.returncode, lines


@pytest.fixture(scope="module")
def server(weights, pytestconfig):
    limits = ("--max-bytes", MAX_BYTES, "--max-pixels", MAX_PIXELS, "--max-objects", MAX_OBJECTS)
    served = Served(pytestconfig.rootpath / "examples/serve.py", "--weights", weights, *limits)
    yield served
    assert served.process.poll() is None  # it is still up
    assert served.interrupt() == (130, ["Stopped."])


def test_labels_areas_and_overlay(server):
    status, headers, body = server.post("labels", png(photo()))
    picture = Image.open(io.BytesIO(body))
    assert (status, headers["Content-Type"], picture.mode) == (200, "image/png", "P")
    labels = np.asarray(picture)
    assert labels.shape == (96, 64)
    status, _, body = server.post("areas", png(photo()))
    counted = np.bincount(labels.ravel(), minlength=3).tolist()
    assert [area["pixels"] for area in json.loads(body).values()] == counted
    assert sum(area["share"] for area in json.loads(body).values()) == pytest.approx(1)
    status, _, body = server.post("overlay", png(photo()))
    assert Image.open(io.BytesIO(body)).size[1] > 96  # the legend is below


def test_objects_as_json_and_as_a_map(server, weights):
    model, image = keras_fcn.load_model(weights), photo()
    expected = keras_fcn.predict_objects(model, image)
    probabilities = keras_fcn.predict_image(model, image)[..., 1:].max(-1)
    status, headers, body = server.post("objects.png", png(image))
    numbers = np.asarray(Image.open(io.BytesIO(body)))
    assert (status, headers["Content-Type"], numbers.dtype) == (200, "image/png", "uint16")
    np.testing.assert_array_equal(numbers, expected)
    status, _, body = server.post("objects", png(image))
    objects = json.loads(body)
    assert [item["number"] for item in objects] == list(range(1, expected.max() + 1))
    assert {item["class"] for item in objects} <= {"class 1", "class 2"}
    for item in objects:
        rows, columns = np.nonzero(expected == item["number"])
        assert item["area"] == len(rows)
        assert item["centroid"]["row"] == pytest.approx(rows.mean(), abs=0.01)
        assert item["centroid"]["column"] == pytest.approx(columns.mean(), abs=0.01)
        box = {"top": rows.min(), "left": columns.min(), "bottom": rows.max() + 1}
        assert item["box"] == {**box, "right": columns.max() + 1}
        assert 0 < item["mean_probability"] <= probabilities[rows, columns].mean() + 1e-4


def test_more_objects_than_the_limit_are_refused(server):
    status, _, body = server.post("objects", png(photo(480, 480)[..., 0]))
    assert status == 422
    assert "at most 300 objects" in json.loads(body)["detail"]


def tiff(*pages):
    """Return a TIFF file of pages, (pixels, options) each, as bytes."""
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for pixels, options in pages:
            writer.write(pixels, metadata=None, **options)
    return file.getvalue()


def test_a_geotiff_is_one_image_and_colours_may_have_16_bits(server):
    """Its overviews and the page of valid pixels count for nothing, as for the package."""
    image = np.tile(photo(50, 48), (10, 10, 1))  # 240,000 pixels
    rgb = {"photometric": "rgb", "compression": "zlib"}
    valid = (np.ones((500, 480), bool), {"photometric": 4, "subfiletype": 4})
    small = (image[::2, ::2], {**rgb, "subfiletype": 1})
    status, _, body = server.post("labels", tiff((image, rgb), valid, small))
    assert status == 200
    assert Image.open(io.BytesIO(body)).size == (480, 500)
    deep, plain = photo().astype("uint16") * 257, server.post("labels", png(photo()))
    assert server.post("labels", tiff((deep, {"photometric": "rgb"})))[2] == plain[2]
    large = tiff((np.zeros((600, 600, 3), "uint32"), rgb))  # nothing for Pillow
    status, _, body = server.post("labels", large)
    assert (status, "a limit of 250,000" in json.loads(body)["detail"]) == (413, True)


def test_a_photograph_is_turned_upright(server):
    exif = Image.Exif()
    exif[0x0112] = 6
    _, _, body = server.post("labels", png(Image.fromarray(photo()), exif=exif))
    assert Image.open(io.BytesIO(body)).size == (96, 64)


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_with_a_reason(name, server):
    body, expected, words = REFUSED[name]
    status, _, answer = server.post("overlay", body)
    detail = json.loads(answer)["detail"]
    assert status == expected
    assert words in detail
    assert "/tmp" not in detail


def test_32_uploads_at_once(server):
    server.post("overlay", png(photo(500, 500)))
    before = server.memory()
    bodies = [png(photo(height=40 + i, width=60)) for i in range(22)]
    bodies += [body for body, *_ in REFUSED.values()]
    expected = [200] * 22 + [status for _, status, _ in REFUSED.values()]
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        for _ in range(3):
            answers = list(pool.map(lambda body: server.post("overlay", body), bodies))
            assert [status for status, *_ in answers] == expected
    assert server.memory() - before < 200e6


def test_the_page_says_the_limits(server):
    with urllib.request.urlopen(f"{server.address}/openapi.json") as response:
        page = json.loads(response.read())
    for limit in ("400000 bytes and 250000 pixels", "300 objects", "32 requests", "30 seconds"):
        assert limit in page["info"]["description"]
    assert set(page["paths"]) == {"/labels", "/overlay", "/areas", "/objects", "/objects.png"}
    for path in page["paths"].values():
        assert set(path["post"]["responses"]) >= {"200", "400", "408", "413", "422", "503"}


@pytest.mark.slow
def test_a_full_server_says_when_to_come_again(weights, pytestconfig, tmp_path):
    exported = tmp_path / "small.onnx"
    keras_fcn.export(keras_fcn.UNet(num_classes=2, filters=(4, 8)), exported, "onnx")
    script = pytestconfig.rootpath / "examples/serve.py"
    served = Served(
        script, "--weights", exported, "--max-requests", 1, "--max-seconds", 2, "--max-bytes", 9999
    )
    address = ("127.0.0.1", int(served.address.rpartition(":")[2]))
    with socket.create_connection(address) as slow:  # takes the place, and sends nothing more
        slow.sendall(b"POST /labels HTTP/1.1\r\nHost: a\r\nContent-Length: 999\r\n\r\nabc")
        time.sleep(0.5)
        status, headers, body = served.post("labels", bytes(50_000))
        assert (status, headers["Retry-After"]) == (503, "1")
        assert "1 requests are under way" in json.loads(body)["detail"]
        assert slow.recv(100).startswith(b"HTTP/1.1 408")
    assert served.post("labels", png(photo(30, 40)))[0] == 200
    assert served.interrupt() == (130, ["Stopped."])


@pytest.mark.slow
def test_options_that_do_not_go_together_are_told(weights, pytestconfig):
    script = pytestconfig.rootpath / "examples/serve.py"
    process = Forked([script, "--weights", weights, "--engine", "openvino", "--precision", "int8"])
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 2
    assert "as `--calibration photos`" in errors
