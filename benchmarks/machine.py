"""What the numbers are measured on."""

import platform
from importlib import metadata, util
from pathlib import Path

FORMATS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni")
PACKAGES = ("tensorflow", "keras", "openvino", "nncf", "onnxruntime", "torch")


def processor():
    """Return the processor's name, its cores, and which fast number formats it has."""
    path = Path("/proc/cpuinfo")
    text = path.read_text() if path.exists() else ""
    pairs = (line.partition(":") for line in text.splitlines())
    lines = {name.strip(): value.strip() for name, _, value in pairs}
    name = lines.get("model name", platform.processor())
    flags = lines.get("flags", "").split()
    formats = [flag for flag in FORMATS if flag in flags]
    return f"{name}, {text.count('processor')} cores, {' '.join(formats)}"


def versions():
    """Return the packages that compute, and their versions."""
    return ", ".join(
        f"{name} {metadata.version(name)}" for name in PACKAGES if util.find_spec(name)
    )
