# %% [markdown]
"""
Serve a network over HTTP: post a photograph, get the map, the picture, the areas or the objects.

    python examples/serve.py --port 8000
    curl --data-binary @photo.jpg http://127.0.0.1:8000/overlay > overlay.png
    curl --data-binary @photo.jpg http://127.0.0.1:8000/areas
    curl --data-binary @cells.png http://127.0.0.1:8000/objects

`--weights` names pretrained weights, a .keras file, or a file that `keras-fcn export` wrote, which
then runs in its own runtime; the others run by `--engine`. The page http://127.0.0.1:8000/docs
describes the endpoints and their limits. Without `--port` the script asks its own server for one
picture, and ends. It needs FastAPI and uvicorn, and scikit-learn for its photograph; it downloads
nothing.
"""

# %%
import argparse
import asyncio
import io
import signal
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Annotated

import fastapi
import numpy as np
import sklearn.datasets
import uvicorn
from PIL import Image, UnidentifiedImageError
from starlette.requests import ClientDisconnect

import keras_fcn
from keras_fcn.catalogue import classes_of
from keras_fcn.datasets.files import read_image
from keras_fcn.datasets.images import count_images
from keras_fcn.exports import open_export
from keras_fcn.inference import ObjectSettings, find_objects
from keras_fcn.inference.measure import measure_objects
from keras_fcn.inference.predict import check_options
from keras_fcn.label_maps import to_labels
from keras_fcn.remedies import on_the_command_line
from keras_fcn.visualize import overlay, write_png

parser = argparse.ArgumentParser(description="Serve a network over HTTP.")
parser.add_argument("--weights", default="unet_camvid", help="name, .keras file or exported file")
parser.add_argument("--engine", default="keras", help="keras, openvino or onnx")
parser.add_argument("--precision", default="float32", help="of openvino: bfloat16 or int8, too")
parser.add_argument("--calibration", help="for int8: a folder of images such as it is to serve")
parser.add_argument("--port", type=int, help="serve there, on 127.0.0.1, until Ctrl-C")
parser.add_argument("--max-bytes", type=int, default=20_000_000, help="of a file")
parser.add_argument("--max-pixels", type=int, default=4_000_000, help="of an image")
parser.add_argument("--max-objects", type=int, default=10_000, help="in an image")
parser.add_argument("--max-requests", type=int, default=32, help="under way at a time")
parser.add_argument("--max-seconds", type=int, default=30, help="until a file has arrived")
parser.add_argument("--output", type=Path, default=Path("predictions/served.png"))
options = parser.parse_args()

# %% [markdown]
# Ctrl-C is one line, whatever the server is at.


# %%
def stop(*_):
    print("Stopped.", file=sys.stderr)
    raise SystemExit(130)


if options.port is not None:
    signal.signal(signal.SIGINT, stop)

# %% [markdown]
# The network, as a function of one image `(height, width, channels)`, pixels in [0, 255], of any
# size, to its map `(height, width, classes)`. A model predicts with Keras; an exported file in its
# own runtime.

# %%
exported = Path(options.weights).suffix != ".keras" and Path(options.weights).exists()
if exported:
    network = open_export(options.weights)
    classes, channels = network.classes, network.channels
else:
    network = keras_fcn.load_model(options.weights)
    classes, channels = classes_of(network), network.input_shape[-1]
settings = ObjectSettings.of_classes(classes)
most_objects = min(options.max_objects, 65535)  # what a PNG of 16 bits numbers


def predict(image):
    if exported:
        return network.predict(image[None].astype("float32"))[0]
    return keras_fcn.predict_image(network, image, **how)


how = {name: getattr(options, name) for name in ("engine", "precision", "calibration")}
if not exported:
    try:
        with on_the_command_line():  # so errors name options as they are typed
            check_options(network, **how)  # before anything is served
    except (ValueError, ImportError, OSError) as error:
        parser.error(str(error))


# %% [markdown]
# What a stranger posts is limited before it costs anything: the bytes while they arrive, the pixels
# by the head of the file, before they are decoded. A file too large is read to its end and thrown
# away, for a client learns the reason only when it has sent all.


