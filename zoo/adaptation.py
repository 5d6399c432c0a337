"""A model's config for images of another size, or for layers of another precision."""

import keras
import numpy as np

# What may come before the first kernel. In bfloat16 a grey value keeps eight bits, and a large code becomes another.
OF_INPUTS = {
    "InputLayer",
    "Normalization",
    "Rescaling",
    "Resizing",
    "CenterCrop",
    "Flatten",
    "Reshape",
    "Permute",
    "OneHotColumns",
    "CategoryEncoding",
    "Embedding",
}


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
            as they are, in models within the model too. By default the model's
            own.

    Raises:
        Unadaptable: the model takes no images, or none of so many channels;
            there is no such policy; its config does not list its layers.
    """
    if "layers" not in config["config"]:
        raise Unadaptable(
            f"the config of a {config['class_name']} does not list its layers; load it without input_shape and dtype"
        )
    if input_shape is not None:
        config = _for_images(config, input_shape)
    if dtype is not None:
        config = _in_policy(config, _policy(dtype), last_is_head=True)
    return config


def _for_images(model, input_shape):
    layers = model["config"]["layers"]
    inputs = [layer for layer in layers if layer["class_name"] == "InputLayer"]
    if len(inputs) != 1:
        raise Unadaptable(f"the model has {len(inputs)} inputs, expected one; load it without input_shape")
    shape = _checked(input_shape, inputs[0])
    return _with_layers(model, [_for_size(layer, shape) for layer in layers])


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


def _for_size(layer, shape):
    """The input has the shape; other layers take any, or Keras says what they expect."""
    if layer["class_name"] == "Rescaling" and np.ndim(layer["config"]["scale"]) > 1:  # as in Network in Network
        raise Unadaptable(
            f"layer {layer['config']['name']!r} is for images of one size; zoo.create_model builds the network for "
            "another, and takes these weights by set_weights"
        )
    if layer["class_name"] == "InputLayer":
        batch = layer["config"]["batch_shape"][0]
        return {**layer, "config": {**layer["config"], "batch_shape": [batch, *shape]}}
    return layer


def _policy(dtype):
    try:
        policy = keras.dtype_policies.get(dtype)
    except (TypeError, ValueError):
        policy = None
    if policy is None or policy.quantization_mode or not keras.backend.is_float_dtype(policy.compute_dtype):
        raise Unadaptable(
            f"dtype is a floating-point policy of Keras, such as 'mixed_bfloat16' or 'float32'; received {dtype!r}"
        )
    return keras.dtype_policies.serialize(policy)


def _in_policy(model, policy, last_is_head=False):
    """A model's config with that policy from what follows the scaling of inputs up to the classifier."""
    layers = model["config"]["layers"]
    places = range(len(layers))
    first = next((place for place in places if not _is_of_inputs(layers[place])), len(layers))
    named = (place for place in places if layers[place]["config"].get("name", "").startswith("classifier"))
    head = next(named, len(layers) - last_is_head)
    return _with_layers(
        model, [_with_policy(layers[place], policy) if first <= place < head else layers[place] for place in places]
    )


def _is_of_inputs(layer):
    return layer["class_name"] in OF_INPUTS or layer["class_name"].startswith("Random")  # augmentation


def _with_policy(part, policy):
    """A part of a config with that policy wherever it has a floating-point one; there may be models in it."""
    if isinstance(part, list):
        return [_with_policy(item, policy) for item in part]
    if not isinstance(part, dict):
        return part
    if part.get("class_name") == "DTypePolicy" and "float" in part["config"]["name"]:
        return policy
    if isinstance(part.get("config"), dict) and "layers" in part["config"]:
        return _in_policy(part, policy)
    return {key: _with_policy(item, policy) for key, item in part.items()}


def _with_layers(model, layers):
    return {**model, "config": {**model["config"], "layers": layers}}
