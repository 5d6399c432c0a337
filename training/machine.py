"""What a run is made on: the machine in words, and the versions of what it uses."""

import os
import pathlib
import platform
import subprocess
import sys

import keras
import numpy as np


def hardware():
    """The GPU of the backend, if there is one, and the processor in words, with the cores that this process may use."""
    try:
        lines = subprocess.run(["lscpu"], capture_output=True, text=True, check=True).stdout.splitlines()
        model = next(line.split(":")[1].strip() for line in lines if line.startswith("Model name"))
        processor = f"{cores()} core{'s' if cores() > 1 else ''} of {model}"
    except (OSError, StopIteration, subprocess.CalledProcessError):
        processor = platform.processor() or platform.machine()
    gpu = gpu_name()
    return f"{gpu}, {processor}" if gpu else processor


def cores():
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def gpu_name():
    """What the first GPU that the backend uses calls itself; `None` where there is none, or Apple's on PyTorch."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        device = jax.devices()[0]
        return None if device.platform == "cpu" else device.device_kind
    if backend == "torch":
        import torch

        return torch.cuda.get_device_name() if keras.ops.zeros(()).device.type == "cuda" else None
    import tensorflow as tf

    for device in tf.config.list_physical_devices("GPU"):
        return tf.config.experimental.get_device_details(device).get("device_name", "GPU")
    return None


def bfloat16_is_slow(processors="/proc/cpuinfo"):
    """Whether models run on a processor without instructions for bfloat16; `None` where Linux's file is not there."""
    if "cpu" not in str(keras.ops.zeros(()).device).lower():
        return False
    try:
        known = pathlib.Path(processors).read_text().split()
    except OSError:
        return None
    return not {"avx512_bf16", "amx_bf16", "bf16"} & set(known)


def versions():
    backend = keras.backend.backend()
    split = {"scikit-learn": sys.modules["sklearn"].__version__} if "sklearn" in sys.modules else {}
    return {
        **split,
        "python": platform.python_version(),
        "keras": keras.__version__,
        "backend": f"{backend} {__import__(backend).__version__}",
        "numpy": np.__version__,
    }
