"""Outputs of a model for arrays, in batches of one size."""

import keras
import numpy as np

from keras_mpelu.deep_graphs import deep_graphs
from zoo.graphs import without_collection
from zoo.messages import words_of_keras

VERY_DEEP = 1000  # layers of Keras; nopre-1001 has 2,676, ResNet-164 some 440


def predict(model, inputs, batch_size=256, progress=False):
    """Outputs of a model, in batches of one size.

    The last batch is padded, so that every backend compiles one shape only. A
    very deep network is not compiled for a single batch: that takes longer
    than to run it layer by layer.

    Raises:
        ValueError: there are no rows.
    """
    if not len(inputs):
        raise ValueError(f"no rows for {model.name}: received inputs of shape {inputs.shape}, expected one row or more")
    if len(inputs) <= batch_size and len(model.layers) >= VERY_DEEP:
        return _layer_by_layer(model, inputs)
    batch_size = model.inputs[0].shape[0] or min(batch_size, len(inputs))
    bar = keras.utils.Progbar(len(inputs), unit_name="row") if progress else None
    outputs = []
    for start in range(0, len(inputs), batch_size):
        batch = inputs[start : start + batch_size]
        missing = batch_size - len(batch)
        padded = np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)]) if missing else batch
        outputs.append(np.asarray(model.predict_on_batch(padded))[: len(batch)])
        if bar:
            bar.update(start + len(batch))
    return np.concatenate(outputs)


def _layer_by_layer(model, inputs):
    with deep_graphs(), without_collection():
        if keras.backend.backend() != "torch":
            return keras.ops.convert_to_numpy(model(inputs, training=False))
        import torch

        with torch.no_grad():
            return keras.ops.convert_to_numpy(model(inputs, training=False))


def run(model, inputs):
    """`predict`, where the inputs may not be what the model takes.

    Raises:
        ValueError: it does not run on them.
    """
    try:
        return predict(model, inputs)
    except Exception as error:  # a layer may fail in any way
        raise ValueError(
            f"{model.name} does not run on inputs of shape {inputs.shape[1:]}: {words_of_keras(error)}"
        ) from error