# %%
async def receive(request, limit):
    """Return the body, or None if it has more bytes than the limit."""
    body = bytearray()
    length = 0
    try:
        async with asyncio.timeout(options.max_seconds):
            async for chunk in request.stream():
                length += len(chunk)
                if length <= limit:
                    body += chunk
                else:
                    body.clear()
    except TimeoutError:
        reason = f"A file should arrive within {options.max_seconds} seconds. Send a smaller one."
        raise fastapi.HTTPException(408, reason) from None
    except ClientDisconnect:
        raise fastapi.HTTPException(400, "The client has gone.") from None
    return bytes(body) if length <= limit else None


under_way = asyncio.Semaphore(options.max_requests)


async def read_body(request: fastapi.Request):
    if under_way.locked():
        await receive(request, limit=0)
        reason = f"{options.max_requests} requests are under way. Try again in a second."
        raise fastapi.HTTPException(503, reason, headers={"Retry-After": "1"})
    async with under_way:
        body = await receive(request, options.max_bytes)
        if body is None:
            reason = f"A file should have at most {options.max_bytes} bytes. Send a smaller one."
            raise fastapi.HTTPException(413, reason)
        yield body


def decode(body):
    """Return the image, turned upright as its EXIF tag says: (height, width, channels)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image"
        path.write_bytes(body)
        try:
            check_head(path)
            return read_image(path, channels, max_pixels=options.max_pixels)
        except (
            OSError,
            ValueError,
            SyntaxError,
        ) as error:  # SyntaxError: of Pillow, of broken PNGs
            reason = str(error).replace(str(path), "the body")
            reason = f"The body should be an image file. Received {len(body)} bytes: {reason}"
            status = 413 if getattr(error, "kind", None) == "large" else 400
            raise fastapi.HTTPException(status, reason) from error


def check_head(path):
    """Refuse too many pixels, which Pillow tells without decoding them."""
    try:
        with Image.open(path) as picture:
            width, height = picture.size
            size = f"{width} x {height}"
            pixels = width * height * count_images(picture, path)
    except UnidentifiedImageError:  # a TIFF of many bands, say, which `read_image` counts itself
        return
    except Image.DecompressionBombError as error:
        pixels, size = float("inf"), str(error)
    if pixels > options.max_pixels:
        reason = f"An image should have at most {options.max_pixels} pixels. Received: {size}."
        raise fastapi.HTTPException(413, f"{reason} Send a smaller one, or its parts.")


# %% [markdown]
# One image at a time is decoded and in the network, so memory is that of one image. The endpoints
# are no coroutines: FastAPI runs them in threads, and the server goes on answering meanwhile.

# %%
one_at_a_time = threading.Lock()


def segment(body: Annotated[bytes, fastapi.Depends(read_body)]):
    """Return the image, its scores (height, width, channels) and its label map (height, width)."""
    with one_at_a_time:
        image = decode(body)
        try:
            scores = predict(image)
            return image, scores, to_labels(scores)
        except Exception as error:  # runtimes raise what they like for an image too small for them
            height, width = image.shape[:2]
            reason = f"The network can't take this image of {width} x {height} pixels: {error}"
            raise fastapi.HTTPException(422, reason) from error


def find(segmented: Annotated[tuple, fastapi.Depends(segment)]):
    """Return the image, its scores, and the numbers of its objects (height, width)."""
    image, scores, label_map = segmented
    check_size(image, label_map)
    with one_at_a_time:
        try:
            objects = find_objects(scores, settings)
        except ValueError as error:  # of scores that are no probabilities
            raise fastapi.HTTPException(422, str(error)) from error
    if objects.max() > most_objects:
        reason = f"An image should have at most {most_objects} objects. Received: one of "
        raise fastapi.HTTPException(422, f"{reason}{objects.max()}. Send a part of it.")
    return image, scores, objects


def check_size(image, label_map):
    """Refuse what is laid over the image where the map is not of its size."""
    if label_map.shape != image.shape[:2]:
        height, width = label_map.shape
        reason = f"The network's map has {width} x {height} pixels, other than the image"
        raise fastapi.HTTPException(422, f"{reason}; see /labels.")


def as_png(picture):
    png = io.BytesIO()
    picture.save(png, format="PNG")
    return fastapi.Response(png.getvalue(), media_type="image/png")


limits = (
    f"At most {options.max_bytes} bytes and {options.max_pixels} pixels, sent within "
    f"{options.max_seconds} seconds; at most {most_objects} objects in it; at most "
    f"{options.max_requests} requests at a time."
)
app = fastapi.FastAPI(
    title="keras_fcn",
    description=f"Post an image file as the body. {limits} Classes: {', '.join(classes.names)}.",
)
file = {"schema": {"type": "string", "format": "binary"}}
endpoint = {
    "openapi_extra": {"requestBody": {"required": True, "content": {"image/*": file}}},
    "responses": {
        400: {"description": "The body is no image."},
        408: {"description": f"It took more than {options.max_seconds} seconds to arrive."},
        413: {
            "description": f"More than {options.max_bytes} bytes, or {options.max_pixels} pixels."
        },
        422: {
            "description": "The network can't take an image of this size, or has no such answer."
        },
        503: {"description": f"{options.max_requests} requests are under way; see Retry-After."},
    },
}
Segmented = Annotated[tuple, fastapi.Depends(segment)]
Found = Annotated[tuple, fastapi.Depends(find)]


@app.post("/labels", **endpoint)
def labels(segmented: Segmented):
    """Return a palette PNG whose pixels are the numbers of the classes."""
    picture = Image.fromarray(segmented[2].astype("uint8"), mode="P")
    picture.putpalette(classes.palette.tobytes())
    return as_png(picture)


@app.post("/overlay", **endpoint)
def picture(segmented: Segmented):
    """Return a PNG of the image under the colours of its classes, with a legend."""
    image, _, label_map = segmented
    check_size(image, label_map)
    return as_png(overlay(image, label_map, classes.palette, classes.names))


@app.post("/areas", **endpoint)
def areas(segmented: Segmented):
    """Return JSON: for each class how many pixels it has, and which share of the image."""
    label_map = segmented[2]
    counts = np.bincount(label_map.ravel(), minlength=len(classes)).tolist()
    return {
        name: {"pixels": count, "share": count / label_map.size}
        for name, count in zip(classes.names, counts, strict=True)
    }


@app.post("/objects", **endpoint)
def objects(found: Found):
    """Return JSON: a list of the objects, with places in pixels from the upper left corner."""
    image, scores, numbers = found
    return [
        {
            "number": number,
            "class": name,
            "area": area,
            "centroid": {"row": row, "column": column},
            "box": {"top": top, "left": left, "bottom": bottom, "right": right},
            "mean_probability": probability,
        }
        for number, name, area, row, column, top, left, bottom, right, probability, _ in (
            measure_objects(numbers, scores, image, classes.names, settings)
        )
    ]


@app.post("/objects.png", **endpoint)
def object_map(found: Found):
    """Return a PNG of 16 bits whose pixels are the numbers of the objects, 0 the background."""
    return as_png(Image.fromarray(found[2].astype("uint16")))


# %%
config = uvicorn.Config(
    app, port=options.port or 0, log_level="warning", timeout_graceful_shutdown=5
)
server = uvicorn.Server(config)
if options.port is not None:
    print(f"Serving {options.weights} on http://127.0.0.1:{options.port}, described on /docs")
    server.run()
    raise SystemExit

# %% [markdown]
# A client, of the server in another thread, on whatever port is free.

# %%
thread = threading.Thread(target=server.run)
thread.start()
while thread.is_alive() and not server.started:
    time.sleep(0.1)
port = server.servers[0].sockets[0].getsockname()[1]
photo = Path(sklearn.datasets.__file__).with_name("images") / "china.jpg"
request = urllib.request.Request(f"http://127.0.0.1:{port}/overlay", photo.read_bytes())
try:
    with urllib.request.urlopen(request) as response:
        print(response.status, response.reason, response.headers["Content-Type"])
        answer = Image.open(io.BytesIO(response.read()))
finally:
    server.should_exit = True
    thread.join()

# %%
options.output.parent.mkdir(parents=True, exist_ok=True)
write_png(options.output, answer)
print("The picture that the server gave:", options.output)
