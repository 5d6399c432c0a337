"""Stacked training: against Keras's own training of each network alone."""

import keras
import numpy as np
import pytest

if keras.backend.backend() != "jax":
    pytest.skip("networks are stacked on JAX", allow_module_level=True)

from training.stacked import Member
from training.stacked import Program
from training.stacked import Stack
from training.stacked import rows_of_period

SHAPES = {
    "SNN": ("snn_mlp2", {"dropout": 0.05}),
    "MSRAinit": ("relu_mlp", {"depth": 2, "dropout": 0.5}),
    "BatchNorm": ("batchnorm_mlp", {"depth": 2}),
    "LayerNorm": ("layernorm_mlp", {"depth": 2}),
    "WeightNorm": ("weightnorm_mlp", {"depth": 2}),
    "Highway": ("highway_mlp", {"depth": 2, "dropout": 0.5}),
    "ResNet": ("residual_mlp", {"depth": 2, "form": "diavolo"}),
}
BATCH = 4


def member(rows, features, classes, rate, seed, held=7):
    """Rows of random numbers whose label depends on them."""
    random = np.random.default_rng(rows)
    x = random.normal(size=(rows + held, features)).astype("float32")
    y = (np.abs(x).sum(axis=1) * 3).astype(int) % classes
    return Member(x[:rows], y[:rows], x[rows:], y[rows:], classes, rate, seed)


def alone(program, one, periods, rows_per_period=1024):
    """The member's network in the shape of its own, trained by Keras; weights and the three curves."""
    features, classes = one.x.shape[1], one.num_classes
    model = program.model(features, classes)
    start = program.initial(one.seed, features, classes)
    model.set_weights(program.weights_for(start, features, classes))
    states = [value for value in start[1] if value.dtype == "uint32"]
    for variable in model.non_trainable_variables:
        if str(variable.dtype) == "uint32":
            variable.assign(states.pop(0))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(one.learning_rate), loss, metrics=["accuracy"])
    curves, kept = [], []
    for period in range(periods):
        count = min(len(one.x), rows_per_period)
        batches = rows_of_period(len(one.x), count, BATCH, one.seed, period)
        losses = []
        for rows in batches:
            model.reset_metrics()
            losses.append(model.train_on_batch(one.x[rows], one.y[rows])[0])
        held = model.evaluate(one.x_held, one.y_held, batch_size=len(one.x_held), verbose=0)
        curves.append([np.mean(losses), *held])
        kept.append(model.get_weights())
    return kept, np.array(curves)


@pytest.mark.parametrize("method", SHAPES)
def test_each_member_is_trained_as_it_would_be_alone(method):
    """Tasks of several sizes, rates and seeds; columns and classes are filled up, one task has fewer steps."""
    arch, overrides = SHAPES[method]
    program = Program(arch, 5, 4, width=6, **overrides)
    members = [member(13, 3, 2, 0.1, seed=0), member(9, 5, 4, 0.05, seed=1), member(13, 3, 2, 0.02, seed=0)]
    stack = Stack(program, members, BATCH, window=2)
    for _ in range(4):
        stack.advance()
    # The first one of each method, for time; all three of the method that has dropout of its own.
    for one, result in list(zip(members, stack.results(), strict=True))[: 3 if method == "SNN" else 1]:
        kept, curves = alone(program, one, periods=4)
        np.testing.assert_allclose(result.history, curves, rtol=2e-4, atol=1e-5)
        smooth = (curves[1:, 1] + curves[:-1, 1]) / 2
        assert result.period == 2 + smooth.argmin()
        assert result.loss == pytest.approx(smooth.min(), rel=2e-4)
        assert result.accuracy == pytest.approx(curves[result.period - 2 : result.period, 2].mean())
        for ours, theirs in zip(result.weights, kept[result.period - 1], strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)
    assert np.abs(stack.results()[0].weights[0] - stack.results()[2].weights[0]).max() > 1e-4


