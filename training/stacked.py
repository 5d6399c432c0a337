"""Many small networks trained side by side in one compiled step, on JAX.

A small network is bound by what surrounds its arithmetic: compiling it, calling
its step, evaluating it. Here the weights of many of them (tasks, learning
rates, seeds) lie along a leading axis, and one call of a compiled function that
is made of Keras's own `stateless_call` takes all of them through many steps.

Networks of a stack have one shape. A task with fewer columns or classes than
that is filled up: columns of zeros, whose weights are zero and stay so, and
classes whose logits are held at minus infinity. So every member is trained as
it would be alone, up to rounding.

The training is plain SGD with early stopping: after every period the loss on
the validation rows is measured; the weights that are kept are those at the end
of the window of periods with the lowest mean.
"""

import functools
from typing import NamedTuple

import keras
import numpy as np

from zoo.registry import create_model

CHUNK = 16  # steps in one call, at most; a member takes those that it has left
LARGE = 1e9  # a logit of minus that has no probability and no gradient


class Member(NamedTuple):
    """One network of a stack: its rows, its learning rate and its seed.

    The seed decides on the weights, the order of the rows and the dropout.
    """

    x: np.ndarray
    y: np.ndarray
    x_held: np.ndarray
    y_held: np.ndarray
    num_classes: int
    learning_rate: float
    seed: int


class Trained(NamedTuple):
    """What became of a member.

    `weights` are in the order of `Program.model(...).weights`; `history` has a
    row per period: training loss, validation loss and accuracy. `period` is
    that of the weights, 0 if the loss was never finite; `loss` and `accuracy`
    are the means over the window of periods that ends there.
    """

    weights: list
    history: np.ndarray
    period: int
    loss: float
    accuracy: float


class Program:
    """The compiled steps for networks of one shape, for stacks of any height.

    Args:
        arch: Name of an architecture for tables.
        num_features: Columns that the widest task may have.
        num_classes: Classes that a task may have.
        overrides: Arguments of the builder.

    Raises:
        ValueError: Keras runs on another backend than JAX.
    """

    def __init__(self, arch, num_features, num_classes, **overrides):
        if keras.backend.backend() != "jax":
            raise ValueError(
                f"networks are stacked on JAX only; Keras runs on {keras.backend.backend()}: set KERAS_BACKEND=jax"
            )
        import jax

        self.arch, self.overrides = arch, overrides
        self.num_features, self.num_classes = num_features, num_classes
        self.network = self.model(num_features, num_classes)
        self.advance = jax.jit(self._advance, donate_argnums=0)
        self.measure = jax.jit(jax.vmap(self._measure))
        self.predict = jax.jit(jax.vmap(self._predict))
        self.choose = jax.jit(self._choose)

    def model(self, num_features, num_classes):
        """The ordinary model of the network for one task, with logits."""
        return create_model(
            self.arch,
            num_features=num_features,
            num_classes=num_classes,
            classifier_activation=None,
            **self.overrides,
        )

    def initial(self, seed, num_features, num_classes):
        """The values of `network`'s variables at the start: trainable ones, and the others."""
        known = {id(weight): value for weight, value in zip(self.network.weights, self._fresh(seed), strict=True)}
        entry = self.network.get_layer("preprocess").output
        for layer in self.network.layers:
            values = {weight.name: known[id(weight)] for weight in layer.weights}
            if layer.name == "classifier":
                values = {name: _zero_after(value, num_classes, axis=-1) for name, value in values.items()}
            elif layer.weights and layer.input is entry:
                # The initializers scale by the square root of the columns.
                kernel = values["kernel"] * np.float32(np.sqrt(self.num_features / num_features))
                values["kernel"] = kernel = _zero_after(kernel, num_features, axis=0)
                if "g" in values:  # weight normalization: the lengths of the directions
                    values["g"] = np.sqrt((kernel**2).sum(axis=0))
            known |= {id(weight): values[weight.name] for weight in layer.weights}
        trainable = [known[id(variable)] for variable in self.network.trainable_variables]
        others, states = [], 0
        for variable in self.network.non_trainable_variables:
            if id(variable) not in known:  # the state of a layer's random numbers: its seed, and a counter
                known[id(variable)] = np.array(
                    [np.random.SeedSequence([seed, states]).generate_state(1)[0], 0], "uint32"
                )
                states += 1
            others.append(known[id(variable)])
        return trainable, others

    @functools.lru_cache(maxsize=8)  # noqa: B019  programs live as long as the process
    def _fresh(self, seed):
        keras.utils.set_random_seed(seed)
        return self.model(self.num_features, self.num_classes).get_weights()

    def weights_for(self, state, num_features, num_classes):
        """The weights of one member, cut to the shapes of `model(num_features, num_classes)`."""
        trainable, others = state
        values = {id(v): a for v, a in zip(self.network.trainable_variables, trainable, strict=True)}
        values |= {id(v): a for v, a in zip(self.network.non_trainable_variables, others, strict=True)}
        entry = self.network.get_layer("preprocess").output
        weights = {}
        for layer in self.network.layers:
            for weight in layer.weights:
                value = np.asarray(values[id(weight)])
                if layer.name == "classifier":
                    value = value[..., :num_classes]
                elif layer.input is entry and weight.name == "kernel":
                    value = value[:num_features]
                weights[id(weight)] = value
        return [weights[id(weight)] for weight in self.network.weights]

    # What is compiled: the functions of one member, over a leading axis of members

    def _advance(self, state, rates, classes, x, y, steps):
        import jax

        def member(own):
            state, rate, classes, x, y, steps = own

            def step(number, carry):
                state, losses = carry
                state, loss = self._step(state, rate, classes, x[number], y[number])
                return state, losses + loss

            return jax.lax.fori_loop(0, steps, step, (state, 0.0))

        # One after another through all the steps of the chunk: the weights of one stay in the cache meanwhile. Side
        # by side (`vmap`), 16 networks of eight layers of 256 took twice the processor time, of two layers half more.
        return jax.lax.map(member, (state, rates, classes, x, y, steps))

    def _step(self, state, rate, classes, x, y):
        import jax

        trainable, others = state
        value_and_gradients = jax.value_and_grad(self._loss, has_aux=True)
        (loss, others), gradients = value_and_gradients(trainable, others, classes, x, y)
        trainable = [weight - rate * gradient for weight, gradient in zip(trainable, gradients, strict=True)]
        return (trainable, others), loss

    def _loss(self, trainable, others, classes, x, y):
        logits, others = self.network.stateless_call(trainable, others, x, training=True)
        return _cross_entropy(logits, classes, y).mean(), others

    def _predict(self, state, classes, x):
        logits, _ = self.network.stateless_call(*state, x, training=False)
        return _of_classes(logits, classes)

    def _measure(self, state, classes, x, y, counts):
        logits = self._predict(state, classes, x)
        right = logits.argmax(axis=-1) == y
        return (_cross_entropy(logits, classes, y) * counts).sum(), (right * counts).sum()

    def _choose(self, chosen, new, old):
        import jax

        def choose(new, old):
            return jax.numpy.where(chosen.reshape(-1, *[1] * (new.ndim - 1)), new, old)

        return jax.tree.map(choose, new, old)


