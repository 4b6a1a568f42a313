"""Where the time of a training step goes, and how it compares with the same network in torch.

    pip install 'keras-fcn[benchmark]'
    python -m benchmarks.training_step [--networks UNet FCN8s] [--steps 5]

A step is of 4 crops of 256x256, with AdamW. Forward, backward and optimizer are told apart by
what a step takes without the latter; all run in turn, and printed are medians. The input is what
the augmented crops of one batch cost the processor, which runs beside the step.
"""

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np

with contextlib.suppress(ImportError):
    import torch._dynamo  # before TensorFlow: after it, the import of torch's triton is a segfault

import keras
import tensorflow as tf

import keras_fcn
from benchmarks.input_pipeline import PIPELINES, measure, write_scenes
from keras_fcn import datasets

BATCH, SIDE, CLASSES = 4, 256, 11
ARGUMENTS = {
    "UNet": {"filters": (32, 64, 128, 256, 512)},
    "FCN8s": {"fc_filters": 256},
}


def parts(name, policy):
    """Return {part: function of nothing} of the forward pass, with backward, and of a step."""
    keras.config.set_dtype_policy(policy)
    model = getattr(keras_fcn, name)(num_classes=CLASSES, **ARGUMENTS[name])
    keras.config.set_dtype_policy("float32")
    model.compile("adamw", "sparse_categorical_crossentropy")
    rng = np.random.default_rng(0)
    images = tf.constant(rng.integers(0, 256, (BATCH, SIDE, SIDE, 3)).astype("float32"))
    labels = tf.constant(rng.integers(0, CLASSES, (BATCH, SIDE, SIDE)))

    @tf.function
    def forward():
        return model.compute_loss(images, labels, model(images, training=True))

    @tf.function
    def backward():
        with tf.GradientTape() as tape:
            loss = model.compute_loss(images, labels, model(images, training=True))
        return [tf.reduce_sum(g) for g in tape.gradient(loss, model.trainable_variables)]

    @tf.function
    def validate():
        return model(images, training=False)

    return {
        "forward": lambda: forward().numpy(),
        "backward": lambda: [g.numpy() for g in backward()],
        "step": lambda: model.train_on_batch(images, labels),
        "validation": lambda: validate().numpy(),
    }


def torch_step(name, dtype):
    """Return a step of the same network in torch, channels last."""
    from benchmarks import peers

    arguments = {"UNet": {"filters": ARGUMENTS["UNet"]["filters"]}, "FCN8s": {"fc_filters": 256}}
    model = getattr(peers, name)(CLASSES, **arguments[name]).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters())
    images = torch.rand(BATCH, 3, SIDE, SIDE).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, CLASSES, (BATCH, SIDE, SIDE))

    def step():
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            scores = model(255 * images).float()
        torch.nn.functional.nll_loss(torch.log(scores + 1e-7), labels).backward()
        optimizer.step()

    return step


def input_seconds():
    """Return the seconds of processor that the augmented crops of a batch take."""
    with tempfile.TemporaryDirectory() as folder:
        write_scenes(Path(folder))
        arguments = PIPELINES["all, as for street scenes"]
        dataset = datasets.load(
            folder, "all", batch_size=BATCH, crop_size=SIDE, shuffle=True, seed=0, **arguments
        )
        return BATCH / measure(dataset, 3)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=list(ARGUMENTS))
    parser.add_argument("--steps", type=int, default=5)
    options = parser.parse_args()
    print(f"Input: {input_seconds():.3f} s of one core for a batch\n")
    print("| network | in | forward | backward | optimizer | step | validation | of torch's |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name in options.networks:
        for policy, dtype in (("float32", "float32"), ("mixed_bfloat16", "bfloat16")):
            functions = parts(name, policy)
            if "torch" in globals():
                functions["torch"] = torch_step(name, getattr(torch, dtype))
            print_row(name, dtype, run(functions, options.steps))


def run(functions, steps):
    """Return {part: median of the seconds}, all in turn within a step."""
    seconds = {part: [] for part in functions}
    for number in range(steps + 1):
        for part, function in functions.items():
            start = time.perf_counter()
            function()
            if number:  # the first compiles
                seconds[part].append(time.perf_counter() - start)
    return {part: statistics.median(times) for part, times in seconds.items()}


def print_row(name, dtype, seconds):
    forward, backward, step = (seconds[part] for part in ("forward", "backward", "step"))
    ratio = f"{step / seconds['torch']:.2f}" if "torch" in seconds else ""
    print(
        f"| {name} | {dtype} | {forward:.2f} | {backward - forward:.2f} | {step - backward:.2f} "
        f"| {step:.2f} | {seconds['validation']:.2f} | {ratio} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
