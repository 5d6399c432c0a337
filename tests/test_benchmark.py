"""The benchmarks run, and measure what they say."""

import csv
import dataclasses
import importlib
import inspect
import os
import shutil
import time
import types

import keras
import matplotlib.axes
import numpy as np
import pytest

import zoo
from training import benchmark
from training import ceilings
from training import get_recipe
from training import modern
from training import plain_depth
from training import robustness
from training import speed
from training.__main__ import BENCHMARKS
from training.__main__ import UCI_BENCHMARKS
from training.machine import hardware
from zoo import datasets


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
    kinds, fit = [], keras.Model.fit

    def kept(self, *given, **options):
        kinds.append(getattr(self, "network", self).get_layer("stem_conv").compute_dtype)
        return fit(self, *given, **options)

    monkeypatch.setattr(keras.Model, "fit", kept)
    with open(benchmark.throughput(tmp_path, archs=("relu_resnet20",), repeats=1, rows=16), newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["dtype"] for row in rows] == ["float32", "mixed_bfloat16"]
    assert kinds == 3 * ["float32"] + 3 * ["bfloat16"]  # all arms of a row in its dtype
    for row in rows:
        assert float(row["plain fit, rows/s"]) > 0 and float(row["ours / plain"]) > 0
        assert 0 <= float(row["host share, ours"]) < 1


def test_a_file_with_other_columns_is_left_alone(tmp_path):
    path = tmp_path / "some.csv"
    assert benchmark._write(path, [({"key": 1}, lambda: {"old": 2})]) == path
    before = path.read_text()
    with pytest.raises(ValueError, match="some.csv has other columns than are measured now"):
        benchmark._write(path, [({"key": 2}, lambda: {"new": 2})])
    with pytest.raises(ValueError, match="some.csv has other columns than are measured now"):
        benchmark._write(path, [({"another": 1}, lambda: pytest.fail("measured in vain"))])
    assert path.read_text() == before
    jobs = [({"key": 1}, lambda: {"old": 2}), ({"key": 2}, lambda: {"new": 2})]
    with pytest.raises(ValueError, match="other.csv has other columns than are measured now"):  # in one run, too
        benchmark._write(tmp_path / "other.csv", jobs)
    assert (tmp_path / "other.csv").read_text() == before


def test_the_command_knows_every_measurement():
    assert tuple(benchmark.BENCHMARKS) == BENCHMARKS
    for what, options in UCI_BENCHMARKS.items():
        run = importlib.import_module(f"training.{what.replace('-', '_')}").run
        assert set(options) <= set(inspect.signature(run).parameters)


def test_ways_take_turns():
    calls = []

    def way(name, seconds):
        return lambda: calls.append(name) or time.sleep(seconds)

    ways = {"a": way("a", 0.01), "b": way("b", 0.05)}
    times = speed.in_turns(ways, turns=3)
    assert calls[4:] == ["a", "b"] * 3  # after two calls of each that are not counted
    assert len(times["a"]) == 3
    assert 0.01 <= min(times["a"]) < 0.05 <= min(times["b"])


@pytest.mark.parametrize("parameters", ["per channel", "shared"])
def test_what_is_timed_of_an_activation_is_its_pass_and_all_gradients(parameters):
    """Of PReLU at a slope of 0.25, where the gradients are plain to see."""
    shared = (0, 1) if parameters == "per channel" else (0, 1, 2)
    layer = keras.layers.PReLU(keras.initializers.Constant(0.25), shared_axes=shared[1:])
    layer.build((2, 3, 4))
    x = np.random.default_rng(0).standard_normal((2, 3, 4)).astype("float32")
    for mode in speed.MODES[keras.backend.backend()]:
        run = speed.forward_and_backward(layer, mode)
        outputs, gradients = run(keras.ops.convert_to_tensor(x), keras.ops.ones_like(x))
        found = [keras.ops.convert_to_numpy(tensor) for tensor in (outputs, *gradients)]
        np.testing.assert_allclose(found[0], np.where(x > 0, x, 0.25 * x), rtol=1e-6)
        np.testing.assert_allclose(found[1], np.where(x > 0, 1, 0.25), rtol=1e-6)
        np.testing.assert_allclose(found[2].ravel(), np.minimum(x, 0).sum(shared).ravel(), rtol=1e-5)


