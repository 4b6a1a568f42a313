"""The page: what it computes, and the page itself in a browser that reaches this computer only."""

import base64
import html
import http.client
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zlib

import forked
import keras
import numpy as np
import pytest
from PIL import Image

from keras_fcn import UNet, pretrained
from keras_fcn.classes import Classes
from keras_fcn.commands import main
from keras_fcn.datasets.doubts import TRANSPARENT
from keras_fcn.page import answers, markup, pictures, windows
from keras_fcn.page.limits import Limits
from keras_fcn.page.serving import is_loopback
from keras_fcn.remedies import on_the_page

# one process for what they share
pytestmark = pytest.mark.xdist_group("page")
LIMITS = Limits()
# The server, in a process in which every connection and every name looked up outside of this
# computer ends the process.
GUARD = """
import os, socket, sys

def guard(event, arguments):
    if event == "socket.connect" and arguments[0].family in (socket.AF_INET, socket.AF_INET6):
        host = arguments[1][0]
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    else:
        return
    if host not in (None, "localhost", "127.0.0.1", "::1", b"localhost", b"127.0.0.1"):
        print("OUTBOUND", event, host, flush=True)
        os._exit(9)

sys.addaudithook(guard)
"""
SERVER = f"""{GUARD}
from keras_fcn.commands import main
sys.exit(main(sys.argv[1:]))
"""


