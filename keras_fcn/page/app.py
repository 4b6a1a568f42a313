"""The page in Gradio."""

from pathlib import Path

import gradio as gr

from keras_fcn.page import segmentation_tab, windows_tab

FOLDER = Path(__file__).parent
# Names of fonts of the reader's own system: none is fetched.
FONTS = {"font": ("system-ui", "sans-serif"), "font_mono": ("ui-monospace", "monospace")}


def build(limits, vgg16=None, own_files=True):
    """Lay out the page.

    Args:
        limits: `keras_fcn.page.limits.Limits`.
        vgg16: path of VGG16's weights file for the second tab, or None.
        own_files: whether paths of `.keras` files may be typed.

    Returns:
        `gradio.Blocks`, in which the server keeps no picture: the browser holds what it
        sent, and sends it again with each question.
    """
    with gr.Blocks(title="keras-fcn", analytics_enabled=False, delete_cache=(60, 60)) as page:
        gr.Markdown("# keras-fcn")
        with gr.Tab("Segmentation"):
            segmentation_tab.add(limits, own_files)
        with gr.Tab("Dense layers"):
            windows_tab.add(limits, vgg16)
    return page


def look():
    """Return the theme, CSS and script of the page, as `gradio.mount_gradio_app` takes them."""
    return {
        "theme": gr.themes.Default(**FONTS),
        "css": (FOLDER / "page.css").read_text(),
        "head": f"<script>{(FOLDER / 'page.js').read_text()}</script>",
    }