def test_the_activation_is_measured_in_half_precision_too():
    jobs = list(speed.activation_jobs(batches=(2,), shape=(2, 2, 3)))
    assert {key["dtype"] for key, _ in jobs} == {"float32", "bfloat16"}
    for _, measure in jobs:
        assert measure()["MPELU / PReLU"] > 0


@pytest.mark.slow
def test_a_training_step_is_measured_in_its_own_process():
    found = speed.in_a_process("training_step", name="relu_resnet20", batch=8)
    assert found["first training step, s"] > found["steady step, s"] > 0
    assert 0.1 < found["peak memory, GiB"] < 20


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="three hundred eager steps; the others compile them")
def test_losses_by_depth(data_dir):
    """Ten epochs are better than guessing."""
    first, last = robustness.losses("snn_mlp8", 8, 10)
    assert (first["epoch"], last["epoch"]) == (1, 10) and (first["steps"], last["steps"]) == (30, 300)
    assert 0 < float(last["loss"]) < min(np.log(10), float(first["loss"]))


def test_the_picture_of_losses_by_depth(tmp_path):
    path = tmp_path / "robustness.csv"
    keys = [f"{net},{depth}" for net in robustness.NETS for depth in robustness.DEPTHS]
    path.write_text(
        "\n".join(["net,depth,epoch,loss", *(f"{key},{epoch},{1 / epoch}" for key in keys for epoch in (1, 2))])
    )
    assert robustness.draw(path).read_bytes().startswith(b"\x89PNG")


def test_what_is_planned_of_plain_networks():
    """What the docstring promises: 30 layers by activation, 52 with LSUV, and 15 and 30 with batch norm."""
    keys = [key for key, _ in plain_depth.jobs()]
    assert len(keys) == 20 and {key["layers"] for key in keys if key["batch norm"] == "with"} == {15, 30}
    assert {key["initializer"] for key in keys if key["layers"] == 52} == {"lsuv", "taylor fan_in"}


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="half a minute of compiling; TensorFlow is faster")
def test_plain_networks_by_depth_and_their_picture(tmp_path, monkeypatch):
    """A network that the paper says stalls and one that it says trains, on images that are told apart easily."""
    random = np.random.default_rng(0)
    y = random.integers(0, 4, 1200)
    x = np.clip(random.normal(110, 60, (4, 32, 32, 3))[y] + random.normal(0, 20, (1200, 32, 32, 3)), 0, 255)
    names = [str(label) for label in range(4)]
    data = datasets.make_dataset("easy", x.astype("uint8"), y, x[:8].astype("uint8"), y[:8], names)
    monkeypatch.setattr(plain_depth, "load_dataset", lambda name: data)
    monkeypatch.setattr(plain_depth, "HELD", 100)
    monkeypatch.setattr(plain_depth, "BATCH", 16)
    rows = {}
    for initializer in (plain_depth.GAUSSIAN, "taylor fan_in"):
        (key, measure), *_ = plain_depth.jobs({(15, False, "elu"): [initializer]}, steps=40)
        rows[initializer] = [{**key, **row} for row in measure(dtype="float32")]  # in bfloat16 minutes on some machines
        assert [row["step"] for row in rows[initializer]] == [20, 40]
    stalled, trained = (float(of[-1]["loss"]) for of in rows.values())
    assert stalled == pytest.approx(np.log(4), abs=0.05) and trained < 0.8 * np.log(4)
    path = tmp_path / "plain.csv"
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[plain_depth.GAUSSIAN][0])
        writer.writeheader()
        writer.writerows(row for of in rows.values() for row in of)
    assert plain_depth.draw(path).read_bytes().startswith(b"\x89PNG")


