"""Very deep networks on JAX: a program for each kind of unit in place of one for the whole step, see `unit_functions`.

XLA puts functions that are called back into their places, and takes time by the
square of the operations of a program. So the step is not compiled as a whole:
each unit's pass, its pullback and its weights' update are calls of programs
that are compiled once a kind.
"""

import itertools

import jax
import keras

from training.optimizer import CoupledSGD
from training.unit_functions import UNIT


def forward_by_units(pieces):
    """A function of the inputs that is `network(inputs, training=True)`, moving statistics included.

    It is to be differentiated once, outside of `jax.jit`.

    Args:
        pieces: What `unit_functions.pieces` gives.
    """
    programs = {}
    for piece in pieces:
        if id(piece.model) not in programs:
            programs[id(piece.model)] = _with_pullback(piece.model)

    def forward(x):
        # Kept beside JAX's own records: its bookkeeping of each residual costs a tenth of the step. Freed as it goes.
        pullbacks, updated = [], []

        def through(x, trained):
            for piece, values in zip(pieces, trained, strict=True):
                others = [variable.value for variable in piece.others]
                x, pullback, moved = programs[id(piece.model)](x, values, others)
                pullbacks.append(pullback)
                updated.append(moved)
            return x, None

        def back(_, upstream):
            gradients = []
            while pullbacks:
                upstream, gradient = _pull(pullbacks.pop(), upstream)
                gradients.append(gradient)
            return upstream, gradients[::-1]

        network = jax.custom_vjp(lambda x, trained: through(x, trained)[0])
        network.defvjp(through, back)
        outputs = network(x, [[variable.value for variable in piece.trained] for piece in pieces])
        for piece, moved in zip(pieces, updated, strict=True):
            for variable, value in zip(piece.others, moved, strict=True):
                variable.assign(value)
        return outputs

    return forward


def _with_pullback(model):
    @jax.jit
    def program(x, trained, others):
        return jax.vjp(
            lambda x, trained: model.stateless_call(trained, others, x, training=True), x, trained, has_aux=True
        )

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
        self._shared = [v for v in self.variables if not any(v is momentum for momentum in self.momentums)]
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
