"""Faster training on TensorFlow: two layers with the same mathematics and weights, and an optimizer.

Only the training loop uses them, on a clone of the model: what is saved and
published are the stock layers.
"""

import functools

import keras
import tensorflow as tf

from keras_mpelu import MPELU
from keras_mpelu.kernels import tensorflow as kernel
from training.optimizer import CoupledSGD
from zoo.graphs import deep_graphs


class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Batch norm by TensorFlow's fused kernel, which reads the input once.

    Keras computes the moments and the affine map in separate operations. The
    fused kernel's variance is the unbiased one; the moving variance takes the
    biased one, as Keras does.
    """

    def call(self, inputs, training=None, mask=None):
        if not (training and self.trainable):
            return super().call(inputs, training=training, mask=mask)
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs,
            tf.cast(self.gamma, "float32"),
            tf.cast(self.beta, "float32"),
            epsilon=self.epsilon,
            is_training=True,
        )
        count = tf.cast(tf.size(inputs) // inputs.shape[-1], "float32")
        variance *= (count - 1) / count
        self.moving_mean.assign(self.moving_mean * self.momentum + mean * (1 - self.momentum))
        self.moving_variance.assign(self.moving_variance * self.momentum + variance * (1 - self.momentum))
        return outputs


_forward = tf.function(functools.partial(kernel.forward, expm1=kernel.expm1), jit_compile=True)


@tf.custom_gradient
def _mpelu(x, alpha, beta):
    return _forward(x, alpha, beta), lambda upstream: kernel.backward(x, alpha, beta, upstream)


class FusedMPELU(MPELU):
    """MPELU with a fused pass forward too, which a model that is exported could not have."""

    def call(self, inputs):
        return _mpelu(inputs, tf.convert_to_tensor(self.alpha), tf.convert_to_tensor(self.beta))

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape, self.compute_dtype)


def accelerate(model):
    """A clone of the model with these layers in place of the stock ones, same weights."""
    fused = {keras.layers.BatchNormalization: FusedBatchNormalization, MPELU: FusedMPELU}

    def clone(layer):
        wanted = fused.get(type(layer))
        # The kernels know channels-last images with all of the layer's weights.
        fits = wanted and layer.axis == -1 and len(layer.input.shape) == 4
        if wanted is FusedBatchNormalization:
            fits = fits and layer.scale and layer.center
        return (wanted if fits else type(layer)).from_config(layer.get_config())

    with deep_graphs():
        fast = keras.models.clone_model(model, clone_function=clone)
    fast.set_weights(model.get_weights())
    return fast


class FusedCoupledSGD(CoupledSGD):
    """CoupledSGD with TensorFlow's own operation for a step with momentum, in place of some ten for each variable.

    On one device; under `tf.distribute` it is CoupledSGD.
    """

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        if not self.momentum or tf.distribute.has_strategy():
            super()._backend_update_step(grads, trainable_variables, learning_rate)
            return
        rates, momentum = {}, tf.constant(self.momentum, "float32")
        # Keras's way goes through `tf.distribute` for each variable, slow with thousands.
        for gradient, variable in zip(grads, trainable_variables, strict=True):
            index = self._get_variable_index(variable)
            rate, decay = self._multipliers_by_index[index]
            if rate not in rates:
                rates[rate] = tf.cast(learning_rate, "float32") * rate
            if self.l2 * decay:
                gradient += (self.l2 * decay) * variable.value
            tf.raw_ops.ResourceApplyKerasMomentum(
                var=variable.value.handle,
                accum=self.momentums[index].value.handle,
                lr=rates[rate],
                grad=gradient,
                momentum=momentum,
                use_nesterov=self.nesterov,
            )
