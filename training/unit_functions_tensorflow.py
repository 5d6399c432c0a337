"""Very deep networks on TensorFlow: a function of the step's graph for units that are alike, see `unit_functions`."""

import contextlib

import tensorflow as tf


def forward_by_units(pieces):
    """A function of the inputs that is `network(inputs, training=True)`, moving statistics included.

    Args:
        pieces: What `unit_functions.pieces` gives.
    """
    functions = {}
    for piece in pieces:
        if id(piece.model) not in functions:
            functions[id(piece.model)] = _function(piece.model)

    def forward(x):
        for piece in pieces:
            values = ([tf.convert_to_tensor(variable.value) for variable in part] for part in piece[1:])
            x, updated = functions[id(piece.model)](x, *values)
            for variable, value in zip(piece.others, updated, strict=True):
                variable.value.assign(value, read_value=False)
        return x

    return forward


def _function(model):
    # Not put back into the step's graph, or each of its calls would be optimised again.
    @tf.function(autograph=False, experimental_attributes={"_noinline": True})
    def function(x, trained, others):
        return model.stateless_call(trained, others, x, training=True)

    return function


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
