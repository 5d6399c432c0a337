"""The multiple parametric exponential linear unit (Li et al., 2018)."""

import numbers

import keras
from keras import ops

from keras_mpelu import kernels


def mpelu(x, alpha, beta):
    """Multiple parametric exponential linear unit.

    `f(x) = x` for `x > 0`, `f(x) = alpha * (exp(beta * x) - 1)` otherwise.

    `alpha = 0` is ReLU, `alpha = beta = 1` is ELU, and a small `beta` with
    `alpha * beta = slope` is close to PReLU. At `x = 0` the derivative is that
    of the negative branch, `alpha * beta`, as in the authors' code.

    On JAX and PyTorch its gradient is a function of ours, which forward mode
    (`jax.jvp`, `jax.hessian`, `torch.func.jvp`) and `torch.func.vmap`, with
    `torch.func.jacrev`, refuse; `keras_mpelu.layers.plain_mpelu` takes them all.

    Args:
        x: A float tensor; integers are taken as `keras.config.floatx()`.
        alpha: Scale of the negative branch; broadcast against `x`.
        beta: Slope inside the exponential; broadcast against `x`. The paper
            asks for `beta > 0`, but no implementation enforces it: with
            `beta < 0` the negative branch grows exponentially.

    Returns:
        A tensor of the shape and dtype of `x`.

    Example:

    >>> x = np.array([-1.0, 0.0, 2.0], "float32")
    >>> y = mpelu(x, alpha=0.5, beta=2.0)
    >>> [round(float(v), 4) for v in y]
    [-0.4323, 0.0, 2.0]

    Reference:

    - [Li et al., 2018](https://arxiv.org/abs/1606.00305), equation 1
    """
    x = as_float(ops.convert_to_tensor(x), keras.config.floatx())
    # In float32 at least: the gradients of alpha and beta are sums over a batch of images, far beyond half precision.
    dtype = keras.backend.result_type(x.dtype, "float32")
    alpha, beta = ops.cast(alpha, dtype), ops.cast(beta, dtype)
    kernel = kernels.of_this_backend()
    if kernel is None or any(isinstance(tensor, keras.KerasTensor) for tensor in (x, alpha, beta)):
        return plain_mpelu(x, alpha, beta)
    if alpha.shape != beta.shape:
        alpha, beta = alpha + ops.zeros_like(beta), beta + ops.zeros_like(alpha)
    return kernel.mpelu(x, alpha, beta)


def as_float(x, dtype):
    """Integers in a dtype; floats as they are. Keras casts none but floats."""
    return x if keras.backend.is_float_dtype(x.dtype) else ops.cast(x, dtype)


def plain_mpelu(x, alpha, beta):
    """`mpelu` from Keras operations alone, with the derivatives that the backend derives: in every mode, and slower.

    Args:
        x: A float tensor.
        alpha: A float tensor, broadcast against `x`. The computation is in its dtype.
        beta: A tensor of the dtype of `alpha`, broadcast against `x`.

    Returns:
        A tensor of the shape and dtype of `x`.

    Example:

    >>> x, alpha, beta = (keras.ops.array(values, "float32") for values in ([-1.0, 0.0, 2.0], 0.5, 2.0))
    >>> [round(float(v), 4) for v in plain_mpelu(x, alpha, beta)]
    [-0.4323, 0.0, 2.0]
    """
    wide = ops.cast(x, alpha.dtype)
    # The exponential sees the negative side only: `where` propagates the
    # gradient of both its branches, and 0 * inf would be NaN. Not `minimum`:
    # JAX and torch halve its gradient at 0.
    negative = ops.where(wide > 0, ops.zeros_like(wide), wide)
    return ops.cast(ops.where(wide > 0, wide, ops.multiply(alpha, ops.expm1(ops.multiply(beta, negative)))), x.dtype)


