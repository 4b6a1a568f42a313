"""The tab that sets a classifier's dense layers beside the convolutions that they are."""

import base64

import gradio as gr
import numpy as np

from keras_fcn.page import markup, pictures, windows
from keras_fcn.page.controls import EXPECTED, explained, on, picture_input

SMALL = "small VGG, fitted here"
VGG16 = "VGG16"
# A pointer pressed on the picture is at the centre of the window that it asks for. The window
# follows at once; scores are asked for some times a second, and where the pointer leaves it.
DRAG = """
let asked = 0;
const place = (event) => {
  const stage = event.target.closest(".kf-stage");
  const ends = event.type === "pointerup";
  if (!stage || (event.buttons !== 1 && !ends)) return;
  if (event.type === "pointerdown") stage.setPointerCapture(event.pointerId);
  const {rows, columns, down, right, tall, wide} = stage.dataset;
  const box = stage.getBoundingClientRect();
  const index = (share, size, step, count) =>
    Math.max(0, Math.min(count - 1, Math.round((share - size / 2) / step)));
  const row = index((event.clientY - box.top) / box.height, tall, down, rows);
  const column = index((event.clientX - box.left) / box.width, wide, right, columns);
  moveWindow(row, column);
  if (!ends && Date.now() - asked < 250) return;
  asked = Date.now();
  trigger("select", {row, column});
};
for (const type of ["pointerdown", "pointermove", "pointerup"])
  element.addEventListener(type, place);
"""
MOVE = "(...given) => { moveWindow(...given.slice(-2)); return given; }"


def add(limits, vgg16):
    """Add the controls and the places of the answers.

    Args:
        limits: `keras_fcn.page.limits.Limits`.
        vgg16: path of VGG16's weights file, or None.
    """
    gr.Markdown(
        "A dense layer on a map of h x w pixels is a convolution with a kernel of h x w. On a "
        "larger picture it slides: one pass scores every window."
    )
    _Tab(limits, vgg16).connect()


class _Tab:
    """The controls, the places of the answers, and the functions that answer."""

    def __init__(self, limits, vgg16):
        self.limits, self.vgg16 = limits, vgg16
        later = {"visible": False}  # until there are windows to choose among
        side = {"step": 1, **later}
        bare = {"apply_default_css": False}
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                self.picture = picture_input(limits)
                networks = [SMALL] if vgg16 is None else [SMALL, VGG16]
                self.network = gr.Dropdown(networks, label="Network", elem_id="network")
                self.button = gr.Button(
                    "Slide over the picture", variant="primary", elem_id="slide"
                )
                self.row = gr.Slider(0, 1, 0, label="Row of the window", elem_id="row", **side)
                self.column = gr.Slider(
                    0, 1, 0, label="Column of the window", elem_id="column", **side
                )
            with gr.Column(scale=2, min_width=300):
                self.kernels = gr.HTML(elem_id="kernels", min_height=120, **bare)
                self.table = gr.HTML(elem_id="window", **bare)
                self.stage = gr.HTML(elem_id="stage", js_on_load=DRAG, **bare)
                self.label = gr.Dropdown([], label="Heat map of", elem_id="label", **later)
                self.heat = gr.HTML(elem_id="heat", **bare)
        # What the browser holds for the server: the scaled picture, and the scores of its windows.
        self.held = gr.HTML(value=None, html_template="", js_on_load=None, visible="hidden")

    def connect(self):
        """Let the functions answer what is done to the controls."""
        place = [self.held, self.row, self.column]
        everything = [*place, self.kernels, self.table, self.stage, self.label, self.heat]
        on(self.button.click, self.slide, [self.picture, self.network], everything)
        quiet = {"show_progress": "hidden"}
        for slider in (self.row, self.column):
            last = {"trigger_mode": "always_last", **quiet}
            on(slider.input, explained(self.move), place, self.table, js=MOVE, **last)
        # each with its own place, the last of them last
        pointed = [self.row, self.column, self.table]
        on(self.stage.select, self.point, self.held, pointed, trigger_mode="multiple", **quiet)
        on(self.label.input, explained(self.warm), [self.held, self.label], self.heat)

    def find(self, network):
        """Return the pair of networks by its name on the page."""
        return windows.vgg16_pair(str(self.vgg16)) if network == VGG16 else windows.small_pair()

    def slide(self, picture, network):
        """Score all windows of a picture, and show them."""
        try:
            pair = self.find(network)
            image = windows.fit_size(pictures.read_picture(picture, self.limits), pair.window)
            scores, seconds = windows.slide(pair, image)
        except EXPECTED as error:
            return {self.kernels: markup.error(error)}
        best = int(scores.mean((0, 1)).argmax())
        rows, columns = scores.shape[:2]
        return {
            self.held: {"network": network, "image": _pack(image), "scores": _pack(scores)},
            self.kernels: markup.kernels(pair, scores, seconds),
            self.table: markup.window_table(pair, windows.score_window(pair, image, scores, 0, 0)),
            self.stage: markup.stage(pair, image, (rows, columns)),
            # a slider needs two places; where there is one window, both are of it
            self.row: gr.Slider(0, max(1, rows - 1), 0, visible=True),
            self.column: gr.Slider(0, max(1, columns - 1), 0, visible=True),
            self.label: gr.Dropdown(list(pair.names), value=pair.names[best], visible=True),
            self.heat: markup.heat(pair, image, windows.heat_map(scores, best), pair.names[best]),
        }

    def move(self, held, row, column):
        """Show the scores of a window, by both networks."""
        pair, image, scores = self._unpack(held)
        return markup.window_table(pair, windows.score_window(pair, image, scores, row, column))

    def warm(self, held, name):
        """Show where a class is."""
        pair, image, scores = self._unpack(held)
        picture = windows.heat_map(scores, pair.names.index(name))
        return markup.heat(pair, image, picture, name)

    def point(self, held, event: gr.EventData):
        """Go to the window that a pointer asks for."""
        return event.row, event.column, explained(self.move)(held, event.row, event.column)

    def _unpack(self, held):
        """Return the pair of networks, and the arrays that the browser held."""
        if not held:
            raise ValueError(
                "There are no scores yet. Press the button that slides over the picture."
            )
        image, scores = (
            np.frombuffer(base64.b64decode(array["data"]), array["dtype"]).reshape(array["shape"])
            for array in (held["image"], held["scores"])
        )
        return self.find(held["network"]), image, scores


def _pack(array):
    """Return an array as what JSON holds."""
    data = base64.b64encode(array.tobytes()).decode()
    return {"data": data, "dtype": array.dtype.name, "shape": array.shape}
