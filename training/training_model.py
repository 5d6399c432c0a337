"""A network with its training data on the device: a batch is the numbers of its rows."""

import re

import keras
import numpy as np
from keras import ops

from training import augmentation


class TrainingModel(keras.Model):
    """What `model.fit` trains: rows -> images -> augmented images -> network.

    The data set is a pair of variables beside the weights, so a step gets a few
    row numbers from the host and no images; augmentation and the mixing of
    targets are part of the compiled step, on every backend.

    Args:
        network: The network, whose outputs are logits.
        recipe: A `Recipe`, for its augmentation and label smoothing.
        x: Training inputs, a NumPy array.
        y: Integer labels.
        num_classes: Number of classes.
        seed: Seed of the augmentation.
        training_pass: A faster function for the network's pass in training, if there is one.
        soft_targets: What the recipe's teachers say of each row, (rows, classes), if it has any.
    """

    def __init__(self, network, recipe, x, y, num_classes, seed, training_pass=None, soft_targets=None):
        super().__init__(name="training")
        self.network = network
        self.training_pass = training_pass  # `forward` is a method of every torch module
        self.recipe = recipe
        self.num_classes = num_classes
        self.channel_means = tuple(x.mean((0, 1, 2), dtype="float64").tolist()) if x.ndim == 4 else None
        self.inputs_on_device = _constant(x, x.dtype if x.dtype == "uint8" else network.inputs[0].dtype)
        self.labels_on_device = _constant(y, "int32")
        self.soft_targets_on_device = None if soft_targets is None else _constant(soft_targets, "float32")
        self.augmentation_seed = keras.random.SeedGenerator(seed)
        self.cross_entropy = keras.losses.CategoricalCrossentropy(from_logits=True)
        self.divergence = keras.losses.KLDivergence()
        self.accuracy = keras.metrics.Mean(name="accuracy")
        self.built = True  # every part is; else Keras would try it out on rows of floats

    def steps_in_call(self, steps):
        """How many steps a call of the device takes, of an epoch of so many; the last call may take fewer."""
        return 1

    def call(self, rows, training=None):
        x, *targets = self.batch(rows, training)
        if training and self.training_pass:
            return self.training_pass(x), *targets
        return self.network(x, training=training), *targets

    def batch(self, rows, training):
        """Images and one-hot targets of some rows, augmented and mixed in training; then the soft targets, if any."""
        x = ops.cast(ops.take(self.inputs_on_device, rows, axis=0), self.network.inputs[0].dtype)
        targets = ops.one_hot(ops.take(self.labels_on_device, rows, axis=0), self.num_classes, dtype=x.dtype)
        if training:
            x, targets = self._augmented(x, targets)
        if self.soft_targets_on_device is None:
            return x, targets
        return x, targets, ops.take(self.soft_targets_on_device, rows, axis=0)

    def _augmented(self, x, targets):
        recipe, seed = self.recipe, self.augmentation_seed
        if recipe.augmentation == "pad_crop_flip":
            x = augmentation.pad_crop_flip(x, self.channel_means, seed)
        if recipe.erase:
            x = augmentation.erase(x, self.channel_means, recipe.erase, seed)
        if recipe.mixup and recipe.cutmix:  # one of the two, by a coin for the batch
            coin = keras.random.uniform((1,), seed=seed) < 0.5
            blended = augmentation.mixup(x, targets, recipe.mixup, seed)
            pasted = augmentation.cutmix(x, targets, recipe.cutmix, seed)
            x = ops.where(ops.reshape(coin, (1, 1, 1, 1)), blended[0], pasted[0])
            targets = ops.where(ops.reshape(coin, (1, 1)), blended[1], pasted[1])
        elif recipe.mixup:
            x, targets = augmentation.mixup(x, targets, recipe.mixup, seed)
        elif recipe.cutmix:
            x, targets = augmentation.cutmix(x, targets, recipe.cutmix, seed)
        smoothing = recipe.label_smoothing
        return x, (targets * (1 - smoothing) + smoothing / self.num_classes) if smoothing else targets

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        logits, targets, *soft_targets = y_pred
        loss = self.cross_entropy(targets, logits)
        if not soft_targets:
            return loss
        share, temperature = self.recipe.distillation, self.recipe.temperature
        softened = ops.softmax(ops.cast(logits, "float32") / temperature)
        # The square keeps the gradient's size at any temperature (Hinton et al., 2015).
        return (1 - share) * loss + share * temperature**2 * self.divergence(*soft_targets, softened)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        logits, targets, *_ = y_pred
        self.accuracy.update_state(ops.equal(ops.argmax(logits, axis=-1), ops.argmax(targets, axis=-1)))
        return self.get_metrics_result()

    def state(self):
        """Every variable that changes in training (weights, optimizer, random states, metrics) by place and path."""
        constant = {id(self.inputs_on_device), id(self.labels_on_device), id(self.soft_targets_on_device)}
        found = {
            id(variable): variable
            for variable in (*self.variables, *self.optimizer.variables, *self.metrics_variables)
            if id(variable) not in constant
        }
        # Keras numbers seed generators through the process: no part of a name that another process must find again.
        return {
            f"{place:05d} {re.sub(r'seed_generator_[0-9]+', 'seed_generator', variable.path)}": variable
            for place, variable in enumerate(found.values())
        }


def _constant(values, dtype):
    return keras.Variable(np.ascontiguousarray(values), dtype=dtype, trainable=False, autocast=False)
