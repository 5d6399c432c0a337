"""Very deep residual networks on TensorFlow: units that are alike share one function of the graph.

A network of a thousand layers has three kinds of units, each a hundred times.
Traced layer by layer it makes a graph whose making, differentiation and
optimisation take minutes. Here a unit of each kind is traced, differentiated
and optimised once, as a function of its input and its weights. The layers and
their weights stay what they were.
"""

import contextlib
import re

import keras
import tensorflow as tf

UNIT = re.compile(r"(stage\d+_unit\d+)_")  # of the names that the residual families give their layers


def units(network):
    """The layers of each residual unit, in order."""
    found = {}
    for layer in network.layers:
        if match := UNIT.match(layer.name):
            found.setdefault(match[1], []).append(layer)
    return list(found.values())


def with_shared_units(network):
    """A function of the inputs that is `network(inputs, training=True)`, moving statistics included.

    Args:
        network: A functional model; a chain of residual units between a stem
            and a head.

    Returns:
        The function, or `None` where units have little in common (with
        stochastic depth each has a rate of its own) or are no chain: a unit
        takes more than what the one before it gives.
    """
    chain = units(network)
    ends = [layers[-1].output for layers in chain]
    starts = [chain[0][0].input, *ends[:-1]]
    kinds = [_kind(layers, start) for layers, start in zip(chain, starts, strict=True)]
    if None in kinds or len(set(kinds)) > len(kinds) // 2:
        return None
    stem, head = keras.Model(network.inputs[0], starts[0]), keras.Model(ends[-1], network.outputs[0])
    templates = {}
    calls = []
    for layers, kind, start, end in zip(chain, kinds, starts, ends, strict=True):
        if kind not in templates:
            unit = keras.Model(start, end)
            templates[kind] = layers, unit, _function(unit)
        calls.append(_bound(*templates[kind], layers))

    def forward(inputs):
        x = stem(inputs, training=True)
        for call in calls:
            x = call(x)
        return head(x, training=True)

    return forward


def _kind(layers, start):
    """What units have in common that may share a function: all but names and the values of weights."""
    numbers = {id(start): -1, **{id(layer.output): number for number, layer in enumerate(layers)}}
    if any(id(tensor) not in numbers for layer in layers for tensor in keras.tree.flatten(layer.input)):
        return None
    return repr(
        [
            (
                type(layer).__name__,
                {key: value for key, value in layer.get_config().items() if key != "name"},
                [tuple(variable.shape) for variable in layer.variables],
                [numbers[id(tensor)] for tensor in keras.tree.flatten(layer.input)],
            )
            for layer in layers
        ]
    )


def _function(unit):
    # Not put back into the step's graph, or each of its calls would be optimised again.
    @tf.function(autograph=False, experimental_attributes={"_noinline": True})
    def function(x, trained, others):
        return unit.stateless_call(trained, others, x, training=True)

    return function


def _bound(template, unit, function, layers):
    """The function of a kind with one unit's own variables."""
    own = {
        id(variable): mine
        for layer, other in zip(template, layers, strict=True)
        for variable, mine in zip(layer.variables, other.variables, strict=True)
    }
    trained = [own[id(variable)] for variable in unit.trainable_variables]
    others = [own[id(variable)] for variable in unit.non_trainable_variables]

    def call(x):
        outputs, updated = function(x, *([tf.convert_to_tensor(v.value) for v in part] for part in (trained, others)))
        for variable, value in zip(others, updated, strict=True):
            variable.value.assign(value, read_value=False)
        return outputs

    return call


@contextlib.contextmanager
def one_function_for_all_calls():
    """Keeps TensorFlow from making a copy of a function for each of its calls, which it then optimises one by one.

    TensorFlow has this option for the process only: other graphs that are first run meanwhile have it too.
    """
    before = tf.config.optimizer.get_experimental_options().get("function_optimization", True)
    tf.config.optimizer.set_experimental_options({"function_optimization": False})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({"function_optimization": before})
