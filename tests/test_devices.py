"""Two devices give the losses and weights of one (host devices: the processor, split in two)."""

import os
import pathlib
import subprocess
import sys

import keras
import pytest

ROOT = pathlib.Path(__file__).parents[1]

PROGRAM = """
import sys
sys.path.insert(0, "tests")
from test_loop import *

recipe = dataclasses.replace(TINY, epochs=1, batch_size=20, warmup_epochs=0)  # five steps
recipe = dataclasses.replace(recipe, overrides={**recipe.overrides, "dropout": 0.0})
one = loop.fit(recipe, *rows(), 2, sys.argv[1] + "/one")
two = loop.fit(recipe, *rows(), 2, sys.argv[1] + "/two", devices=2)
for a, b in zip(weights(one), weights(two), strict=True):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)
assert abs(one.history[0]["loss"] - two.history[0]["loss"]) < 1e-5
assert abs(one.average[0] - np.asarray(one.model.trainable_variables[0])).max() > 1e-4  # weights moved

recipe = dataclasses.replace(IMAGES, epochs=1)  # batch norm, augmentation, mixed precision: it runs
assert np.isfinite(loop.fit(recipe, *images(16), 10, sys.argv[1] + "/images", devices=2).history[0]["loss"])
"""


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="several devices need the JAX backend")
def test_two_devices_agree_with_one(tmp_path):
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr[-3000:]