def test_a_loss_that_is_not_finite_is_named_in_the_picture(tmp_path, monkeypatch):
    labels = []
    plot = matplotlib.axes.Axes.plot
    monkeypatch.setattr(
        matplotlib.axes.Axes,
        "plot",
        lambda *points, **options: labels.append(options["label"]) or plot(*points, **options),
    )
    path = tmp_path / "plain.csv"
    losses = [("taylor fan_in", 20, 4.6), ("taylor fan_in", 40, 4.5), ("lsuv", 20, 5.7), ("lsuv", 40, "nan")]
    lines = [f"52,without,elu,{rule},{step},{loss}" for rule, step, loss in losses]
    path.write_text("\n".join(["layers,batch norm,activation,initializer,step,loss", *lines]))
    plain_depth.draw(path)
    assert labels == ["taylor fan_in", "lsuv (not finite at 40)"]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity") or not shutil.which("lscpu"), reason="Linux's")
def test_hardware_counts_the_cores_that_a_process_may_use(monkeypatch):
    for cores, words in (({1}, "1 core of "), ({0, 5, 7}, "3 cores of ")):
        monkeypatch.setattr(os, "sched_getaffinity", lambda process, cores=cores: cores)
        assert hardware().startswith(words)


def test_hardware_names_the_gpu_of_the_backend(monkeypatch):
    if keras.backend.backend() == "jax":
        import jax

        device = types.SimpleNamespace(platform="gpu", device_kind="NVIDIA H100")
        monkeypatch.setattr(jax, "devices", lambda: [device])
    elif keras.backend.backend() == "torch":
        import torch

        scalar = types.SimpleNamespace(device=torch.device("cuda"))
        monkeypatch.setattr(keras.ops, "zeros", lambda shape: scalar)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100")
    else:
        import tensorflow as tf

        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["/gpu:0"])
        monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda device: {"device_name": "NVIDIA H100"})
    assert hardware().startswith("NVIDIA H100, ")


@pytest.mark.slow
def test_inference_in_small(tmp_path, monkeypatch):
    pytest.importorskip("pytorchcv")
    monkeypatch.setattr(benchmark, "create_model", lambda arch, **options: zoo.create_model(arch, depth=8, **options))
    with open(benchmark.inference(tmp_path, ["mpelu_resnet20"], batches=[2], turns=2), newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["kind"] for row in rows} == {"undeployed", "deployed"}
    for row in rows:
        assert float(row["images/s, fastest"]) >= float(row["images/s, median"]) > 0
        assert float(row["largest difference"]) <= 1e-4
        ratio = float(row["images/s, median"]) / float(row["peer images/s, median"])
        assert float(row["median / pytorchcv"]) == pytest.approx(ratio, rel=0.02, abs=0.01)


def test_learned_parameters_by_depth(tmp_path):
    path = benchmark.alpha_beta(tmp_path)
    with open(path, newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["model"] == "mpelu_resnet20.cifar100-nodecay"]
    assert [int(row["channels"]) for row in rows] == [16] * 7 + [32] * 6 + [64] * 6  # the stem and two for each unit
    # Against the loaded model, in which names come from the layers.
    model = zoo.load_model("mpelu_resnet20.cifar100-nodecay")
    weights = {weight.path: keras.ops.convert_to_numpy(weight) for weight in model.weights}
    for row in rows[::6]:
        alpha, beta = (weights[f"{row['name']}/{name}"].ravel() for name in ("alpha", "beta"))
        assert float(row["alpha, median"]) == pytest.approx(np.median(alpha), abs=1e-4)
        assert float(row["alpha * beta, highest tenth"]) == pytest.approx(np.quantile(alpha * beta, 0.9), abs=1e-4)
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_shares_of_the_machine(monkeypatch):
    """The least that a pass moves, and the operations of a matrix product, by hand."""
    monkeypatch.setattr(ceilings, "TURNS", 2)
    shape = (2, 8, 8, 16)
    (_, activations), (_, step) = ceilings.jobs(shape, side=64, networks=("relu_resnet20",), batch=2)
    rows = activations() + step()
    assert [row["layer"] for row in rows] == ["PReLU", "MPELU", "training step"]
    for row in rows[:2]:
        assert row["share of the bandwidth"] > 0 and row["share of the operations"] == ""
    assert rows[2]["share of the operations"] > 0 and rows[2]["share of the bandwidth"] == ""
    found = ceilings._shares(0.5, {"bandwidth": 8e9, "operations": 4e9}, moved=1e9, operations=1e9)
    assert (found["bandwidth, GB/s"], found["share of the bandwidth"]) == (2.0, 0.25)
    assert (found["operations, GFLOP/s"], found["share of the operations"]) == (2.0, 0.5)


