"""How many epochs of a recipe fit into some minutes here."""

import json
import tempfile
import time

import keras

from training import loop
from training.distillation import ask_teachers


def epochs_in(minutes, recipe, dataset, arguments, home, devices, minutes_left=lambda: None):
    """Epochs that fit into the minutes here, from the time of some steps; the same minutes keep their number.

    Raises:
        training.loop.Interrupted: a signal or the end of the minutes left came before the steps were timed.
    """
    known = loop.checkpoints.timed_epochs(home)
    if minutes in known:
        return known[minutes]
    clock = Clock()
    long_enough = recipe.rescaled(Clock.WARM + Clock.TIMED + 1)
    taught = ask_teachers(recipe, dataset, home, minutes_left)
    with tempfile.TemporaryDirectory() as folder:
        try:
            rows = dataset.x_train, dataset.y_train, len(dataset.class_names)
            loop.fit(
                long_enough,
                *rows,
                folder,
                stop_after=minutes_left(),
                build_arguments=arguments,
                quiet=True,
                devices=devices,
                callbacks=[clock],
                taught=taught,
            )
        except loop.Interrupted:
            if clock.seconds_per_step is None:
                raise loop.Interrupted(f"{recipe.name} stopped while its first steps were timed") from None
    epochs = int(60 * minutes / (clock.seconds_per_step * (len(dataset.x_train) // recipe.batch_size)))
    if epochs < 1:
        raise ValueError(
            f"{recipe.name} takes {clock.seconds_per_step:.3f} s a step here: no epoch fits in {minutes} minutes"
        )
    print(
        f"{recipe.name}: {clock.seconds_per_step:.4f} s a step here, so {epochs} epochs in {minutes} minutes",
        flush=True,
    )
    home.mkdir(parents=True, exist_ok=True)
    rows = [[*row] for row in {**known, minutes: epochs}.items()]
    loop.checkpoints.write_atomically(home / loop.checkpoints.TIMED_EPOCHS, json.dumps(rows).encode())
    return epochs


class Clock(keras.callbacks.Callback):
    """Times the steps of some calls after the first ones, which compile, and ends `fit`."""

    WARM, TIMED = 10, 60
    seconds_per_step = None  # until they are timed

    def on_train_begin(self, logs=None):
        self.step = 0

    def on_train_batch_begin(self, batch, logs=None):
        if self.step in (self.WARM, self.WARM + self.TIMED):
            float(self.model.metrics[0].result())  # waits for the device
            done = int(self.model.optimizer.iterations)  # a call can be of several steps
            if self.step == self.WARM:
                self.started, self.before = time.monotonic(), done
            else:
                self.seconds_per_step = (time.monotonic() - self.started) / (done - self.before)
                self.model.stop_training = True
        self.step += 1
