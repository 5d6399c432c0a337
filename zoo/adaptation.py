"""A model's config for images of another size, or for layers of another precision."""

import keras
import numpy as np

# What may come before the first kernel. In bfloat16 a grey value keeps eight bits, and a large code becomes another.
OF_INPUTS = ("InputLayer", "Normalization", "Rescaling", "OneHotColumns", "CategoryEncoding", "Embedding")


class Unadaptable(ValueError):
    """The model cannot have what was asked for."""


def adapted(config, input_shape=None, dtype=None):
    """The config of a model that is otherwise the same.

    Args:
        config: A model as `keras.saving.serialize_keras_object` gives it; it is
            not changed.
        input_shape: Height, width and channels of the images; height and width
            may be `None`, for any. By default the model's own.
        dtype: A dtype policy, such as `"mixed_bfloat16"`, of all layers but
            those that scale the inputs and those of the classifier, which stay
            as they are. By default the model's own.

    Raises:
        Unadaptable: the model takes no images, or none of so many channels;
            there is no such policy.
    """
    layers = config["config"].get("layers") or []
    inputs = [layer for layer in layers if layer["class_name"] == "InputLayer"]
    if len(inputs) != 1:
        raise Unadaptable(f"the model has {len(inputs)} inputs, expected one; load it without input_shape and dtype")
    if input_shape is not None:
        shape = _checked(input_shape, inputs[0])
        layers = [_of_images(layer, shape) for layer in layers]
    if dtype is not None:
        policy = _policy(dtype)
        first = next((place for place, layer in enumerate(layers) if layer["class_name"] not in OF_INPUTS), 0)
        head = [place for place, layer in enumerate(layers) if layer["config"]["name"].startswith("classifier")]
        changed = set(range(first, len(layers))) - set(head or [len(layers) - 1])
        layers = [_of_policy(layer, policy) if place in changed else layer for place, layer in enumerate(layers)]
    return {**config, "config": {**config["config"], "layers": layers}}


def _checked(shape, layer):
    own = layer["config"]["batch_shape"][1:]
    if len(own) != 3:
        raise Unadaptable(f"input_shape is for images; the model takes inputs of shape {tuple(own)}: leave it out")
    sizes = list(shape) if isinstance(shape, tuple | list) else [shape]
    whole = all(size is None or (isinstance(size, int) and not isinstance(size, bool) and size > 0) for size in sizes)
    if len(sizes) != 3 or not whole or sizes[2] != own[2]:
        raise Unadaptable(
            f"input_shape is height, width and {own[2]} channels, such as {(2 * (own[0] or 32),) * 2 + (own[2],)}; "
            f"received {shape!r}"
        )
    return sizes


def _of_images(layer, shape):
    """A layer that is built anew for the images that come to it."""
    layer = {key: value for key, value in layer.items() if key != "build_config"}
    if layer["class_name"] == "Rescaling" and np.ndim(layer["config"]["scale"]) > 1:  # as in Network in Network
        raise Unadaptable(
            f"layer {layer['config']['name']!r} is for images of one size; zoo.create_model builds the network for "
            "another, and takes these weights by set_weights"
        )
    if layer["class_name"] == "InputLayer":
        batch = layer["config"]["batch_shape"][0]
        layer["config"] = {**layer["config"], "batch_shape": [batch, *shape]}
    return layer


def _policy(dtype):
    try:
        return keras.dtype_policies.serialize(keras.dtype_policies.get(dtype))
    except (TypeError, ValueError):
        raise Unadaptable(
            f"dtype is a dtype policy of Keras, such as 'mixed_bfloat16' or 'float32'; received {dtype!r}"
        ) from None


def _of_policy(layer, policy):
    return {**layer, "config": _with_policy({**layer["config"], "dtype": policy}, policy)}


def _with_policy(part, policy):
    """A config with that policy wherever it has one; layers may be within layers."""
    if isinstance(part, dict):
        if part.get("class_name") == "DTypePolicy":
            return policy
        return {key: _with_policy(item, policy) for key, item in part.items()}
    return [_with_policy(item, policy) for item in part] if isinstance(part, list) else part
