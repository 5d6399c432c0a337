"""The activations of the convolutional families, each with the initialisation that belongs to it."""

import numbers

import keras
from keras import layers

from keras_mpelu import MPELU
from keras_mpelu import MPELUNormal

# Initial alpha of each: slope of the negative side, or its scale; 0 makes MPELUNormal He's initialisation.
ALPHAS = {"relu": 0.0, "elu": 1.0, "mpelu": 1.0, "prelu": 0.25, "leaky_relu": 0.25}

# Whose they are; where a name begins with one of them it is that activation's.
SOURCES = {
    "prelu": "He et al., 2015 (https://arxiv.org/abs/1502.01852)",
    "elu": "Clevert et al., 2016 (https://arxiv.org/abs/1511.07289)",
    "mpelu": "Li et al., 2018 (https://arxiv.org/abs/1606.00305)",
}


class Activation:
    """An activation by name, for builders that make many layers of it.

    Args:
        name: `"relu"`, `"elu"`, `"mpelu"`, `"prelu"` or `"leaky_relu"`.
            PReLU and MPELU learn per channel.
        alpha: Initial alpha (ELU, MPELU) or slope (PReLU, leaky ReLU). `None`
            takes the default of `ALPHAS`.
        beta: Initial beta of MPELU.

    Raises:
        ValueError: the name is unknown, ReLU was given an alpha, or alpha is
            no number.

    Example:

    >>> mpelu = Activation("mpelu", alpha=0.25)
    >>> mpelu(keras.Input((8, 8, 3)), name="stem_act").shape
    (None, 8, 8, 3)
    >>> mpelu.kernel_initializer("fan_in").alpha
    0.25
    """

    def __init__(self, name, alpha=None, beta=1.0):
        if name not in ALPHAS:
            raise ValueError(f"activation is one of {', '.join(ALPHAS)}; received {name!r}")
        if name == "relu" and alpha:
            raise ValueError(f"relu has no alpha; received alpha={alpha!r}; give activation='mpelu' or another one")
        if alpha is not None and not isinstance(alpha, numbers.Real):
            raise ValueError(f"alpha is a number, or None for the default of {name}; received {alpha!r}")
        self.name = name
        self.alpha = ALPHAS[name] if alpha is None else float(alpha)
        self.beta = float(beta)

    def __call__(self, x, name):
        """Applies a new layer of that name."""
        return self._layer(name, rank=len(x.shape))(x)

    def _layer(self, name, rank):
        if self.name == "relu":
            return layers.ReLU(name=name)
        if self.name == "elu":
            return layers.ELU(alpha=self.alpha, name=name)
        if self.name == "leaky_relu":
            return layers.LeakyReLU(negative_slope=self.alpha, name=name)
        alpha = keras.initializers.Constant(self.alpha)
        if self.name == "prelu":  # per channel: shared over height and width, where there are any
            return layers.PReLU(alpha, shared_axes=[1, 2] if rank == 4 else None, name=name)
        if self.name == "mpelu":
            return MPELU(alpha, keras.initializers.Constant(self.beta), name=name)
        raise NotImplementedError(f"Activation._layer of zoo/activations.py has no layer for {self.name!r}")

    def kernel_initializer(self, mode):
        """A new `MPELUNormal` for a layer that this activation feeds."""
        return MPELUNormal(alpha=self.alpha, beta=self.beta if self.name == "mpelu" else 1.0, mode=mode)