def encoded(image, name="picture.png", **form):
    """A picture as the browser sends it."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, **{"format": "PNG", **form})
    content = buffer.getvalue()
    return {"name": name, "size": len(content), "data": base64.b64encode(content).decode()}


def decoded(url):
    return Image.open(io.BytesIO(base64.b64decode(url.split(",")[1])))


# Pictures


def test_pictures_come_as_they_were_sent(rng):
    image = rng.integers(0, 256, (7, 9, 3), "uint8")
    np.testing.assert_array_equal(pictures.read_picture(encoded(image), LIMITS), image)
    assert pictures.read_picture(encoded(image), LIMITS, channels=1).shape == (7, 9, 1)


def test_pictures_are_turned_upright(rng):
    image = rng.integers(0, 256, (7, 9, 3), "uint8")
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter, clockwise
    upright = pictures.read_picture(encoded(image, exif=exif), LIMITS)
    np.testing.assert_array_equal(upright, np.rot90(image, -1))


TOO_LARGE = {"name": "a.png", "size": 30_000_000, "data": None}


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (None, "There is no picture yet"),
        (TOO_LARGE, r"20 MB or less. Received: a.png, with 30.0 MB.*`max_megabytes`"),
        ({"name": "a.png", "size": 1, "data": "AAAA" * 10_000_000}, "with 30.0 MB"),
        ({"name": "a.png", "size": 3, "data": "AAAA"}, "a.png, with 3 bytes, which Pillow does"),
        ({"name": "a.png", "size": 0, "data": ""}, "a.png, with 0 bytes"),
        ({"name": "a.png", "size": 3, "data": "%%%"}, "base64"),
        ({"name": "../../etc/a.txt", "size": 3, "data": "AAAA"}, "Received: a.txt,"),
    ],
)
def test_what_is_no_picture_is_explained(picture, message):
    with pytest.raises(ValueError, match=message):
        pictures.read_picture(picture, LIMITS)


@pytest.mark.parametrize(
    ("side", "message"),
    [(5_000, "5000 x 5000 = 25,000,000"), (30_000, r"900000000 pixels")],  # Pillow's own limit
)
def test_pixels_are_counted_before_they_are_decoded(side, message):
    """A file that holds one pixel, and whose header says more."""
    picture = encoded(np.zeros((1, 1, 3), "uint8"))
    content = bytearray(base64.b64decode(picture["data"]))
    content[16:24] = side.to_bytes(4) * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4)
    picture["data"] = base64.b64encode(content).decode()
    with pytest.raises(ValueError, match=f"{message}.*`max_pixels`"):
        pictures.read_picture(picture, LIMITS)


def test_a_truncated_picture_is_explained_by_its_name(rng):
    picture = encoded(rng.integers(0, 256, (90, 90, 3), "uint8"))
    picture["data"] = picture["data"][:8000]
    with pytest.raises(ValueError, match=r"Received: 'picture\.png'.*truncated"):
        pictures.read_picture(picture, LIMITS)


@pytest.fixture
def deep(rng):
    """A picture of a 12-bit camera, with 8 bits it would be `deep >> 4`."""
    return rng.integers(0, 4096, (20, 30), "uint16")


def test_a_picture_of_12_bits_is_asked_about_in_words_of_the_page(deep):
    picture = encoded(deep, "deep.tif", format="TIFF")
    with on_the_page():
        raster = pictures.open_picture(picture, LIMITS)
        [remark] = pictures.remarks(picture, raster)
    assert "`White: 4095` for 12 bits" in remark
    assert pictures.is_deep(raster)
    image = pictures.image_of(picture, raster)
    assert remark in html.unescape(markup.preview("deep.tif", image, [remark]))
    white = pictures.with_white(picture, 4095)
    assert pictures.remarks(white, raster) == []
    expected = np.repeat((deep / 4095 * 255).round()[..., None], 3, axis=-1)
    np.testing.assert_allclose(pictures.read_picture(white, LIMITS), expected, atol=1)


def test_a_picture_of_floats_has_a_remedy_on_the_page(deep):
    picture = encoded((deep / 4095).astype("float32"), "deep.tif", format="TIFF")
    with on_the_page(), pytest.raises(ValueError, match="`White: 1`"):
        pictures.read_picture(picture, LIMITS)
    assert pictures.is_deep(pictures.open_picture(picture, LIMITS))
    image = pictures.read_picture(pictures.with_white(picture, 1), LIMITS)
    np.testing.assert_allclose(image[..., 0], deep / 4095 * 255, atol=0.51)


def test_transparency_is_told(rng):
    picture = encoded(rng.integers(0, 256, (7, 9, 4), "uint8"))
    raster = pictures.open_picture(picture, LIMITS)
    assert pictures.remarks(picture, raster) == [TRANSPARENT]
    assert not pictures.is_deep(raster)


def test_samples_are_read():
    assert "cat (scikit-image)" in pictures.samples()
    for name in pictures.samples():
        image = pictures.read_picture(pictures.sample_picture(name), LIMITS)
        assert image.ndim == 3
        assert image.std() > 10


# What a model sees


@pytest.fixture
def gray_model(tmp_path):
    path = tmp_path / "gray.keras"
    UNet(input_shape=(None, None, 1), num_classes=3, filters=(4, 8)).save(path)
    return str(path)


def read_from(image):
    return lambda channels: pictures.read_picture(encoded(image), LIMITS, channels)


def test_an_answer_has_the_size_and_the_areas_of_the_picture(gray_model, rng):
    answer = answers.answer(gray_model, read_from(rng.integers(0, 256, (40, 50, 3), "uint8")))
    assert answer.label_map.shape == (40, 50)
    assert answer.certainty.size == (50, 40)
    assert sum(pixels for _, pixels in answer.areas) == 2000
    for label, pixels in answer.areas:
        assert pixels == np.count_nonzero(answer.label_map == label)
    shares = [pixels for _, pixels in answer.areas]
    assert shares == sorted(shares, reverse=True)


@pytest.mark.parametrize("activation", ["sigmoid", None])
def test_one_channel_and_plain_scores(activation, tmp_path, rng):
    path = tmp_path / "model.keras"
    classes = 1 if activation else 3
    UNet(num_classes=classes, filters=(4, 8), classifier_activation=activation).save(path)
    answer = answers.answer(str(path), read_from(rng.integers(0, 256, (32, 32, 3), "uint8")))
    assert set(np.unique(answer.label_map)) <= set(range(max(2, classes)))
    assert (answer.certainty is None) == (activation is None)
    assert "kf-answer" in markup.answers_page([answer])


def test_a_changed_file_is_another_model(tmp_path, rng):
    path = tmp_path / "model.keras"
    for classes in (2, 5):
        UNet(num_classes=classes, filters=(4, 8)).save(path)
        model, names = answers.find_model(str(path))
        assert model.output_shape[-1] == len(names) == classes


def test_a_model_is_found_as_it_is_typed(gray_model, monkeypatch):
    folder, name = os.path.split(gray_model)
    monkeypatch.setenv("HOME", folder)
    assert answers.find_model(f"  ~/{name} ")[0] is answers.find_model(gray_model)[0]


def test_models_nearby_are_listed_and_the_search_has_an_end(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    deepest = tmp_path / "runs" / "first" / "deeper"
    for folder in (tmp_path, deepest.parent, deepest, tmp_path / ".cache"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "a.keras").touch()
    (tmp_path / "folder.keras").mkdir()
    assert answers.nearby_models() == ["a.keras", "runs/first/a.keras"]
    for number in range(30):
        (tmp_path / "runs" / f"{number}.png").touch()
    assert answers.nearby_models(most=20) == ["a.keras"]  # the nearest first


def test_models_that_do_not_fit_are_explained(tmp_path, rng):
    read = read_from(rng.integers(0, 256, (32, 32, 3), "uint8"))
    UNet(input_shape=(None, None, 4), filters=(4, 8)).save(tmp_path / "four.keras")
    with pytest.raises(ValueError, match="takes 4"):
        answers.answer(str(tmp_path / "four.keras"), read)
    with pytest.raises(FileNotFoundError, match=r"none\.keras"):
        answers.answer(str(tmp_path / "none.keras"), read)
    with pytest.raises(ValueError, match="unet_camvid"):
        answers.answer("unet_canvid", read)


def make_answer(name="model", names=("sky", "road"), shape=(4, 6)):
    label_map = np.zeros(shape, "int32")
    label_map[0] = 1
    image = np.zeros((*shape, 3), "uint8")
    classes = Classes(names, ((128, 128, 128), (128, 64, 128)))
    return answers.Answer(name, image, label_map, classes, answers.areas(label_map), None, 0.5)


def test_the_label_map_is_a_palette_png_of_the_classes():
    answer = make_answer()
    picture = decoded(markup.label_map_url(answer))
    assert picture.mode == "P"
    np.testing.assert_array_equal(np.asarray(picture), answer.label_map)
    assert picture.convert("RGB").getpixel((0, 0)) == (128, 64, 128)


def test_names_are_text_and_never_markup():
    page = markup.answers_page([make_answer("<b>.keras", ("<script>", "a & b"))])
    assert "<script" not in page
    assert "<b>" not in page
    assert "a &amp; b" in page
    assert "<img" not in markup.error("<img src=x>")


def test_two_answers_have_a_divider():
    assert "kf-divider" not in markup.answers_page([make_answer()])
    assert "kf-divider" in markup.answers_page([make_answer(), make_answer("other")])


# Windows


@pytest.fixture(scope="module")
def pair():
    model = windows.small_vgg(4)
    return windows._pair(model, windows.SUBJECTS, prepare=lambda images: images)


@pytest.fixture
def photo():
    return pictures.read_picture(pictures.sample_picture("cat (scikit-image)"), LIMITS)[:100, :140]


def test_every_window_scores_as_the_dense_layers_do(pair, photo):
    scores, _ = windows.slide(pair, photo)
    assert scores.shape == (18, 28, 4)  # (100 - 32) / 4 + 1, (140 - 32) / 4 + 1
    for row, column in [(0, 0), (3, 20), (17, 27)]:
        window = windows.score_window(pair, photo, scores, row, column)
        pixels = photo[4 * row : 4 * row + 32, 4 * column : 4 * column + 32]
        expected = keras.ops.convert_to_numpy(pair.dense(pixels[None].astype("float32")))[0]
        for received in (window.dense, window.convolution, window.sliding):
            np.testing.assert_allclose(received, expected, rtol=1e-3, atol=1e-6)


def test_places_outside_are_moved_to_the_border(pair, photo):
    scores, _ = windows.slide(pair, photo)
    outside = windows.score_window(pair, photo, scores, 99, -5)
    np.testing.assert_array_equal(outside.sliding, scores[17, 0])


@pytest.mark.parametrize(
    ("size", "window", "expected"),
    [
        ((100, 140), (32, 32), (100, 140)),
        ((1000, 2000), (32, 32), (320, 640)),
        ((10, 20), (32, 32), (32, 64)),
        ((10, 2000), (224, 224), (224, 44800)),
        ((3, 300), (32, 32), (32, 3200)),
    ],
)
def test_pictures_are_scaled_so_that_a_window_fits(size, window, expected):
    scaled = windows.fit_size(np.zeros((*size, 3), "uint8"), window)
    assert scaled.shape[:2] == expected


def test_the_heat_map_has_a_pixel_for_a_window(pair, photo):
    scores, _ = windows.slide(pair, photo)
    heat_map = windows.heat_map(scores, 1)
    assert heat_map.size == (28, 18)
    page = markup.heat(pair, photo, heat_map, "cat")
    # the first window's centre, 16 pixels, is that of the first pixel, 4 pixels wide
    assert f"left:{14 / 140:.4%};top:{14 / 100:.4%}" in page
    assert f"width:{28 * 4 / 140:.4%};height:{18 * 4 / 100:.4%}" in page


def test_the_tables_have_the_kernels_and_the_scores(pair, photo):
    scores, seconds = windows.slide(pair, photo)
    table = markup.kernels(pair, scores, seconds)
    assert "800 x 64" in table
    assert "5 x 5 x 32 x 64" in table
    assert "51,264" in table
    assert "504 windows" in table
    window = windows.score_window(pair, photo, scores, 0, 0)
    assert f"{window.dense.max():.6f}" in markup.window_table(pair, window)
    assert "pads" not in markup.window_table(pair, window)


@pytest.mark.slow
def test_the_small_network_tells_the_samples_apart():
    pair = windows.small_pair()
    for label, subject in enumerate(windows.SUBJECTS):
        sample = pictures.sample_picture(f"{subject} (scikit-image)")
        scores, _ = windows.slide(pair, pictures.read_picture(sample, LIMITS))
        assert (scores.argmax(-1) == label).mean() > 0.7


def test_vgg16_needs_a_file_with_its_dense_layers(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.h5"):
        windows.vgg16_pair(str(tmp_path / "none.h5"))


# The address


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("192.168.1.2", False),
        ("example.org", False),
    ],
)
def test_loopback(host, expected):
    assert is_loopback(host) == expected


def test_pictures_too_narrow_or_too_long_are_refused():
    with pytest.raises(ValueError, match="less narrow"):
        windows.fit_size(np.zeros((1, 2100, 3), "uint8"), (32, 32))
    assert windows.fit_size(np.zeros((20, 640, 3), "uint8"), (32, 32)).shape == (32, 1024, 3)
    buffer = io.BytesIO()
    Image.new("L", (70_000, 1)).save(buffer, "PNG")
    content = buffer.getvalue()
    picture = {"name": "long.png", "size": len(content)}
    picture["data"] = base64.b64encode(content).decode()
    with pytest.raises(ValueError, match="at most 65500 pixels long"):
        pictures.read_picture(picture, LIMITS)


def test_help_needs_no_gradio():
    # a process of its own: in this one, another test may have imported gradio
    code = "import sys; sys.argv[0] = 'keras-fcn'; sys.modules['gradio'] = None;"
    code += "from keras_fcn.commands import main; main()"
    process = forked.run(["-c", code, "demo", "--help"], check=True)
    assert "127.0.0.1" in process.stdout


# The page in a browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def address(folder):
    """Start the page in a folder with a small model; end it with Ctrl-C, which prints one line."""
    UNet(num_classes=3, filters=(4, 8)).save(folder / "own.keras")
    command = [sys.executable, "-c", SERVER, "demo", "--port", "0", "--max-pixels", "500000"]
    environment = {**os.environ, "TMPDIR": str(folder)}
    server = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=(folder / "errors.txt").open("w"),
        text=True,
    )
    line = server.stdout.readline()
    assert "http://127.0.0.1:" in line, (folder / "errors.txt").read_text()
    yield line.split()[4]
    server.send_signal(signal.SIGINT)
    rest, _ = server.communicate(timeout=20)
    assert (rest, server.returncode) == ("", 130)
    assert (folder / "errors.txt").read_text().splitlines()[-1] == "keras-fcn: stopped"
    assert not list(folder.glob("keras-fcn-*"))


@pytest.fixture(scope="module")
def chromium(folder):
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        f"--user-data-dir={folder / 'profile'}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    options.add_experimental_option("prefs", {"download.default_directory": str(folder)})
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    browser = webdriver.Chrome(options, service)
    yield browser
    browser.quit()


class Page:
    """The page as a reader uses it."""

    def __init__(self, browser, address, size=(1200, 1000)):
        self.browser = browser
        browser.set_window_size(*size)
        browser.get(address)
        self.wait("#segment")

    def all(self, selector):
        found = self.browser.find_elements("css selector", selector)
        return [element for element in found if element.is_displayed()]

    def wait(self, selector, seconds=90, ready=lambda element: True):
        """Wait for an element that is seen."""
        end = time.time() + seconds
        while time.time() < end:
            try:
                for element in self.all(selector):
                    if ready(element):
                        return element
            except Exception as error:
                if "stale" not in str(error):
                    raise
            time.sleep(0.1)
        raise AssertionError(f"no {selector} in {seconds} s:\n{self.browser.page_source[-3000:]}")

    def upload(self, path):
        place = self.wait(".kf-picture")
        place.find_element("css selector", "input[type=file]").send_keys(str(path))

    def choose(self, selector, text):
        """Type into a dropdown and choose."""
        field = self.wait(f"{selector} input")
        field.click()
        field.send_keys("\ue009a\ue000", text)  # Control and a
        field.send_keys("\ue007")  # Enter

    def tab(self, name):
        [tab] = [tab for tab in self.all("button[role=tab]") if tab.text == name]
        tab.click()

    def slide(self, slider, value):
        self.browser.execute_script(
            "arguments[0].value = arguments[1];"
            "arguments[0].dispatchEvent(new Event('input', {bubbles: true}))",
            slider,
            value,
        )

    def hosts(self):
        """The hosts of all requests since the last call."""
        messages = [
            json.loads(entry["message"])["message"] for entry in self.browser.get_log("performance")
        ]
        urls = [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        ]
        kinds = {url.split("/")[2].split(":")[0] for url in urls if url.startswith(("http", "ws"))}
        return kinds, len(urls)


@pytest.fixture
def page(chromium, address):
    page = Page(chromium, address)
    yield page
    hosts, _ = page.hosts()
    assert hosts == {"127.0.0.1"}


@pytest.fixture(scope="module")
def picture_file(folder):
    path = folder / "cat.png"
    Image.open(pictures.samples()["cat (scikit-image)"]).resize((226, 150)).save(path)
    return path


def number(page, slider):
    return int(page.wait(f"{slider} input[type=number]").get_attribute("value"))


@pytest.mark.slow
def test_a_picture_is_segmented(page, picture_file, folder):
    page.upload(picture_file)
    page.wait(".kf-view img")
    assert page.wait("#model input").get_attribute("value") in pretrained()
    page.choose("#model", "own.keras")
    page.wait("#segment").click()
    labels = page.wait("#result .kf-labels")
    assert labels.value_of_css_property("opacity") == "0.5"
    page.slide(page.wait("#result .kf-opacity"), 90)
    assert labels.value_of_css_property("opacity") == "0.9"
    assert page.wait("#result .kf-certainty").size["height"] > 50
    link = page.wait("#result a[download='own_labels.png']")
    label_map = decoded(link.get_attribute("href"))
    assert label_map.size == (226, 150)
    assert sum(label_map.histogram()) == 226 * 150
    assert "px" in page.wait("#result .kf-legend").text
    page.wait("#result .kf-overlay").click()
    page.wait("body", ready=lambda _: (folder / "own_overlay.png").is_file())
    overlay = Image.open(folder / "own_overlay.png")
    assert overlay.width >= 226
    assert overlay.height > 150
    [kept] = folder.glob("keras-fcn-*")
    assert not [path for path in kept.rglob("*") if path.is_file()]


def share_of_divider(page):
    divider, stack = page.wait(".kf-divider").rect, page.wait("#result .kf-stack").rect
    return (divider["x"] + 2 - stack["x"]) / stack["width"]


@pytest.mark.slow
def test_two_models_side_by_side(page, picture_file):
    page.upload(picture_file)
    page.wait(".kf-view img")
    page.choose("#model", "unet_camvid")
    page.choose("#other", "own.keras")
    page.wait("#segment").click()
    second = page.wait("#result .kf-second")
    before = second.value_of_css_property("clip-path")
    cut = page.browser.find_element("css selector", "#result .kf-cut")  # not seen, but felt
    page.slide(cut, 20)
    assert second.value_of_css_property("clip-path") != before
    assert share_of_divider(page) == pytest.approx(0.2, abs=0.02)

    opacity = page.wait("#result .kf-opacity")
    page.slide(opacity, 90)
    page.choose("#model", "own.keras")
    page.wait("#segment").click()
    page.wait("#result h3", ready=lambda title: title.text == "left: own.keras")
    # the next answer is as its sliders say
    assert (opacity.get_property("value"), cut.get_property("value")) == ("50", "50")
    assert page.wait("#result .kf-second").value_of_css_property("opacity") == "0.5"
    assert share_of_divider(page) == pytest.approx(0.5, abs=0.02)


@pytest.mark.slow
def test_a_picture_and_a_sample_are_taken_again(page, picture_file):
    for _ in range(2):
        page.choose(".kf-sample", "coffee (scikit-image)")
        page.wait(".kf-view .kf-preview", ready=lambda e: "coffee.png" in e.text)
        page.upload(picture_file)
        page.wait(".kf-view .kf-preview", ready=lambda e: "cat.png" in e.text)
        page.wait(".kf-sample input", ready=lambda e: e.get_property("value") == "")


@pytest.mark.slow
def test_no_question_follows_another_by_itself():
    """Of such a pair Gradio loses the second answer now and then, when the first is quick."""
    from keras_fcn.page.app import build

    questions = build(LIMITS).config["dependencies"]
    assert len(questions) > 10
    assert [question for question in questions if question["trigger_after"] is not None] == []


@pytest.mark.slow
def test_bad_files_are_explained(page, folder):
    (folder / "notes.png").write_text("no picture")
    page.upload(folder / "notes.png")
    page.wait(".kf-view .kf-error", ready=lambda e: "Pillow does not recognise" in e.text)
    Image.new("L", (1000, 600)).save(folder / "large.png")
    page.upload(folder / "large.png")
    page.wait(".kf-view .kf-error", ready=lambda e: "1000 x 600 = 600,000" in e.text)
    with (folder / "long.png").open("wb") as file:
        file.truncate(21_000_000)
    page.upload(folder / "long.png")
    page.wait(".kf-view .kf-error", ready=lambda e: "with 21.0 MB" in e.text)
    page.wait("#segment").click()
    page.wait("#result .kf-error", ready=lambda e: "--max-megabytes" in e.text)


@pytest.mark.slow
def test_a_picture_of_12_bits_gets_its_white(page, folder, picture_file, deep):
    Image.fromarray(deep).save(folder / "deep.tif")
    page.upload(folder / "deep.tif")
    remark = page.wait(".kf-view .kf-remark", ready=lambda e: "White: 4095" in e.text)
    page.wait(".kf-white input").send_keys("4095\ue007")  # Enter
    page.wait(".kf-view .kf-preview", ready=lambda e: "12 bits" not in e.text)
    assert remark not in page.all(".kf-remark")
    page.upload(picture_file)
    page.wait(".kf-view .kf-preview", ready=lambda e: "cat.png" in e.text)
    page.wait("body", ready=lambda _: not page.all(".kf-white input"))


@pytest.mark.slow
def test_a_window_is_dragged_over_the_picture(page):
    from selenium.webdriver import ActionChains

    page.tab("Dense layers")
    assert not page.all("#row, #column, #label")
    page.choose(".kf-sample", "cat (scikit-image)")
    page.wait(".kf-view img")
    page.wait("#slide").click()
    stage = page.wait("#stage .kf-stage")
    assert "5 x 5 x 32 x 64" in page.wait("#kernels table").text
    scores = page.wait("#window table").text
    assert page.wait("#heat .kf-heat").size["height"] > 50

    page.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", stage)
    ActionChains(page.browser).move_to_element(stage).click_and_hold().move_by_offset(
        60, 40
    ).release().perform()
    width, height = stage.rect["width"], stage.rect["height"]
    row = round(((height / 2 + 40) / height - 16 / 300) * 300 / 4)
    column = round(((width / 2 + 60) / width - 16 / 451) * 451 / 4)
    page.wait("#row", ready=lambda _: abs(number(page, "#row") - row) <= 1)
    page.wait("#column", ready=lambda _: abs(number(page, "#column") - column) <= 1)
    page.wait("#window table", ready=lambda table: table.text != scores)
    window = page.wait("#stage .kf-window")
    assert window.rect["x"] + window.rect["width"] / 2 == pytest.approx(
        stage.rect["x"] + width / 2 + 60, abs=6
    )

    scores = page.wait("#window table").text
    page.slide(page.wait("#row input[type=range]"), 2)
    page.wait("#window table", ready=lambda table: table.text != scores)
    assert window.rect["y"] == pytest.approx(stage.rect["y"] + 8 * height / 300, abs=2)

    page.choose("#label", "coffee")
    page.wait("#heat p", ready=lambda text: "coffee" in text.text)


@pytest.mark.slow
def test_a_telephone_is_wide_enough(chromium, address, picture_file):
    page = Page(chromium, address)
    size = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        page.upload(picture_file)
        page.wait(".kf-view img")
        page.choose("#model", "own.keras")
        page.wait("#segment").click()
        page.wait("#result .kf-labels")
        assert chromium.execute_script("return document.scrollingElement.scrollWidth") <= 390
        for element in page.all("#result img, #result li, #segment, #model"):
            assert element.rect["x"] >= 0
            assert element.rect["x"] + element.rect["width"] <= 390
        page.tab("Dense layers")
        page.choose(".kf-sample", "cat (scikit-image)")
        page.wait(".kf-view img")
        page.wait("#slide").click()
        page.wait("#stage .kf-window")
        assert chromium.execute_script("return document.scrollingElement.scrollWidth") <= 390
    finally:
        chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.slow
def test_the_browser_finds_no_fault(page):
    """No script fails, and the policy had nothing to forbid."""
    faults = [entry for entry in page.browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert not faults


def ask(address, path, **settings):
    """Return the status and text of an answer."""
    try:
        with urllib.request.urlopen(urllib.request.Request(address + path, **settings)) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.slow
def test_what_the_page_does_not_need_is_closed(address):
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\na\r\n--x--'
    assert ask(address, "/gradio_api/upload", data=body, headers=form)[0] == 404
    assert ask(address, "/gradio_api/file=setup.cfg")[0] == 404
    assert ask(address, "/gradio_api/proxy=http://example.org")[0] == 404
    assert ask(address, "/", headers={"Host": "example.org"})[0] == 400
    # all of it is sent before the reason is read
    status, reason = ask(address, "/gradio_api/queue/join", data=bytes(40_000_000))
    assert (status, "smaller picture" in reason) == (413, True)
    # refused by its length, before any of it is sent
    connection = http.client.HTTPConnection(address.removeprefix("http://"))
    connection.putrequest("POST", "/gradio_api/queue/join")
    connection.putheader("Content-Length", "40000000")
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == 413
    assert "smaller picture" in answer.read().decode()


def test_the_guard_of_the_server_sees_a_request_go_out():
    script = f"{GUARD}\nimport urllib.request\nurllib.request.urlopen('http://example.org')"
    server = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert server.returncode == 9
    assert "OUTBOUND socket.getaddrinfo example.org" in server.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--vgg16", "none.h5"], "Received: --vgg16 none.h5, which is none. Fetch vgg16_weights"),
        (["--vgg16", "text.h5"], "should be an HDF5 file. Received: --vgg16 text.h5"),
        (["--max-pixels", "0"], "--max-pixels: it should be an integer of at least 1"),
        (["--max-megabytes", "nan"], "--max-megabytes: it should be a finite number above 0"),
        (["--port", "65536"], "--port: it should be an integer from 0 to 65535"),
        (["--port", "{taken}"], "Pass another `--port`"),
        (["--host", "192.0.2.1"], "bound to a free address. Received: 192.0.2.1"),
    ],
)
def test_what_is_wrong_is_told_before_anything_takes_time(
    words, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.h5").write_text("no weights")
    monkeypatch.setattr("keras_fcn.commands.demo.import_quietly", lambda: pytest.fail("late"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        words = [word.format(taken=taken.getsockname()[1]) for word in words]
        try:
            status = main(["demo", *words])
        except SystemExit as end:  # an error of usage
            status = end.code
    assert status in (1, 2)
    assert message in capsys.readouterr().err