@keras.saving.register_keras_serializable(package="keras_mpelu")
class MPELU(keras.layers.Layer):
    """Multiple parametric exponential linear unit with learned parameters.

    Formula:

    ```
    f(x) = x                            for x > 0
    f(x) = alpha * (exp(beta * x) - 1)  for x <= 0
    ```

    `alpha` and `beta` are learned, one pair per channel by default. They stay
    float32 under a mixed precision policy.

    Forward mode and `torch.func.vmap` refuse it as they do `mpelu` (see there),
    but for `axis` -1 or `None` take a subclass whose `call` returns
    `keras_mpelu.layers.plain_mpelu(inputs, self.alpha, self.beta)`.

    Args:
        alpha_initializer: Initializer of `alpha`. Defaults to `"ones"`; the
            paper uses 1 and 0.25. `"zeros"` starts as ReLU.
        beta_initializer: Initializer of `beta`. Defaults to `"ones"`.
        alpha_regularizer: Regularizer of `alpha`. The paper decays `alpha` and
            `beta` like the weights or ten times as much; in this project that
            is the optimizer's work (`training.CoupledSGD`).
        beta_regularizer: Regularizer of `beta`.
        alpha_constraint: Constraint on `alpha`.
        beta_constraint: Constraint on `beta`.
        axis: The channel axis, -1 by default. `None` shares one pair among all
            units of the layer.

    Input shape:
        Arbitrary; the channel axis must be of known size.

    Output shape:
        Same as the input.

    Example:

    >>> layer = MPELU(alpha_initializer=keras.initializers.Constant(0.25))
    >>> tuple(layer(np.ones((2, 8, 8, 16), "float32")).shape)
    (2, 8, 8, 16)
    >>> [(w.name, tuple(w.shape)) for w in layer.weights]
    [('alpha', (16,)), ('beta', (16,))]

    Reference:

    - [Li et al., 2018](https://arxiv.org/abs/1606.00305)
    """

    def __init__(
        self,
        alpha_initializer="ones",
        beta_initializer="ones",
        alpha_regularizer=None,
        beta_regularizer=None,
        alpha_constraint=None,
        beta_constraint=None,
        axis=-1,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if axis is not None and (isinstance(axis, bool) or not isinstance(axis, numbers.Integral)):
            raise ValueError(
                f"axis is one integer, or None for parameters shared by the whole layer; received {axis!r}"
            )
        self.supports_masking = True
        self.alpha_initializer = keras.initializers.get(alpha_initializer)
        self.beta_initializer = keras.initializers.get(beta_initializer)
        self.alpha_regularizer = keras.regularizers.get(alpha_regularizer)
        self.beta_regularizer = keras.regularizers.get(beta_regularizer)
        self.alpha_constraint = keras.constraints.get(alpha_constraint)
        self.beta_constraint = keras.constraints.get(beta_constraint)
        self.axis = axis if axis is None else int(axis)

    def build(self, input_shape):
        shape = () if self.axis is None else (self._channels(input_shape),)
        # Another size there could broadcast: an input of one channel would come out with as many as the weights.
        if self.axis is not None:
            self.input_spec = keras.InputSpec(min_ndim=max(self.axis + 1, -self.axis), axes={self.axis: shape[0]})
        self.alpha = self.add_weight(
            name="alpha",
            shape=shape,
            initializer=self.alpha_initializer,
            regularizer=self.alpha_regularizer,
            constraint=self.alpha_constraint,
            autocast=False,  # `mpelu` casts it, so a kernel may use it in float32
        )
        self.beta = self.add_weight(
            name="beta",
            shape=shape,
            initializer=self.beta_initializer,
            regularizer=self.beta_regularizer,
            constraint=self.beta_constraint,
            autocast=False,
        )

    def _channels(self, input_shape):
        rank = len(input_shape)
        if not -rank <= self.axis < rank or self.axis % rank == 0:
            raise ValueError(
                f"MPELU axis {self.axis} is not a channel axis of an input of shape {tuple(input_shape)}; give "
                f"an axis from 1 to {rank - 1} (or negative), or None for shared parameters"
            )
        channels = input_shape[self.axis]
        if channels is None:
            raise ValueError(
                f"MPELU needs a known size on axis {self.axis}; received shape {tuple(input_shape)}; "
                "fix that size in the input, or share the parameters with axis=None"
            )
        return channels

    def call(self, inputs):
        inputs = as_float(inputs, self.compute_dtype)
        return mpelu(inputs, self._align(self.alpha, inputs), self._align(self.beta, inputs))

    def _align(self, weight, inputs):
        """Gives a (C,) weight the rank that broadcasts along `axis`."""
        rank = len(inputs.shape)
        if self.axis is None or self.axis % rank == rank - 1:
            return weight
        return ops.reshape(weight, (-1,) + (1,) * (rank - 1 - self.axis % rank))

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "alpha_initializer": keras.initializers.serialize(self.alpha_initializer),
            "beta_initializer": keras.initializers.serialize(self.beta_initializer),
            "alpha_regularizer": keras.regularizers.serialize(self.alpha_regularizer),
            "beta_regularizer": keras.regularizers.serialize(self.beta_regularizer),
            "alpha_constraint": keras.constraints.serialize(self.alpha_constraint),
            "beta_constraint": keras.constraints.serialize(self.beta_constraint),
            "axis": self.axis,
        }
