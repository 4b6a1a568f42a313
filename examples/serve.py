# %% [markdown]
"""
Serve an exported network over HTTP: post a photograph, get the picture of its classes.

    python examples/serve.py --port 8000
    curl --data-binary @photo.jpg http://127.0.0.1:8000/predict > overlay.png

The network is exported once, to TensorFlow's SavedModel; what predicts then is that folder, with
neither Keras nor this package. Without `--port` the script asks its own server for one picture, and
ends. It needs FastAPI and uvicorn, and scikit-learn for its photograph; it downloads nothing.
"""

# %%
import argparse
import io
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Annotated

import fastapi
import numpy as np
import sklearn.datasets
import tensorflow as tf
import uvicorn
from PIL import Image

import keras_fcn
from keras_fcn.visualize import overlay, write_png

parser = argparse.ArgumentParser(description="Serve an exported network over HTTP.")
parser.add_argument("--port", type=int, help="serve there, on 127.0.0.1, until Ctrl-C")
parser.add_argument("--output", type=Path, default=Path("predictions/served.png"))
options = parser.parse_args()

# %% [markdown]
# The exported function takes images of any size, `(batch, height, width, 3)`, pixels in [0, 255],
# because the model scales them itself.

# %%
card = keras_fcn.pretrained()["unet_camvid"]
with tempfile.TemporaryDirectory() as folder:
    keras_fcn.from_pretrained("unet_camvid").export(folder, verbose=False)
    exported = tf.saved_model.load(folder)

# %% [markdown]
# One endpoint. `predict` is no coroutine, so FastAPI runs it in a thread, and the server goes on
# answering meanwhile.

# %%
app = fastapi.FastAPI(title="keras_fcn")


async def read_body(request: fastapi.Request):
    return await request.body()


@app.post("/predict")
def predict(body: Annotated[bytes, fastapi.Depends(read_body)]):
    """Return a PNG: the posted image under the colours of its classes, with a legend."""
    try:
        image = np.asarray(Image.open(io.BytesIO(body)).convert("RGB"))  # (height, width, 3)
    except OSError as error:
        reason = f"The body should be an image file. Received {len(body)} bytes: {error}"
        raise fastapi.HTTPException(status_code=400, detail=reason) from error
    probabilities = exported.serve(image[None].astype("float32"))  # (1, height, width, classes)
    label_map = probabilities[0].numpy().argmax(-1)
    png = io.BytesIO()
    overlay(image, label_map, card["palette"], card["classes"]).save(png, format="PNG")
    return fastapi.Response(png.getvalue(), media_type="image/png")


# %%
server = uvicorn.Server(uvicorn.Config(app, port=options.port or 0, log_level="warning"))
if options.port:
    print(f"Serving on http://127.0.0.1:{options.port}/predict, described on /docs")
    server.run()
    raise SystemExit

# %% [markdown]
# A client, on another thread's server and whatever port is free.

# %%
thread = threading.Thread(target=server.run)
thread.start()
while thread.is_alive() and not server.started:
    time.sleep(0.1)
port = server.servers[0].sockets[0].getsockname()[1]
photo = Path(sklearn.datasets.__file__).with_name("images") / "china.jpg"
request = urllib.request.Request(f"http://127.0.0.1:{port}/predict", photo.read_bytes())
try:
    with urllib.request.urlopen(request) as response:
        print(response.status, response.reason, response.headers["Content-Type"])
        picture = Image.open(io.BytesIO(response.read()))
finally:
    server.should_exit = True
    thread.join()

# %%
options.output.parent.mkdir(parents=True, exist_ok=True)
write_png(options.output, picture)
print("The picture that the server gave:", options.output)