def test_start_has_the_scale_of_the_tasks_own_columns():
    program = Program("weightnorm_mlp", 400, 4, width=50, depth=2)
    trainable, _ = program.initial(0, 100, 3)
    values = {v.path: value for v, value in zip(program.network.trainable_variables, trainable, strict=True)}
    first = values["hidden1/kernel"] if "hidden1/kernel" in values else values["hidden1/dense/kernel"]
    assert first[:100].std() == pytest.approx(np.sqrt(2 / 100), rel=0.05)  # He normal of 100 columns
    assert not first[100:].any()
    np.testing.assert_allclose(values["hidden1/g"], np.linalg.norm(first, axis=0), rtol=1e-6)
    assert values["classifier/kernel"][:, :3].all() and not values["classifier/kernel"][:, 3:].any()
    again, other = program.initial(0, 100, 3)[0], program.initial(1, 100, 3)[0]
    assert all((a == b).all() for a, b in zip(trainable, again, strict=True))
    assert (first != other[[v.path for v in program.network.trainable_variables].index("hidden1/dense/kernel")]).any()


def test_rows_of_periods_are_shuffled_passes():
    stream = np.concatenate([rows_of_period(10, 4, 2, seed=0, period=period) for period in range(5)]).ravel()
    for number in range(2):
        assert sorted(stream[10 * number : 10 * (number + 1)]) == list(range(10))
    assert stream[:10].tolist() != stream[10:].tolist()
    # As many rows as there are: each once, and the last batch is filled up from the first rows.
    batches = rows_of_period(7, 7, 4, seed=3, period=2)
    assert batches.shape == (2, 4) and sorted(batches.ravel()[:7]) == list(range(7))
    assert batches[1, 3] == batches[0, 0]
    assert rows_of_period(3, 3, 8, seed=0, period=0).shape == (1, 8)


def test_one_that_diverges_leaves_the_others_alone_and_keeps_its_start():
    program = Program("relu_mlp", 3, 3, width=6, depth=2)

    def trained(rates):
        stack = Stack(program, [member(9, 3, 3, rate, seed=0) for rate in rates], BATCH, window=1)
        with np.errstate(invalid="ignore", over="ignore"):
            for _ in range(3):
                stack.advance()
        return stack, stack.results()

    stack, (sound, lost) = trained([0.1, 1e30])
    assert np.isnan(lost.history[-1, 0]) and lost.period == 0 and lost.loss == np.inf and lost.accuracy == 0
    assert np.isfinite(stack.test([(np.zeros((2, 3)), np.zeros(2, int))] * 2)[0]).all()
    again = trained([0.1, 1e30])[1][0]
    for ours, theirs in zip(sound.weights, again.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)  # deterministic
    beside = trained([0.1, 0.2])[1][0]
    for ours, theirs in zip(sound.weights, beside.weights, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def test_measures_all_rows_of_tables_of_other_lengths():
    program = Program("snn_mlp2", 3, 3, width=6)
    members = [member(9, 3, 3, 0.1, seed=0), member(9, 2, 2, 0.1, seed=0)]
    stack = Stack(program, members, BATCH)
    random = np.random.default_rng(0)
    tables = [(random.normal(size=(600, 3)), random.integers(3, size=600)), (members[1].x, members[1].y)]
    loss, accuracy = stack.test(tables)
    for number, (x, y) in enumerate(tables):
        model = program.model(x.shape[1], members[number].num_classes)
        model.set_weights(_start(program, members[number]))
        logits = np.asarray(model.predict_on_batch(x.astype("float32")), "float64")
        logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        assert accuracy[number] == pytest.approx((logits.argmax(axis=1) == y).mean(), abs=1e-6)
        assert loss[number] == pytest.approx(-logs[np.arange(len(y)), y].mean(), rel=1e-5)


def _start(program, one):
    size = one.x.shape[1], one.num_classes
    return program.weights_for(program.initial(one.seed, *size), *size)
