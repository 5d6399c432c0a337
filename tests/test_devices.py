"""Two devices give the losses and weights of one (host devices: the processor, split in two)."""

import os
import pathlib
import subprocess
import sys

import keras
import pytest

from training import loop

ROOT = pathlib.Path(__file__).parents[1]
BACKEND = keras.backend.backend()
# JAX's devices on one processor share a pool of as many threads as it has cores, and a thread waits in a collective
# until the other device comes to it: with two threads both can wait in two collectives of one device, for ever (seen
# once on a machine of two cores, under load). XLA takes the pool's size from NPROC.
THREADS = "64"

# Before the first operation; JAX takes it from the environment.
TWO_LOGICAL_DEVICES = """
import tensorflow as tf
processor = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(processor, 2 * [tf.config.LogicalDeviceConfiguration()])
"""

PROGRAM = """
import sys
sys.path.insert(0, "tests")
from test_loop import *
from training.distillation import Taught


class Seeds(keras.callbacks.Callback):
    def on_train_end(self, logs=None):
        state = self.model.augmentation_seed.state.value
        self.copies = [np.asarray(copy).tolist() for copy in getattr(state, "values", [state])]


out = sys.argv[1]
recipe = dataclasses.replace(TINY, epochs=1, batch_size=20, warmup_epochs=0)  # five steps
recipe = dataclasses.replace(recipe, overrides={**recipe.overrides, "dropout": 0.0})
one = loop.fit(recipe, *rows(), 2, out + "/one")
two = loop.fit(recipe, *rows(), 2, out + "/two", devices=2)
for a, b in zip(weights(one), weights(two), strict=True):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)
assert abs(one.history[0]["loss"] - two.history[0]["loss"]) < 1e-5
assert one.history[0]["accuracy"] == two.history[0]["accuracy"]
assert abs(one.average[0] - np.asarray(one.model.trainable_variables[0])).max() > 1e-4  # weights moved
assert np.isfinite(two.model.predict(rows()[0], verbose=0)).all()  # it lives on one device again

taught = dataclasses.replace(recipe, teachers=("snn_mlp4.digits",), distillation=0.9, temperature=4.0)
said = Taught(np.linspace([0, 1], [1, 0], 100).astype("float32"), {"snn_mlp4.digits": ""})
one, two = (loop.fit(taught, *rows(), 2, f"{out}/taught{n}", devices=n, taught=said) for n in (1, 2))
for a, b in zip(weights(one), weights(two), strict=True):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)
assert abs(one.history[0]["loss"] - two.history[0]["loss"]) < 1e-4

if keras.backend.backend() == "jax":  # batch norm too is over the whole batch there
    # One step: at this rate the next ones multiply a difference of rounding (1e-7) by hundreds, by how much depends on
    # the processor.
    plain = get_recipe("relu_resnet20.cifar100")
    plain = dataclasses.replace(
        plain, epochs=1, batch_size=24, warmup_epochs=0, augmentation="none", dtype="float32", overrides={"depth": 8}
    )
    one, two = (loop.fit(plain, *images(24), 10, f"{out}/norm{n}", devices=n) for n in (1, 2))
    keras.utils.set_random_seed(0)  # the run's
    initial = loop.build(plain, 10).get_weights()
    assert all(abs(a - b).max() > 1e-4 for a, b in zip(one.model.get_weights(), initial) if a.ndim == 4)
    for a, b in zip(weights(one), weights(two), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-6)

# With alpha dropout, stopped within an epoch and gone on with: the weights of the uninterrupted run.
recipe = dataclasses.replace(TINY, epochs=2)
whole = loop.fit(recipe, *rows(), 2, out + "/whole", devices=2)
try:
    loop.fit(recipe, *rows(), 2, out + "/parts", devices=2, callbacks=[StopAt(4)])
except loop.Interrupted as stopped:
    assert "at step 4 of 12" in str(stopped)
for a, b in zip(weights(whole), weights(loop.fit(recipe, *rows(), 2, out + "/parts", devices=2)), strict=True):
    np.testing.assert_array_equal(a, b)

# Batch norm, augmentation, mixed precision: it runs.
seeds = Seeds()
fitted = loop.fit(dataclasses.replace(IMAGES, epochs=1), *images(16), 10, out + "/images", devices=2, callbacks=[seeds])
assert np.isfinite(fitted.history[0]["loss"])
assert abs(fitted.alpha_beta - 1).max() > 1e-5
if keras.backend.backend() == "tensorflow":  # on JAX one draw is spread over the devices
    (first, draws), (second, as_many) = seeds.copies
    assert first != second and draws == as_many > 0, seeds.copies

    import zoo
    from training.mirrored_tensorflow import devices_here, strategy

    mirrored = strategy(*devices_here())
    with mirrored.scope():
        model = zoo.load_model("relu_resnet20.cifar100", compile=False)
    assert model.distribute_strategy is mirrored  # by which Keras distributes `fit` outside of the scope
    assert len(mirrored.experimental_local_results(model.trainable_variables[0].value)) == 2
"""


@pytest.mark.skipif(BACKEND == "torch", reason="several devices need JAX or TensorFlow")
def test_two_devices_agree_with_one(tmp_path):
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2", "NPROC": THREADS}
    program = (TWO_LOGICAL_DEVICES if BACKEND == "tensorflow" else "") + PROGRAM
    command = [sys.executable, "-c", program, str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr[-3000:]


SPLIT = """
import sys
import tensorflow as tf
from training import mirrored_tensorflow as mirrored

mirrored.cores = lambda: int(sys.argv[1])
mirrored.split_processor(int(sys.argv[2]))
print(len(mirrored.devices_here()), tf.config.threading.get_intra_op_parallelism_threads())
mirrored.split_processor(7)  # too late, which is no error here: `check_devices` says what there is
print(len(mirrored.devices_here()))
"""


@pytest.mark.skipif(BACKEND != "tensorflow", reason="TensorFlow's")
@pytest.mark.parametrize("cores, asked, found", [(5, 2, "2 2\n2"), (3, 8, "3 1\n3"), (1, 2, "1 0\n1")])
def test_a_processor_is_split_into_parts_of_its_cores(cores, asked, found):
    command = [sys.executable, "-c", SPLIT, str(cores), str(asked)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.stdout.strip() == found, result.stderr[-3000:]


@pytest.mark.skipif(BACKEND != "torch", reason="the others can")
def test_on_torch_several_devices_are_a_clear_error():
    with pytest.raises(ValueError, match="devices=2: more than one device needs JAX or TensorFlow; this is torch"):
        loop.check_devices(2, 20)


@pytest.mark.skipif(BACKEND == "torch", reason="several devices need JAX or TensorFlow")
def test_unequal_parts_are_a_clear_error(monkeypatch):
    where = {"tensorflow": "training.mirrored_tensorflow.devices_here", "jax": "keras.distribution.list_devices"}
    monkeypatch.setattr(where[BACKEND], lambda: ["a", "b", "c"])
    assert loop.check_devices(2, 20) == ["a", "b"]
    with pytest.raises(ValueError, match="batch_size 20 has no equal parts on 3 devices"):
        loop.check_devices(3, 20)
    with pytest.raises(ValueError, match="devices=4, but there are 3 here: a, b, c"):
        loop.check_devices(4, 20)
