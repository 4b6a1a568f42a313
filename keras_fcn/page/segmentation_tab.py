"""The tab that shows what one model or two see in a picture."""

import functools

import gradio as gr

from keras_fcn.page import answers, markup, pictures
from keras_fcn.page.controls import explained, on, picture_input

ONE_MODEL = "one model only"
FIRST_MODEL = "unet_vgg16_camvid"  # that of the README's first line


def add(limits, own_files):
    """Add the controls and the place of the answer.

    Args:
        limits: `keras_fcn.page.limits.Limits`.
        own_files: whether paths of `.keras` files may be typed.
    """
    gr.Markdown("Each pixel gets a class. Nothing leaves this computer, and no picture is kept.")
    names = answers.choices()
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            picture = picture_input(limits)
            model = gr.Dropdown(
                names,
                value=FIRST_MODEL,
                label="Model",
                info="or type the path of a .keras file" if own_files else None,
                allow_custom_value=own_files,
                elem_id="model",
            )
            other = gr.Dropdown(
                [ONE_MODEL, *names],
                label="Compare with",
                allow_custom_value=own_files,
                elem_id="other",
            )
            button = gr.Button("Segment", variant="primary", elem_id="segment")
        with gr.Column(scale=2, min_width=300):
            result = gr.HTML(elem_id="result", apply_default_css=False, min_height=120)

    @explained
    def segment(picture, *chosen):
        chosen = [name for name in chosen if (name or "").strip() not in ("", ONE_MODEL)]
        if not chosen:
            raise ValueError("A model should be chosen. Received: none. Choose one of the list.")
        read = functools.partial(pictures.read_picture, picture, limits)
        return markup.answers_page([answers.answer(name, read) for name in chosen])

    on(button.click, segment, [picture, model, other], result)
