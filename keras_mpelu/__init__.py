"""MPELU activations and their initialisation for Keras 3."""

from keras_mpelu.initializers import MPELUNormal
from keras_mpelu.layers import MPELU
from keras_mpelu.layers import mpelu
from keras_mpelu.spatial_pyramid import SpatialPyramidPooling

__all__ = ["MPELU", "MPELUNormal", "SpatialPyramidPooling", "mpelu"]
__version__ = "0.1.0"
