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
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            picture = picture_input(limits)
            networks = [SMALL] if vgg16 is None else [SMALL, VGG16]
            network = gr.Dropdown(networks, label="Network", elem_id="network")
            button = gr.Button("Slide over the picture", variant="primary", elem_id="slide")
            later = {"visible": False}  # until there are windows to choose among
            row = gr.Slider(0, 1, 0, step=1, label="Row of the window", elem_id="row", **later)
            column = gr.Slider(
                0, 1, 0, step=1, label="Column of the window", elem_id="column", **later
            )
        with gr.Column(scale=2, min_width=300):
            kernels = gr.HTML(elem_id="kernels", apply_default_css=False, min_height=120)
            table = gr.HTML(elem_id="window", apply_default_css=False)
            stage = gr.HTML(elem_id="stage", apply_default_css=False, js_on_load=DRAG)
            label = gr.Dropdown([], label="Heat map of", elem_id="label", **later)
            heat = gr.HTML(elem_id="heat", apply_default_css=False)
    # What the browser holds for the server: the scaled picture, and the scores of its windows.
    held = gr.HTML(value=None, html_template="", js_on_load=None, visible="hidden")

    def find(network):
        return windows.vgg16_pair(str(vgg16)) if network == VGG16 else windows.small_pair()

    def slide(picture, network):
        try:
            pair = find(network)
            image = windows.fit_size(pictures.read_picture(picture, limits), pair.window)
            scores, seconds = windows.slide(pair, image)
        except EXPECTED as error:
            return {kernels: markup.error(error)}
        best = int(scores.mean((0, 1)).argmax())
        rows, columns = scores.shape[:2]
        return {
            held: {"network": network, "image": _pack(image), "scores": _pack(scores)},
            kernels: markup.kernels(pair, scores, seconds),
            table: markup.window_table(pair, windows.score_window(pair, image, scores, 0, 0)),
            stage: markup.stage(pair, image, (rows, columns)),
            # a slider needs two places; where there is one window, both are of it
            row: gr.Slider(0, max(1, rows - 1), 0, visible=True),
            column: gr.Slider(0, max(1, columns - 1), 0, visible=True),
            label: gr.Dropdown(list(pair.names), value=pair.names[best], visible=True),
            heat: markup.heat(pair, image, windows.heat_map(scores, best), pair.names[best]),
        }

    @explained
    def move(held, row, column):
        pair, image, scores = _unpack(held, find)
        return markup.window_table(pair, windows.score_window(pair, image, scores, row, column))

    @explained
    def warm(held, name):
        pair, image, scores = _unpack(held, find)
        picture = windows.heat_map(scores, pair.names.index(name))
        return markup.heat(pair, image, picture, name)

    def point(held, event: gr.EventData):
        return event.row, event.column, move(held, event.row, event.column)

    everything = [held, kernels, table, stage, row, column, label, heat]
    on(button.click, slide, [picture, network], everything)
    quiet = {"show_progress": "hidden"}
    place = [held, row, column]
    on(row.input, move, place, table, js=MOVE, trigger_mode="always_last", **quiet)
    on(column.input, move, place, table, js=MOVE, trigger_mode="always_last", **quiet)
    # each with its own place, the last of them last
    on(stage.select, point, held, [row, column, table], trigger_mode="multiple", **quiet)
    on(label.input, warm, [held, label], heat)


def _pack(array):
    """Return an array as what JSON holds."""
    data = base64.b64encode(array.tobytes()).decode()
    return {"data": data, "dtype": array.dtype.name, "shape": array.shape}


def _unpack(held, find):
    """Return the pair of networks, and the arrays that the browser held."""
    if not held:
        raise ValueError("There are no scores yet. Press the button that slides over the picture.")
    image, scores = (
        np.frombuffer(base64.b64decode(array["data"]), array["dtype"]).reshape(array["shape"])
        for array in (held["image"], held["scores"])
    )
    return find(held["network"]), image, scores
