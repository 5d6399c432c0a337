"""MPELU activations and their initialisation for Keras 3."""

from keras_mpelu.initializers import MPELUNormal
from keras_mpelu.layers import MPELU
from keras_mpelu.layers import mpelu
from keras_mpelu.lsuv import lsuv
from keras_mpelu.one_hot_columns import OneHotColumns
from keras_mpelu.spatial_pyramid import SpatialPyramidPooling
from keras_mpelu.swap_activations import swap_activations
from keras_mpelu.weight_normalization import WeightNormalization

__all__ = [
    "MPELU",
    "MPELUNormal",
    "OneHotColumns",
    "SpatialPyramidPooling",
    "WeightNormalization",
    "lsuv",
    "mpelu",
    "swap_activations",
]
__version__ = "0.1.0"
