"""SGD as in the papers' Torch and Caffe code: coupled L2 and per-weight multipliers."""

import re

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_mpelu")
class CoupledSGD(keras.optimizers.SGD):
    """SGD with L2 inside the gradient and multipliers for chosen weights.

    For each variable `w` with gradient `g`:

    ```
    g <- g + l2 * decay_multiplier * w
    w <- SGD(w, g, learning_rate * rate_multiplier)
    ```

    Keras's own `weight_decay` is decoupled (`w <- w - lr * decay * w`, outside
    the momentum) and has no multipliers, so it is another optimizer. The L2
    term acts on every variable, batch norm and biases included, as in the
    authors' Torch code, and is not part of the logged loss. The momentum is
    Keras's and Caffe's, which keeps the rate in the velocity; Torch's takes the
    rate after it, so that some tens of steps differ after a change of the rate.

    Args:
        learning_rate: A number or a `keras.optimizers.schedules` schedule.
        momentum: Momentum. Defaults to 0.9.
        nesterov: Whether to use Nesterov's form. Defaults to `True`.
        l2: Coefficient of the coupled L2, 0 by default.
        multipliers: `((pattern, rate multiplier, decay multiplier), ...)`. A
            variable takes the first pattern that `re.search` finds in its
            path; else both are 1. Mind that batch norm has a `beta` too.

    Raises:
        ValueError: a pattern matches no variable (when the optimizer is built).

    Example:

    >>> layer = keras.layers.Dense(1, name="head")
    >>> layer.build((None, 2))
    >>> optimizer = CoupledSGD(0.1, l2=1e-4, multipliers=((r"/bias$", 2.0, 0.0),))
    >>> optimizer.build(layer.trainable_variables)

    Reference:

    - [Li et al., 2018](https://arxiv.org/abs/1606.00305): rate x5 and decay
      x10 for alpha and beta in the authors' residual-network code
    """

    def __init__(
        self, learning_rate=0.1, momentum=0.9, nesterov=True, l2=0.0, multipliers=(), name="coupled_sgd", **kwargs
    ):
        super().__init__(learning_rate, momentum=momentum, nesterov=nesterov, name=name, **kwargs)
        if not l2 >= 0:
            raise ValueError(f"l2 is 0 or more; received {l2!r}")
        self.l2 = float(l2)
        self.multipliers = tuple((str(pattern), float(rate), float(decay)) for pattern, rate, decay in multipliers)
        self._multipliers_by_index = []

    def build(self, variables):
        super().build(variables)
        rows = [self._row_of(variable.path) for variable in variables]
        for row in self.multipliers:
            if row not in rows:
                raise ValueError(
                    f"the multiplier pattern {row[0]!r} matches none of {len(variables)} variables, such as "
                    f"{variables[0].path!r}; correct it or leave it out"
                )
        self._multipliers_by_index = [row[1:] for row in rows]

    def _row_of(self, path):
        for row in self.multipliers:
            if re.search(row[0], path):
                return row
        return (None, 1.0, 1.0)

    def update_step(self, gradient, variable, learning_rate):
        rate, decay = self._multipliers_by_index[self._get_variable_index(variable)]
        if self.l2 * decay:
            gradient = ops.add(gradient, ops.multiply(ops.cast(self.l2 * decay, gradient.dtype), variable))
        super().update_step(gradient, variable, ops.multiply(learning_rate, rate))

    def finalize_variable_values(self, var_list):
        """Nothing: Keras would put the moving average in place of the weights at the end of every `fit`.

        A run that is interrupted and resumed would then differ from an
        uninterrupted one. `write_average` does it when it is wanted.
        """

    def write_average(self, variables):
        """Puts the moving average (`use_ema=True`) into the variables that `build` was given."""
        super().finalize_variable_values(variables)

    def get_config(self):
        return {**super().get_config(), "l2": self.l2, "multipliers": [list(row) for row in self.multipliers]}
