# %% [markdown]
"""
Fine-tune a shipped network on a data set of TensorFlow Datasets: cats and dogs, pixel by pixel.

    python examples/finetune_tfds.py

Oxford-IIIT Pet has thousands of photographs with three classes: the pet, the background, and the
border between. TFDS downloads them once, 800 MB; where it can't, the script says so and takes the
drawn streets of `shapes/street` instead.
"""

# %%
import argparse
from pathlib import Path

import keras
import tensorflow_datasets as tfds

import keras_fcn
from keras_fcn.datasets import SOURCES, Augmentation
from keras_fcn.visualize import comparison, voc_palette, write_png

parser = argparse.ArgumentParser(description="Fine-tune on a data set of TFDS.")
parser.add_argument(
    "--data",
    default="oxford_iiit_pet",
    choices=["oxford_iiit_pet", "voc_segmentation", "shapes/street"],
)
parser.add_argument("--epochs", type=int, default=5)
parser.add_argument("--steps", type=int, default=100, help="batches of an epoch")
parser.add_argument("--output", type=Path, default=Path("predictions/finetune_tfds.png"))
options = parser.parse_args()
keras.utils.set_random_seed(0)

# %% [markdown]
# The first use of a data set downloads and prepares it. TFDS tries ten times, which takes some
# minutes, before it gives up.

# %%
data = options.data
try:
    keras_fcn.datasets.load(data, "train")
except (OSError, tfds.download.DownloadError) as error:
    print(f"{data} can't be downloaded: {error}")
    data = "shapes/street"
    print(f"Going on with {data}, which is drawn on this machine.")
name, _, configuration = data.partition("/")
void = SOURCES[name].ignore
classes = SOURCES[name].classes
if configuration:
    classes = classes[configuration]

# %% [markdown]
# Random crops to train on, each another one in every epoch, and crops from the middle to judge by.
# The images that the training does not see are the last tenth.

# %%
crop_size = 96 if name == "shapes" else 256  # the drawn streets are 96 pixels wide
training = keras_fcn.datasets.load(
    data,
    "train[:90%]",
    batch_size=4,
    crop_size=crop_size,
    shuffle=True,
    augment=Augmentation(flip="horizontal", scale=0.25, contrast=0.2, brightness=0.1),
    seed=0,
)
validation = keras_fcn.datasets.load(data, "train[90%:]", batch_size=4, crop_size=crop_size)
validation = validation.take(16).cache()  # at most 64 images

# %% [markdown]
# From here on it is plain Keras. All layers but the score layer keep what they learned on CamVid's
# streets. Batch normalisation is frozen, so that it goes on with the averages of its own training;
# Keras's averages take hundreds of steps to arrive at new data.

# %%
model = keras_fcn.from_pretrained("unet_camvid", num_classes=len(classes))
for layer in model.layers:
    if isinstance(layer, keras.layers.BatchNormalization):
        layer.trainable = False
total = options.epochs * options.steps
schedule = keras.optimizers.schedules.CosineDecay(
    0.0, total, warmup_target=3e-3, warmup_steps=total // 10
)
model.compile(
    optimizer=keras.optimizers.AdamW(schedule),
    loss=keras_fcn.losses.WeightedCrossentropy(ignore_class=void),
    metrics=[keras_fcn.metrics.SegmentationMetrics(len(classes), ignore_class=void)],
    jit_compile=False,  # on CPUs XLA compiles for long and is no faster
)
model.fit(
    training.repeat(),
    validation_data=validation,
    epochs=options.epochs,
    steps_per_epoch=options.steps,
    shuffle=False,  # the training set is shuffled
    verbose=2,
)

# %%
rows = []
for image, truth in validation.unbatch().take(3).as_numpy_iterator():
    rows.append((image, truth, keras_fcn.predict_image(model, image).argmax(-1)))
options.output.parent.mkdir(parents=True, exist_ok=True)
write_png(options.output, comparison(rows, voc_palette(len(classes)), classes, void))
print("Images of the validation, truth, prediction and errors:", options.output)
