"""Ctrl-C and SIGTERM as the wish to stop after the step, with what was learned kept."""

import contextlib
import signal
import sys
import threading

import keras


@contextlib.contextmanager
def signals_stop(wish):
    """The first Ctrl-C or SIGTERM sets `wish.stop`; a second Ctrl-C stops at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number, frame):
        if wish.stop and number == signal.SIGINT:
            raise KeyboardInterrupt
        wish.stop = True

    old = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


class StopOnWish(keras.callbacks.Callback):
    """Ends `model.fit` after the step in which `stop` was set, as by `signals_stop`."""

    def __init__(self):
        super().__init__()
        self.stop = False

    def on_train_batch_end(self, batch, logs=None):
        if self.stop and not self.model.stop_training:
            print("interrupted: keeping what was learned so far (Ctrl-C again: nothing)", file=sys.stderr, flush=True)
            self.model.stop_training = True
