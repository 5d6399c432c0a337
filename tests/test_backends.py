"""The same losses on TensorFlow, JAX and PyTorch: mpelu_resnet20 from the same weights and batches.

The losses in tests/snapshots/losses_mpelu_resnet20.json are those of one backend; each backend's suite compares its own
with them. They are made anew by

    KERAS_BACKEND=jax python -m pytest tests/test_backends.py --update-snapshots
"""

import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys

import keras
import numpy as np

from training import get_recipe
from training import loop
from training.optimizer import CoupledSGD
from training.recipes import MPELU_WEIGHTS
from training.training_model import TrainingModel

ROOT = pathlib.Path(__file__).parents[1]
SNAPSHOT = ROOT / "tests" / "snapshots" / "losses_mpelu_resnet20.json"
STEPS = {"float64": 20, "float32": 10}
TOLERANCE = {"float64": 1e-8, "float32": 1e-3}
BATCH = 8

# A process of its own: JAX takes float64 from the environment, and Keras's floatx is that of the whole process. But on
# TensorFlow, Keras 3.15 takes float64 for float32 wherever it promotes types, as in its batch norm; not here.
PROGRAM = """
import sys
sys.path.insert(0, "tests")
from test_backends import *
from keras.src.backend.common import dtypes
dtypes.BIT64_TO_BIT32_DTYPE["float64"] = "float64"
keras.config.set_floatx("float64")
print("losses", json.dumps(losses("float64")))
"""


def losses(dtype):
    """Losses of the first steps of the recipe without augmentation, each before its step.

    Its constants are such that float32 holds them, as on TensorFlow Keras makes float32 of a Python number before it
    makes float64 of that.
    """
    recipe = dataclasses.replace(
        get_recipe("mpelu_resnet20.cifar100-paper"),
        batch_size=BATCH,
        augmentation="none",
        dtype=dtype,
        multipliers=((MPELU_WEIGHTS, 5.0, 10.0),),
    )
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (5 * BATCH, 32, 32, 3), "uint8"), rng.integers(0, 10, 5 * BATCH)
    exact = {"mean": (128.0,) * 3, "std": (64.0,) * 3}
    network = loop.build(recipe, 10, classifier_activation=None, **exact)
    if dtype == "float64":
        network = keras.models.clone_model(network, clone_function=in_float64)
    elif keras.backend.backend() == "tensorflow":  # as the loop does
        from training.fast_tensorflow import accelerate

        network = accelerate(network)
    for weight in network.weights:
        weight.assign(start(weight.path, tuple(weight.shape), rng))
    model = TrainingModel(network, recipe, x, y, 10, seed=0)
    model.compile(CoupledSGD(2**-7, momentum=0.875, l2=2**-13, multipliers=recipe.multipliers))
    found = []
    for step in range(STEPS[dtype]):
        rows = (np.arange(BATCH) + step * BATCH) % len(x)
        model.reset_metrics()
        found.append(float(model.train_on_batch(rows.astype("int32"), return_dict=True)["loss"]))
    return found


def in_float64(layer):
    """Every layer; those at both ends are of float32 under any policy."""
    return type(layer).from_config({**layer.get_config(), "dtype": "float64"})


def start(path, shape, rng):
    """Weights from NumPy, so that no backend's random numbers matter."""
    noise = rng.normal(size=shape)
    if path.endswith("kernel"):
        return noise / np.sqrt(np.prod(shape[:-1]))
    at_zero = re.search(r"bias$|moving_mean$|_bn\d*/beta$", path)
    return (0.0 if at_zero else 1.0) + 0.1 * noise.clip(-3, 3)


def losses_in_float64():
    environment = {**os.environ, "JAX_ENABLE_X64": "1"}
    command = [sys.executable, "-c", PROGRAM]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1].removeprefix("losses "))


def test_losses_are_those_of_the_other_backends(request):
    found = {"float64": losses_in_float64(), "float32": losses("float32")}
    if request.config.getoption("--update-snapshots"):
        made_by = f"{keras.backend.backend()}, Keras {keras.__version__}"
        SNAPSHOT.write_text(json.dumps({"made_by": made_by, **found}, indent=1) + "\n")
    expected = json.loads(SNAPSHOT.read_text())
    for dtype, values in found.items():
        assert len(values) == len(expected[dtype]) == STEPS[dtype]
        np.testing.assert_allclose(values, expected[dtype], rtol=0, atol=TOLERANCE[dtype], err_msg=dtype)
    np.testing.assert_allclose(found["float32"], expected["float64"][: STEPS["float32"]], rtol=0, atol=1e-3)
    assert np.mean(found["float64"][-5:]) < np.mean(found["float64"][:5]) - 0.1  # the same batches: it learns
