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
        layer: A Dense, Conv1D, Conv2D or Conv3D layer, not built.

    Raises:
        ValueError: the layer is of another kind.

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
        super().__init__(layer, **kwargs)

    def build(self, input_shape):
        super().build(input_shape)
        self.g = self.add_weight(name="g", shape=self.layer.kernel.shape[-1:], initializer="ones")
        self.g.assign(_norm(self.layer.kernel))

    def call(self, inputs):
        kernel = self.layer.kernel
        normalized = kernel * (self.g / _norm(kernel))
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
    return ops.sqrt(ops.sum(ops.square(kernel), axis=tuple(range(len(kernel.shape) - 1))))
