"""Several steps in a call, for an accelerator on JAX.

For each call JAX handles every weight, momentum and average on the host: a step of a
network of 32 layers took 7.6 to 12.3 ms, and `nvidia-smi` showed the GPU busy for a
third of it (one H100, November 2026). `jax.lax.scan` leaves that on the device. On a
processor XLA's loops are slower than calls.
"""

import jax
import keras

from training.training_model import TrainingModel

MOST = 50  # steps in a call; at most `loop.CHECK_STEPS`, or the step of a NaN would not be found
FEW = 8  # a divisor of an epoch's steps below this is worse than a last call that is compiled for itself


def is_useful():
    """Whether steps run on an accelerator, whose host would wait on calls."""
    return jax.default_backend() != "cpu"


class ScannedTrainingModel(TrainingModel):
    """A TrainingModel that also takes the rows of several steps, (steps, batch), and does these in one call."""

    def steps_in_call(self, steps):
        divisor = max(number for number in range(1, MOST + 1) if steps % number == 0)
        return divisor if divisor >= min(FEW, steps) else MOST

    def train_step(self, state, data):
        rows = keras.utils.unpack_x_y_sample_weight(data)[0]
        if rows.ndim == 1:
            return super().train_step(state, data)
        one_step = super().train_step

        def step(state, rows):
            logs, state = one_step(state, (rows,))
            return state, logs

        state, logs = jax.lax.scan(step, state, rows)
        return {name: values[-1] for name, values in logs.items()}, state