def test_scaling_by_depth(tmp_path, monkeypatch):
    """What is planned, and the picture of made-up figures."""
    monkeypatch.setattr(
        speed,
        "in_a_process",
        lambda what, name, batch: {"steady step, s": batch / 100, "peak memory, GiB": 1.0, "first training step, s": 1},
    )
    path = benchmark.scaling(tmp_path)
    with open(path, newline="") as file:
        rows = [(row["model"].rpartition("resnet")[2], int(row["batch"])) for row in csv.DictReader(file)]
    depths = ["20", "56", "110", "164"]
    assert sorted(rows) == sorted([(depth, batch) for depth in depths for batch in (16, 64)] + [("1001", 16)])
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_variants_of_the_modern_recipe():
    variants = modern.variants()
    base = dataclasses.asdict(variants.pop("base"))
    short, distilled = (dataclasses.asdict(variants.pop(name)) for name in ("l2 on alpha and beta", modern.DISTILLED))
    assert short["multipliers"] != base["multipliers"]
    assert {field for field in short if short[field] != distilled[field]} == {"teachers", "distillation", "temperature"}
    changed = {}
    for name, recipe in variants.items():
        fields = dataclasses.asdict(recipe)
        changed[name] = {field for field, value in fields.items() if value != base[field]} - {"average"}
        assert fields["average"] and fields["name"] == base["name"]
    assert changed.pop("all") == set.union(*changed.values())
    assert changed == {
        "label_smoothing": {"label_smoothing"},
        "erase": {"erase"},
        "stochastic_depth": {"overrides"},
        "mixup and cutmix": {"mixup", "cutmix"},
    }


def test_a_variant_in_small(tmp_path, monkeypatch):
    """A run on held-out rows of digits goes into the table, without any of the test rows."""
    monkeypatch.setattr(modern, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(modern, "EPOCHS", 2)
    recipe = dataclasses.replace(get_recipe("snn_mlp2.digits"), average=0.9)
    figures = modern.held_out_figures("mixup and cutmix", recipe)
    assert figures["held-out rows"] in range(125, 150)  # a tenth of digits' training rows
    assert 0.3 < float(figures["top1, last"]) <= 1 and 0.3 < float(figures["top1, average"]) <= 1
    assert not list(tmp_path.rglob("test-*.npz"))
    assert (tmp_path / "runs/mixup-and-cutmix/snn_mlp2.digits/validation-0.1/validation.json").exists()


@pytest.mark.slow
def test_fine_tuning_in_small(tmp_path):
    path = benchmark.finetuning(tmp_path, seeds=(0,), per_class=2, epochs=1)
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["arm"] for row in rows] == ["pretrained", "scratch"]
    for row in rows:
        rates = dict(zip(benchmark.RATES, map(float, row["validation_accuracy"].split()), strict=True))
        assert float(row["chosen_rate"]) == max(rates, key=rates.get)
        assert 0 <= float(row["test_accuracy"]) <= 1 and row["images"] == "20"


@pytest.mark.slow
def test_training_speed_in_small(tmp_path):
    pytest.importorskip("pytorchcv")
    with open(benchmark.training_speed(tmp_path, ["relu_resnet20"], batch=8, turns=2), newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["dtype"] for row in rows] == ["float32", "mixed_bfloat16"]
    for row in rows:
        ratio = float(row["images/s"]) / float(row["peer images/s"])
        assert float(row["ours / pytorchcv"]) == pytest.approx(ratio, rel=0.02, abs=0.01)
