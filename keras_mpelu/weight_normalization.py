"""Weight normalization (Salimans and Kingma, 2016), which Keras does not have."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_mpelu")
class WeightNormalization(keras.layers.Wrapper):
    """Learns the length and the direction of each unit's weights apart.

    Formula:

    ```
    kernel = g * v / ||v||
    ```

    with one length `g` per output unit; `v` is the kernel of the wrapped layer
    and the norm is taken over all its axes but the last. `g` starts as `||v||`,
    so that the wrapped layer starts as it would alone. (The paper also scales
    `g` and the bias by a first batch.)

    Args:
        layer: A Dense, Conv1D, Conv2D or Conv3D layer, not built. No unit's
            weights may be all zero: they have no direction, and `g / ||v||`
            is NaN.

    Raises:
        ValueError: the layer is of another kind, or its kernel starts at zero.

    Input shape:
        That of the layer.

    Output shape:
        That of the layer.

    Example:

    >>> layer = WeightNormalization(keras.layers.Dense(3))
    >>> tuple(layer(np.ones((2, 4), "float32")).shape)
    (2, 3)
    >>> [(w.name, tuple(w.shape)) for w in layer.trainable_weights]
    [('g', (3,)), ('kernel', (4, 3)), ('bias', (3,))]

    Reference:

    - [Salimans and Kingma, 2016](https://arxiv.org/abs/1602.07868), equation 2
    """

    def __init__(self, layer, **kwargs):
        if not isinstance(layer, (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)):
            raise ValueError(f"WeightNormalization wraps a Dense, Conv1D, Conv2D or Conv3D layer; received {layer!r}")
        if isinstance(layer.kernel_initializer, keras.initializers.Zeros):
            raise ValueError(
                f"WeightNormalization divides by the length of each unit's weights, and {layer.name!r} starts with "
                "kernel_initializer='zeros'; give it another one"
            )
        super().__init__(layer, **kwargs)
        self.supports_masking = layer.supports_masking
        if self.activity_regularizer is None:  # Keras adds its loss where a layer is called, and the inner one is not
            self.activity_regularizer = layer.activity_regularizer

    def build(self, input_shape):
        super().build(input_shape)
        self.g = self.add_weight(name="g", shape=self.layer.kernel.shape[-1:], initializer="ones")
        self.g.assign(_norm(self.layer.kernel))

    def call(self, inputs):
        kernel = self.layer.kernel
        normalized = ops.cast(kernel * (self.g / _norm(kernel)), self.compute_dtype)
        # The layer computes with this kernel in place of its own, so that gradients reach both g and v.
        outputs, _ = self.layer.stateless_call(
            [normalized if weight is kernel else weight.value for weight in self.layer.trainable_variables],
            [normalized if weight is kernel else weight.value for weight in self.layer.non_trainable_variables],
            inputs,
        )
        return outputs

    def get_config(self):
        config = super().get_config()
        # Else Keras builds the inner layer while it reads its configuration: outside of this one, under another path.
        config["layer"].pop("build_config", None)
        return config


def _norm(kernel):
    kernel = ops.cast(kernel, keras.backend.result_type(kernel.dtype, "float32"))  # squares leave float16's range
    return ops.sqrt(ops.sum(ops.square(kernel), axis=tuple(range(len(kernel.shape) - 1))))
