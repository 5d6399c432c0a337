"""MPELU activations and their initialisation for Keras 3."""

from keras_mpelu.initializers import MPELUNormal
from keras_mpelu.layers import MPELU
from keras_mpelu.layers import mpelu

__all__ = ["MPELU", "MPELUNormal", "mpelu"]
__version__ = "0.1.0"
