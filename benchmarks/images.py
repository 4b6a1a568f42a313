"""One image by each engine of this package, and by the same networks in torch.

    pip install 'keras-fcn[benchmark]'
    python -m benchmarks.images [--networks FCN8s UNet] [--sizes 256 512 1024] [--by keras]

Times are seconds of one image, the median over the repeats and their range; the ratio is to torch,
channels last, float32, in the same run; the share is of what a large matrix product in float32
reaches, which fewer bits may pass. All run in turn within a repeat, so what else the machine
does meets all alike; torch is among them whatever `--by` chooses, for all at once may take more
memory than there is. "openvino, bare" is the compiled model alone, without `predict_image`.
"""

import argparse
import contextlib
import statistics
import time
from importlib import util

import numpy as np

with contextlib.suppress(ImportError):
    import torch._dynamo  # before TensorFlow: after it, the import of torch's triton is a segfault
with contextlib.suppress(ImportError):
    import segmentation_models_pytorch as smp

import keras_fcn
from benchmarks import work
from benchmarks.machine import processor
from keras_fcn.inference.engines import read_openvino

REFERENCE = "torch"


def ours(model, **options):
    return lambda image: keras_fcn.predict_image(model, image, **options)


def bare(model):
    """Return OpenVINO's compiled model, as a function of one image."""
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    network = openvino.Core().compile_model(read_openvino(model), "CPU", settings)
    request = network.create_infer_request()
    return lambda image: request.infer([image[None].astype("float32")])[0]


def theirs(model, dtype):
    model = model.eval().to(memory_format=torch.channels_last)

    def predict(image):
        images = torch.from_numpy(image[None].transpose(0, 3, 1, 2).astype("float32"))
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            return model(images).float().permute(0, 2, 3, 1)[0].numpy()

    return predict


def quantized(model):
    images = list(np.random.default_rng(0).integers(0, 256, (10, 64, 64, 3), "uint8"))
    return ours(model, engine="openvino", precision="int8", calibration=images)


def peer(model, dtype="float32"):
    """Return the same network in torch."""
    from benchmarks import peers

    network = {"unet": peers.UNet, "fcn8s": peers.FCN8s}[model.name]
    return theirs(network(), getattr(torch, dtype))


def unet_of_smp(_model):
    network = smp.Unet("vgg16", encoder_weights=None, classes=2, activation="softmax2d")
    return theirs(network, torch.float32)


CONTESTANTS = {
    "keras": ours,
    "openvino": lambda model: ours(model, engine="openvino"),
    "openvino, bare": bare,
    "openvino, bfloat16": lambda model: ours(model, engine="openvino", precision="bfloat16"),
    "openvino, int8": quantized,
    "onnx": lambda model: ours(model, engine="onnx"),
    REFERENCE: peer,
    "torch, bfloat16": lambda model: peer(model, "bfloat16"),
    "smp, VGG16 encoder": unet_of_smp,
}
NEEDS = {
    "openvino": "openvino",
    "openvino, int8": "nncf",
    "onnx": "tf2onnx",
    "torch": "torch",
    "smp": "segmentation_models_pytorch",
}
OF_PROCESSOR = {"openvino, bfloat16": "avx512_bf16", "openvino, int8": "avx512_vnni"}


def is_possible(who, network):
    """Return whether this machine has what a contestant needs, and it such a network."""
    package = NEEDS.get(who) or NEEDS.get(who.split(",")[0])
    if (package and not util.find_spec(package)) or OF_PROCESSOR.get(who, "") not in processor():
        return False
    return network == "UNet" or not who.startswith("smp")


def measure(functions, image, repeats):
    """Return {what computes: seconds of each repeat}, all in turn within a repeat."""
    seconds = {name: [] for name in functions}
    for function in functions.values():
        function(image)  # compiles
    for _ in range(repeats):
        for name, function in functions.items():
            begin = time.perf_counter()
            function(image)
            seconds[name].append(time.perf_counter() - begin)
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=["FCN8s", "UNet"])
    parser.add_argument("--by", nargs="+", choices=list(CONTESTANTS), default=list(CONTESTANTS))
    parser.add_argument("--sizes", nargs="+", type=int, default=[256, 512, 1024])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    most = work.peak()
    print("| network | size | by | seconds | range | ratio to torch | of the peak |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    rng = np.random.default_rng(0)
    for network in options.networks:
        model = getattr(keras_fcn, network)()
        chosen = [who for who in CONTESTANTS if who in (*options.by, REFERENCE)]
        chosen = [who for who in chosen if is_possible(who, network)]
        functions = {who: CONTESTANTS[who](model) for who in chosen}
        for size in options.sizes:
            image = rng.integers(0, 256, (size, size, 3), "uint8")
            count = sum(work.multiplications(model, (size, size)).values())
            seconds = measure(functions, image, options.repeats)
            middle = {name: statistics.median(times) for name, times in seconds.items()}
            for name, times in seconds.items():
                ratio = f"{middle[name] / middle[REFERENCE]:.2f}" if REFERENCE in middle else ""
                print(
                    f"| {network} | {size} | {name} | {middle[name]:.3f} "
                    f"| {min(times):.3f} to {max(times):.3f} | {ratio} "
                    f"| {'' if 'smp' in name else f'{count / middle[name] / most:.0%}'} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
