"""The initialisation that belongs to MPELU (Li et al., 2018)."""

import random

import keras


@keras.saving.register_keras_serializable(package="keras_mpelu")
class MPELUNormal(keras.initializers.Initializer):
    """Normal initializer for layers fed by an MPELU (the paper's "Taylor").

    `std = sqrt(2 / (n * (1 + alpha**2 * beta**2)))`, mean 0, not truncated.

    It keeps the variance of the signal through the layers, to first order of
    the exponential. `alpha` and `beta` are the initial values of the MPELU
    that feeds the layer. Special cases:

    | alpha, beta | std * sqrt(n) | the same as |
    |---|---|---|
    | 0, any | 1.41421 | He et al., 2015, for ReLU |
    | slope, 1 | sqrt(2 / (1 + slope**2)) | He et al., 2015, for PReLU |
    | 0.25, 1 | 1.37199 | - |
    | 1, 1 | 1 | LeCun, for ELU |

    Args:
        alpha: Initial alpha of the preceding activation. Defaults to 1.
        beta: Initial beta of the preceding activation. Defaults to 1.
        mode: What `n` is: `"fan_in"` (the paper's equation 22, the default),
            `"fan_out"` (the authors' residual networks) or `"fan_avg"`.
        seed: `None` draws fresh numbers at every call, also from one instance
            that several layers share (Keras's own initializers repeat
            themselves there), repeatable under `keras.utils.set_random_seed`.
            An integer gives the same numbers at every call. A
            `keras.random.SeedGenerator` advances.

    Raises:
        ValueError: `mode` is unknown, or alpha or beta is not finite, or the
            shape has fewer than two dimensions.

    Example:

    >>> kernel = MPELUNormal(alpha=0.25, beta=1.0, seed=0)((3, 3, 64, 64))
    >>> round(float(keras.ops.std(kernel)) * (3 * 3 * 64) ** 0.5, 1)
    1.4

    Reference:

    - [Li et al., 2018](https://arxiv.org/abs/1606.00305), equation 22
    """

    def __init__(self, alpha=1.0, beta=1.0, mode="fan_in", seed=None):
        if mode not in ("fan_in", "fan_out", "fan_avg"):
            raise ValueError(f"mode is 'fan_in', 'fan_out' or 'fan_avg'; received {mode!r}")
        if seed is not None and not isinstance(seed, int | keras.random.SeedGenerator):
            raise ValueError(f"seed is None, an integer or a keras.random.SeedGenerator; received {seed!r}")
        scale = 2.0 / (1.0 + float(alpha) ** 2 * float(beta) ** 2)
        if not 0 < scale <= 2:
            raise ValueError(f"alpha and beta are finite numbers; received alpha={alpha!r}, beta={beta!r}")
        self.alpha = float(alpha)
        self.beta = float(beta)
        self.mode = mode
        self.seed = seed
        # Of Python's own generator, as Keras's initializers do, which `keras.utils.set_random_seed` sets. Not a
        # SeedGenerator: its state is a variable, which a model that is restored from shapes alone would not have. The
        # first one now: so the draws are those of that SeedGenerator, and of the networks trained with it.
        self._first = _draw() if seed is None else None
        self._scale = scale

    def __call__(self, shape, dtype=None):
        if len(shape) < 2:
            raise ValueError(
                f"MPELUNormal is for kernels, of two or more dimensions; received shape {tuple(shape)}; "
                "give biases the initializer 'zeros'"
            )
        fan_in, fan_out = _fans(shape)
        seed = self.seed
        if seed is None:
            seed, self._first = self._first or _draw(), None
        n = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        return keras.random.normal(
            shape, stddev=(self._scale / n) ** 0.5, dtype=dtype or keras.config.floatx(), seed=seed
        )

    def get_config(self):
        return {
            "alpha": self.alpha,
            "beta": self.beta,
            "mode": self.mode,
            "seed": keras.saving.serialize_keras_object(self.seed),
        }

    @classmethod
    def from_config(cls, config):
        # Without a seed where the initializer is given by its registered name: Keras then makes it from {}.
        return cls(**{**config, "seed": keras.saving.deserialize_keras_object(config.get("seed"))})


def _draw():
    return random.randint(1, 10**9)


def _fans(shape):
    """Fan in and fan out of a Dense or convolution kernel, (..., in, out)."""
    receptive_field = 1
    for size in shape[:-2]:
        receptive_field *= size
    return max(1, receptive_field * shape[-2]), max(1, receptive_field * shape[-1])