def _of_classes(logits, classes):
    import jax.numpy

    return jax.numpy.where(jax.numpy.arange(logits.shape[-1]) < classes, logits, -LARGE)


def _cross_entropy(logits, classes, y):
    import jax

    logs = jax.nn.log_softmax(_of_classes(logits, classes))
    return -jax.numpy.take_along_axis(logs, y[:, None], axis=-1)[:, 0]


def _zero_after(value, count, axis):
    value = np.array(value)
    np.moveaxis(value, axis, 0)[count:] = 0
    return value


def rows_of_period(count, rows, batch_size, seed, period):
    """Row numbers `(steps, batch_size)` of a period, counted from 0.

    The periods are consecutive pieces of an endless sequence of shuffled passes
    over the `count` rows; a last batch is filled up from the period's first rows.

    Example:

    >>> rows_of_period(3, 3, 2, seed=0, period=0).shape
    (2, 2)
    """
    first, last = divmod(period * rows, count), divmod((period + 1) * rows - 1, count)
    passes = [np.random.default_rng([seed, number]).permutation(count) for number in range(first[0], last[0] + 1)]
    stream = np.concatenate(passes)[first[1] :][:rows]
    steps = -(-rows // batch_size)
    return np.resize(stream, (steps, batch_size))


class Stack:
    """Members in training: `advance()` takes them on by a period, `results()` ends it.

    Args:
        program: A `Program` whose shape the members fit.
        members: A list of `Member`.
        batch_size: Rows in a step.
        rows_per_period: At most so many rows of a member are used in a period;
            else all of them, once.
    """

    def __init__(self, program, members, batch_size, rows_per_period=1024, window=10):
        import jax

        self.program, self.members, self.window = program, members, window
        self.batch_size, self.rows_per_period = batch_size, rows_per_period
        started = [program.initial(m.seed, m.x.shape[1], m.num_classes) for m in members]
        self.state = jax.tree.map(lambda *values: jax.numpy.asarray(np.stack(values)), *started)
        self.best = jax.tree.map(jax.numpy.copy, self.state)
        self.rates = jax.numpy.asarray([m.learning_rate for m in members], "float32")
        self.classes = jax.numpy.asarray([m.num_classes for m in members], "int32")
        self.tables = [(_wide(m.x, program.num_features), m.y.astype("int32")) for m in members]
        self.held = list(self._chunks([(m.x_held, m.y_held) for m in members]))
        self.history = []
        self.lowest = np.full(len(members), np.inf)
        self.accuracy = np.zeros(len(members))
        self.period = np.zeros(len(members), int)

    def advance(self):
        """One period of training for all members, its measurement, and the choice of the weights to keep."""
        orders = [
            rows_of_period(len(y), min(len(y), self.rows_per_period), self.batch_size, member.seed, len(self.history))
            for member, (_, y) in zip(self.members, self.tables, strict=True)
        ]
        steps = np.array([len(order) for order in orders])
        losses = np.zeros(len(self.members))
        for first in range(0, steps.max(), CHUNK):
            x, y = self._batches(orders, first)
            left = np.clip(steps - first, 0, CHUNK).astype("int32")
            self.state, summed = self.program.advance(self.state, self.rates, self.classes, x, y, left)
            losses += np.asarray(summed)
        loss, accuracy = self.measure(self.state, self.held)
        self.history.append((losses / steps, loss, accuracy))
        if len(self.history) < self.window:
            return
        smooth = np.mean(self.history[-self.window :], axis=0)
        better = smooth[1] < self.lowest  # never where the loss is not a number
        if better.any():
            self.best = self.program.choose(better, self.state, self.best)
            self.lowest = np.where(better, smooth[1], self.lowest)
            self.accuracy = np.where(better, smooth[2], self.accuracy)
            self.period = np.where(better, len(self.history), self.period)

    def _batches(self, orders, first):
        shape = len(orders), CHUNK, self.batch_size
        x = np.zeros((*shape, self.program.num_features), "float32")
        y = np.zeros(shape, "int32")
        for number, (order, (table, labels)) in enumerate(zip(orders, self.tables, strict=True)):
            rows = order[first : first + CHUNK]
            x[number, : len(rows)], y[number, : len(rows)] = table[rows], labels[rows]
        return x, y

    def _chunks(self, tables):
        """Rows of all members side by side, in pieces of one size: x, y, and 1 where there is a row."""
        longest = max(len(y) for _, y in tables)
        size = min(256, max(32, 1 << (longest - 1).bit_length()))
        for first in range(0, longest, size):
            shape = len(tables), size
            x = np.zeros((*shape, self.program.num_features), "float32")
            y, counts = np.zeros(shape, "int32"), np.zeros(shape, "float32")
            for number, (rows, labels) in enumerate(tables):
                piece = rows[first : first + size]
                x[number, : len(piece), : rows.shape[1]] = piece
                y[number, : len(piece)] = labels[first : first + size]
                counts[number, : len(piece)] = 1
            yield x, y, counts

    def measure(self, state, chunks):
        """Mean cross-entropy and accuracy of every member on its rows."""
        sums = [(*self.program.measure(state, self.classes, *chunk), chunk[2].sum(axis=1)) for chunk in chunks]
        loss, right, rows = (np.sum([np.asarray(part[k]) for part in sums], axis=0) for k in range(3))
        return loss / rows, right / rows

    def results(self):
        """A `Trained` for each member."""
        history = np.array(self.history).transpose(2, 0, 1)  # (members, periods, 3)
        trainable, others = ([np.asarray(value) for value in part] for part in self.best)
        return [
            Trained(
                weights=self.program.weights_for(
                    ([value[number] for value in trainable], [value[number] for value in others]),
                    member.x.shape[1],
                    member.num_classes,
                ),
                history=history[number],
                period=int(self.period[number]),
                loss=float(self.lowest[number]),
                accuracy=float(self.accuracy[number]),
            )
            for number, member in enumerate(self.members)
        ]

    def test(self, tables):
        """Mean cross-entropy and accuracy of the kept weights on one table `(x, y)` per member."""
        return self.measure(self.best, self._chunks(tables))

    def probabilities(self, tables):
        """Those of the kept weights for the rows of one table per member: a list of `(rows, classes)`."""
        # A table without labels has them all 0; they are not read.
        chunks = self._chunks([(x, np.zeros(len(x), "int32")) for x in tables])
        logits = np.concatenate([self.program.predict(self.best, self.classes, x) for x, _, _ in chunks], axis=1)
        shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
        probabilities = shifted / shifted.sum(axis=-1, keepdims=True)
        return [
            one[: len(x), : member.num_classes]
            for one, x, member in zip(probabilities, tables, self.members, strict=True)
        ]


def _wide(x, num_features):
    return np.pad(x.astype("float32"), ((0, 0), (0, num_features - x.shape[1])))
