"""The head of a model: what its outputs are, and another one in its place.

Anyone's model may be asked: one that ends in a softmax, in logits, in a sigmoid,
in a number, or in a model of its own.
"""

import sys

import keras
import numpy as np

from zoo.graphs import functional_model
from zoo.graphs import one_or_all
from zoo.options import check_integer

OWN = "the model's own"  # default of classifier_activation
OF_ONE_CLASS = ("softmax", "linear", None)  # last activations of models whose classes exclude each other
KEEPS_LOGITS = (  # layers behind which logits still are logits
    keras.layers.Dropout,
    keras.layers.Flatten,
    keras.layers.GlobalAveragePooling1D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.Rescaling,
    keras.layers.Reshape,
)


def predicts_number(model):
    """Whether the output is one number that is brought to its scale at the end, as `training.finetune` makes it."""
    return isinstance(last_operation(model), keras.layers.Rescaling) and model.output_shape[1:] == (1,)


def last_operation(model, through=()):
    """The layer or operation that a model's output is from, be it in a model within the model.

    Args:
        model: The model.
        through: Layers of one input that are looked through.
    """
    operations = getattr(model, "operations", model.layers)  # a Sequential has layers alone
    last = next((one for one in reversed(operations) if not isinstance(one, through)), operations[0])
    inner = isinstance(last, keras.Model) and len(getattr(last, "outputs", None) or ()) == 1
    return last_operation(last, through) if inner else last


def activation_of(operation):
    """Name of the activation of a layer, or `None`."""
    activation = getattr(operation, "activation", None)
    return getattr(activation, "__name__", activation)


def ends_in_softmax(model):
    """Whether the outputs are known to be probabilities."""
    last = last_operation(model)
    # keras.ops.softmax in a graph is an operation of that name, which Keras has no public class for.
    return type(last).__name__ == "Softmax" or activation_of(last) == "softmax"


def ends_in_logits(model):
    """Whether the outputs are known to be what a softmax takes: linear ones of a kernel, or called linear."""
    last = last_operation(model, through=KEEPS_LOGITS)
    return activation_of(last) == "linear" and (hasattr(last, "kernel") or isinstance(last, keras.layers.Activation))


def gives_probabilities(model, outputs):
    """Whether outputs of a model are probabilities of classes, else logits; where its graph does not tell, they do."""
    if ends_in_softmax(model) or ends_in_logits(model):
        return ends_in_softmax(model)
    return sum_to_one(outputs)  # such as the mean of several networks' probabilities


def sum_to_one(outputs):
    """Whether every row is of numbers from 0 that sum to 1, to the digits of bfloat16."""
    return bool((outputs >= 0).all() and np.allclose(outputs.astype("float64").sum(axis=-1), 1, atol=1e-2))


def check_classifier(model):
    """Raises ValueError unless the outputs may be the probabilities or the logits of two or more classes."""
    activation = activation_of(last_operation(model))
    shape = model.output_shape
    of_classes = isinstance(shape, tuple) and len(shape) == 2 and shape[-1] >= 2
    if not of_classes or activation not in OF_ONE_CLASS:
        raise ValueError(
            f"{model.name} has outputs of shape {shape} from activation {activation}; expected softmax or logits of "
            "two or more classes, (batch, classes); predict with model.predict, and compile it for its own loss"
        )


def with_logits(model):
    """The model without the softmax of its last layer; any other as it is, one that ends in a Softmax layer too."""
    last = last_operation(model)
    if activation_of(last) == "softmax" and last is model.layers[-1] and _head_start(model) is not None:
        return with_head(model, None, None)
    return model


def _head_start(model):
    """Index of the first layer of the classifier, or `None`: a Dense at the end, else the layer of that name."""
    if isinstance(model.layers[-1], keras.layers.Dense):
        return len(model.layers) - 1
    return next((index for index, layer in enumerate(model.layers) if layer.name == "classifier"), None)


def head_layers(model):
    """The layers of the classifier, in order: one Dense, or in Network in Network a convolution and what follows it.

    Raises:
        ValueError: the model has no such head.
    """
    start = _head_start(model)
    if start is None:
        last = model.layers[-1]
        raise ValueError(
            f"model {model.name!r} ends in a {type(last).__name__} layer {last.name!r}, not in a Dense classifier; "
            "load it without num_classes, classifier_activation or features"
        )
    return model.layers[start:]


def without_head(model):
    """The model up to its pooled features."""
    outputs = head_layers(model)[0].input
    if len(outputs.shape) == 4:  # a network that classifies a map before it pools it
        outputs = keras.layers.GlobalAveragePooling2D("channels_last", name="features")(outputs)
    return functional_model(one_or_all(model.inputs), outputs, f"{model.name}_features")


def with_head(model, num_classes, classifier_activation):
    """The model with the asked head: its own, or a new one for other classes or another activation."""
    if classifier_activation != OWN:
        try:
            keras.activations.get(classifier_activation)
        except (TypeError, ValueError):
            raise ValueError(
                "classifier_activation is 'softmax', None for logits, or another activation of Keras, such as "
                f"'sigmoid'; received {classifier_activation!r}"
            ) from None
    if num_classes is None and classifier_activation == OWN:
        return model
    if predicts_number(model):
        raise ValueError(
            f"model {model.name!r} predicts a number, so it has no classes; load it without num_classes and "
            "classifier_activation"
        )
    head = head_layers(model)
    own_classes = model.output_shape[-1]
    if num_classes is None:
        num_classes = own_classes
    check_integer("num_classes", num_classes)
    num_classes = int(num_classes)  # NumPy's integers are none to Keras
    softmax = classifier_activation == "softmax" or (classifier_activation == OWN and ends_in_softmax(model))
    if num_classes == 1 and softmax:
        raise ValueError(
            "num_classes=1 with a softmax has the output 1 for everything; give classifier_activation='sigmoid' for "
            "two classes, or None for a number"
        )
    outputs = head[0].input
    new = []
    for layer in head:
        config = layer.get_config()
        config.update({size: num_classes for size in ("units", "filters") if size in config})
        if layer is head[-1] and classifier_activation != OWN:
            if "activation" not in config:
                raise ValueError(
                    f"model {model.name!r} ends in a {type(layer).__name__} layer {layer.name!r}, which has no "
                    "activation to replace; load it without classifier_activation"
                )
            config["activation"] = keras.activations.serialize(keras.activations.get(classifier_activation))
        new_layer = type(layer).from_config(config)
        outputs = new_layer(outputs)
        if num_classes == own_classes:
            new_layer.set_weights(layer.get_weights())
        new += new_layer.weights
    if num_classes != own_classes:
        names = ", ".join(f"{w.path} {tuple(w.shape)}" for w in new)
        kept = len(model.weights) - len(new)
        print(f"{model.name}: new head for {num_classes} classes; new weights: {names}; {kept} kept", file=sys.stderr)
    return functional_model(one_or_all(model.inputs), outputs, model.name)
