"""Very deep networks on JAX: a program for each kind of unit in place of one for the whole step, see `unit_functions`.

XLA puts functions that are called back into their places, and takes time by the
square of the operations of a program. So the step is not compiled as a whole:
the pass of some units, its pullback and the update of their weights are calls
of programs that are compiled once a kind.
"""

import functools
import itertools

import jax
import keras

from training.optimizer import CoupledSGD
from training.training_model import TrainingModel
from training.unit_functions import UNIT

TOGETHER = 4  # units in a program: the host needs some milliseconds for the call of each


class UnitwiseTrainingModel(TrainingModel):
    """A TrainingModel whose step calls a program for each piece of the network, forward and back.

    Args:
        network: The network, whose outputs are logits.
        pieces: What `unit_functions.pieces` gives for it.
        *arguments, **options: As for `TrainingModel`, without teachers.
    """

    def __init__(self, network, *arguments, pieces, **options):
        super().__init__(network, *arguments, **options)
        self.pieces = pieces
        models = {id(piece.model): piece.model for piece in pieces}
        self.programs = {key: _with_pullback(model) for key, model in models.items()}
        self.compiled_batch, self.compiled_loss = jax.jit(self._batch), jax.jit(self._loss)

    def compile(self, *arguments, **options):
        super().compile(*arguments, **options, jit_compile=False)

    def train_step(self, state, data):
        trained, others, optimizer_variables, metrics_variables = state
        trained_at = {id(variable): place for place, variable in enumerate(self.trainable_variables)}
        others_at = {id(variable): place for place, variable in enumerate(self.non_trainable_variables)}
        rows = keras.utils.unpack_x_y_sample_weight(data)[0]
        others = list(others)
        constant = [others[others_at[id(variable)]] for variable in (self.inputs_on_device, self.labels_on_device)]
        seed = others_at[id(self.augmentation_seed.state)]
        x, targets, others[seed] = self.compiled_batch(rows, *constant, others[seed])
        pullbacks = []
        for piece in self.pieces:
            x, pullback, moved = self.programs[id(piece.model)](
                x,
                [trained[trained_at[id(variable)]] for variable in piece.trained],
                [others[others_at[id(variable)]] for variable in piece.others],
            )
            pullbacks.append(pullback)
            for variable, value in zip(piece.others, moved, strict=True):
                others[others_at[id(variable)]] = value
        logs, metrics_variables, upstream = self.compiled_loss(x, targets, metrics_variables)
        gradients = [None] * len(trained)
        for piece in reversed(self.pieces):
            upstream, found = _pull(pullbacks.pop(), upstream)  # frees what was kept for it
            for variable, gradient in zip(piece.trained, found, strict=True):
                gradients[trained_at[id(variable)]] = gradient
        trained, optimizer_variables = self.optimizer.stateless_apply(optimizer_variables, gradients, trained)
        return logs, (trained, others, optimizer_variables, metrics_variables)

    def _batch(self, rows, inputs, labels, seed):
        """Augmented images, targets and the next state of the random numbers."""
        variables = self.inputs_on_device, self.labels_on_device, self.augmentation_seed.state
        with keras.StatelessScope(list(zip(variables, (inputs, labels, seed), strict=True))) as scope:
            x, targets = self.batch(rows, training=True)
        return x, targets, scope.get_current_value(self.augmentation_seed.state)

    def _loss(self, logits, targets, metrics_variables):
        """What is logged, the metrics, and the gradient of the mean cross-entropy by the logits."""
        loss, upstream = jax.value_and_grad(lambda logits: self.compute_loss(y_pred=(logits, targets)))(logits)
        logs, metrics_variables = self._update_metrics_variables(
            metrics_variables, loss, x=logits, y=None, y_pred=(logits, targets), sample_weight=None
        )
        return logs, metrics_variables, upstream


def _with_pullback(model):
    @jax.jit
    def program(x, trained, others):
        # Of what is kept from forward to back, only what is dear to compute.
        @functools.partial(jax.checkpoint, policy=lambda primitive, *_, **__: primitive.name == "conv_general_dilated")
        def outputs_and_moved(x, trained):
            return model.stateless_call(trained, others, x, training=True)

        return jax.vjp(outputs_and_moved, x, trained, has_aux=True)

    return program


@jax.jit
def _pull(pullback, upstream):
    return pullback(upstream)


class UnitwiseCoupledSGD(CoupledSGD):
    """CoupledSGD outside of `jax.jit`: a program for the weights of each kind of unit.

    It keeps no moving average of the weights, which Keras updates for all of them at once.
    """

    def build(self, variables):
        super().build(variables)
        numbers = itertools.groupby(range(len(variables)), lambda number: _unit_of(variables[number]))
        self._groups = [list(group) for _, group in numbers]
        momentums = set(map(id, self.momentums))
        self._shared = [variable for variable in self.variables if id(variable) not in momentums]
        self._programs = {}

    def stateless_apply(self, optimizer_variables, grads, trainable_variables):
        values = {id(variable): value for variable, value in zip(self.variables, optimizer_variables, strict=True)}
        shared = [values[id(variable)] for variable in self._shared]
        trained = list(trainable_variables)
        for group in self._groups:
            momentums = [self.momentums[number] for number in group] if self.momentum else []
            moved, weights, first_shared = self._program(group)(
                shared,
                [values[id(variable)] for variable in momentums],
                [trained[number] for number in group],
                [grads[number] for number in group],
            )
            values.update(zip(map(id, momentums), moved, strict=True))
            for number, weight in zip(group, weights, strict=True):
                trained[number] = weight
        values.update(zip(map(id, self._shared), first_shared, strict=True))  # the count of steps, once
        return trained, [values[id(variable)] for variable in self.variables]

    def _program(self, group):
        """The compiled update of a group of variables: that of the first one like it."""
        variables = [self._trainable_variables[number] for number in group]
        rows = [self._multipliers_by_index[number] for number in group]
        kind = tuple((tuple(v.shape), v.dtype, row) for v, row in zip(variables, rows, strict=True))
        if kind not in self._programs:
            momentums = [self.momentums[number] for number in group] if self.momentum else []

            @jax.jit
            def program(shared, momentum_values, weights, gradients):
                known = [
                    *zip(self._shared, shared, strict=True),
                    *zip(momentums, momentum_values, strict=True),
                    *zip(variables, weights, strict=True),
                ]
                with keras.StatelessScope(state_mapping=known) as scope:
                    self.apply(gradients, variables)
                return [
                    [scope.get_current_value(variable) for variable in part]
                    for part in (momentums, variables, self._shared)
                ]

            self._programs[kind] = program
        return self._programs[kind]


def _unit_of(variable):
    match = UNIT.search(variable.path)
    return match and match[1]
