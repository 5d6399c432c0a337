"""Ctrl-C and SIGTERM as the wish to stop after the step, with what was learned kept."""

import contextlib
import os
import signal
import threading

import keras


@contextlib.contextmanager
def signals_stop(wish, said=""):
    """The first Ctrl-C or SIGTERM sets `wish.stop` and puts `said` on stderr; a second Ctrl-C stops at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number, frame):
        if wish.stop and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not wish.stop:
            os.write(2, said.encode())  # not print: the signal may have come within one
        wish.stop = True

    old = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def interruptible():
    """Gives the callback by which `model.fit` ends where it is interrupted, with what was learned kept."""
    wish = _StopOnWish()
    said = "interrupted: stops after this step and keeps what was learned (Ctrl-C again: stops now, keeps nothing)\n"
    with signals_stop(wish, said):
        yield wish


class _StopOnWish(keras.callbacks.Callback):
    """Ends `model.fit` after the step, or the validation, in which `stop` was set."""

    stop = False

    def on_train_batch_end(self, batch, logs=None):
        if self.stop:
            self.model.stop_training = True

    def on_epoch_end(self, epoch, logs=None):
        self.on_train_batch_end(epoch)
