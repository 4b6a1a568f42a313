"""What the two tabs share: the way in for a picture, and errors that are shown as text."""

import functools

import gradio as gr

from keras_fcn.page import markup, pictures
from keras_fcn.remedies import FIELDS

# Errors whose message explains what went wrong.
EXPECTED = (ValueError, OSError, ImportError, MemoryError)

# The browser reads the file, and holds it; only pictures within the limit are sent.
UPLOAD = """
element.addEventListener("change", (event) => {
  const [file] = event.target.files;
  if (!file) return;
  event.target.value = "";  // so that the same file is a change, too, when it is chosen again
  const send = (data) => {
    props.value = {name: file.name, size: file.size, data};
    trigger("upload");
  };
  if (file.size > props.most_bytes) return send(null);  // the server says why
  const reader = new FileReader();
  reader.onload = () => send(reader.result.split(",")[1] ?? "");
  reader.onerror = () => send("");
  reader.readAsDataURL(file);
});
"""


def explained(answer):
    """Return a function whose errors become HTML that explains them."""

    @functools.wraps(answer)
    def wrapped(*arguments):
        try:
            return answer(*arguments)
        except EXPECTED as error:
            return markup.error(error)

    return wrapped


def on(event, function, inputs, outputs, **settings):
    """Let a function answer an event of the page, one question at a time."""
    return event(
        function, inputs, outputs, api_visibility="private", concurrency_id="model", **settings
    )


def picture_input(limits):
    """Add the place to drop a picture, the samples, and the view of what was chosen.

    Args:
        limits: `keras_fcn.page.limits.Limits`.

    Returns:
        The component whose value `pictures.read_picture` reads.
    """
    picture = _upload(limits)
    names = list(pictures.samples())
    sample = gr.Dropdown(names, value=None, label="or take a sample", elem_classes="kf-sample")
    white = gr.Number(
        None,
        label=FIELDS["white"],
        info="the value that is white in this picture, as 4095 of a 12-bit camera",
        visible=False,  # until a picture has more than 8 bits
        elem_classes="kf-white",
    )
    view = gr.HTML(apply_default_css=False, elem_classes="kf-view")

    def show(picture):
        deep = False
        try:
            raster = pictures.open_picture(picture, limits)
            deep = pictures.is_deep(raster)
            image, remarks = pictures.image_of(picture, raster), pictures.remarks(picture, raster)
            shown = markup.preview(picture["name"], image, remarks)
        except EXPECTED as error:
            shown = markup.error(error)
        return {view: shown, white: gr.Number((picture or {}).get("white"), visible=deep)}

    # Of what a question leads to, all is in its answer: Gradio may lose the answer to a second
    # question that follows by itself (`then`).
    def take(name):
        taken = pictures.sample_picture(name)
        return {picture: taken, **show(taken)}

    def whiten(given, value):
        given = pictures.with_white(given, value)
        return {picture: given, **show(given)}

    shown = [view, white]
    on(picture.upload, show, picture, shown)
    # no sample is shown beside another picture, and the same one can be taken again
    picture.upload(None, None, sample, js="() => null", api_visibility="private")
    on(sample.input, take, sample, [picture, *shown])
    for event in (white.submit, white.blur):  # Enter, or leaving the field
        on(event, whiten, [picture, white], [picture, *shown])
    return picture


def _upload(limits):
    """Add the place to drop a picture."""
    return gr.HTML(
        value=None,
        html_template='<label class="kf-drop"><input type="file" accept="image/*,.tif,.tiff">'
        f"Drop a picture here, or click to choose one<br><small>up to {limits.megabytes:g} MB and "
        f"{limits.pixels:,} pixels</small></label>",
        js_on_load=UPLOAD,
        apply_default_css=False,
        elem_classes="kf-picture",
        most_bytes=limits.bytes,
    )
