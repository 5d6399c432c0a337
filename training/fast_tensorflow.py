"""Faster training on TensorFlow: two layers with the same mathematics and weights, alone or as one, and an optimizer.

Only the training loop uses them, on a clone of the model: what is saved and
published are the stock layers.
"""

import collections
import functools

import keras
import tensorflow as tf

from keras_mpelu import MPELU
from keras_mpelu.deep_graphs import deep_graphs
from keras_mpelu.kernels import tensorflow as kernel
from keras_mpelu.layers import as_float
from training.normalized_mpelu_tensorflow import normalized_mpelu
from training.optimizer import CoupledSGD
from zoo.graphs import names_of_outputs
from zoo.graphs import tensors_in


class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Batch norm by TensorFlow's fused kernel, which reads the input once.

    Keras computes the moments and the affine map in separate operations. The
    fused kernel's variance is the unbiased one; the moving variance takes the
    biased one, as Keras does.

    Where `left_to_next` is true the layer does nothing in training: the FusedMPELU
    behind it normalises.
    """

    left_to_next = False

    def normalizes(self, training):
        return bool(training) and self.trainable

    def call(self, inputs, training=None, mask=None):
        if not self.normalizes(training):
            return super().call(inputs, training=training, mask=mask)
        if self.left_to_next:
            return inputs
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs,
            tf.cast(self.gamma, "float32"),
            tf.cast(self.beta, "float32"),
            epsilon=self.epsilon,
            is_training=True,
        )
        count = tf.cast(tf.size(inputs) // inputs.shape[-1], "float32")
        self.move_statistics(mean, variance * ((count - 1) / count))
        return outputs

    def move_statistics(self, mean, variance):
        """Takes the statistics of a batch, with the biased variance, into the moving ones."""
        self.moving_mean.assign(self.moving_mean * self.momentum + mean * (1 - self.momentum))
        self.moving_variance.assign(self.moving_variance * self.momentum + variance * (1 - self.momentum))


_forward = tf.function(functools.partial(kernel.forward, expm1=kernel.expm1), jit_compile=True)


@tf.custom_gradient
def _mpelu(x, alpha, beta):
    return _forward(x, alpha, beta), lambda upstream: kernel.backward(x, alpha, beta, upstream)


class FusedMPELU(MPELU):
    """MPELU with a fused pass forward too, which a model that is exported could not have.

    After `take_over` it normalises as well, in training.
    """

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.normalization = lambda: None

    def take_over(self, normalization):
        """Does the work of this FusedBatchNormalization, whose outputs are the inputs, too."""
        normalization.left_to_next = True
        self.normalization = lambda: normalization  # a function, or Keras would count its weights as weights of ours

    def call(self, inputs, training=None):
        inputs = as_float(inputs, self.compute_dtype)
        wide = keras.backend.result_type(inputs.dtype, "float32")
        alpha, beta = (keras.ops.cast(weight, wide) for weight in (self.alpha, self.beta))
        before = self.normalization()
        if before is None or not before.normalizes(training):
            return _mpelu(inputs, alpha, beta)
        gamma, bias = tf.convert_to_tensor(before.gamma), tf.convert_to_tensor(before.beta)
        outputs, mean, variance = normalized_mpelu(inputs, gamma, bias, alpha, beta, before.epsilon)
        before.move_statistics(mean, variance)
        return outputs

    def compute_output_spec(self, inputs, training=None):
        return keras.KerasTensor(inputs.shape, self.compute_dtype)


def accelerate(model, join_pairs=True):
    """A clone of the model with these layers in place of the stock ones, same weights.

    Args:
        model: A functional model.
        join_pairs: Whether a batch norm and the MPELU behind it may be computed
            as one. `unit_functions.pieces` may not part them then.
    """
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
    if join_pairs and not tf.config.list_logical_devices("GPU"):  # which has a fused batch norm of its own
        _join_pairs(fast)
    return fast


def _join_pairs(model):
    """Lets each FusedMPELU take over the batch norm before it, in float32, if all of the model can.

    So it is in pre-activation and most no-preactivation networks; the former
    ResNet-164 then takes a fifth less memory (`benchmark memory`) and, in a scratch
    trial, 7 % less time. Where there is an addition before every other MPELU
    (ResNet-20) less is saved than compiling takes, and in bfloat16 the conversions
    cost more than the memory.
    """
    layers = {layer.name: layer for layer in model.layers}
    config = model.get_config()
    calls = {entry["name"]: entry["inbound_nodes"] for entry in config["layers"]}
    readers = collections.Counter(name for name, *_ in tensors_in(list(calls.values())))
    readers.update(names_of_outputs(config["output_layers"]))

    def before(layer):
        ((source, shape, _), *others) = tensors_in(calls[layer.name])
        normalization = layers.get(source)
        if type(normalization) is FusedBatchNormalization and not others and len(calls[source]) == readers[source] == 1:
            known = None not in shape[1:] and "training" not in (calls[source][0].get("kwargs") or {})
            if known and normalization.dtype_policy.name == layer.dtype_policy.name == "float32":
                return normalization
        return None

    pairs = [(layer, before(layer)) for layer in model.layers if type(layer) is FusedMPELU]
    if all(normalization for _, normalization in pairs):
        for layer, normalization in pairs:
            layer.take_over(normalization)


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
