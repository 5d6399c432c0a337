"""The benchmarks run, and measure what they say."""

import csv
import dataclasses
import time

import keras
import numpy as np
import pytest

from training import benchmark
from training import get_recipe


def test_the_host_clock_tells_the_step_from_what_is_outside(monkeypatch):
    """A step of 50 ms, and 50 ms of another callback: half of the time each."""
    monkeypatch.setattr(benchmark.HostClock, "WARM", 2)
    monkeypatch.setattr(benchmark.HostClock, "TIMED", 8)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    x, y = np.zeros((40, 4), "float32"), np.zeros((40, 2), "float32")
    model.fit(x, y, batch_size=2, verbose=0)  # compiles
    step = model.train_function

    def slow(*arguments):
        time.sleep(0.05)
        return step(*arguments)

    model.train_function = slow
    clock = benchmark.HostClock()
    wait = keras.callbacks.LambdaCallback(on_train_batch_begin=lambda batch, logs: time.sleep(0.05))
    model.fit(x, y, batch_size=2, epochs=2, verbose=0, callbacks=[clock, wait])
    assert clock.step == 2 + 2 * 8 + 1  # it ended the fit
    assert clock.seconds_per_step > 0.1
    assert 0.3 < clock.host_share < 0.7


@pytest.mark.slow
def test_throughput_in_small(tmp_path, monkeypatch):
    small = dataclasses.replace(get_recipe("relu_resnet20.cifar100"), batch_size=8, overrides={"depth": 8})
    monkeypatch.setattr(benchmark, "get_recipe", lambda name: small)
    monkeypatch.setattr(benchmark.HostClock, "WARM", 2)
    monkeypatch.setattr(benchmark.HostClock, "TIMED", 4)
    with open(benchmark.throughput(tmp_path, archs=("relu_resnet20",), repeats=1, rows=16), newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["dtype"] for row in rows] == ["float32", "mixed_bfloat16"]
    for row in rows:
        assert float(row["plain fit, rows/s"]) > 0 and float(row["ours / plain"]) > 0
        assert 0 <= float(row["host share, ours"]) < 1
