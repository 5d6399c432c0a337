"""Very deep residual networks in pieces: units that are alike are computed by one and the same function.

A network of a thousand layers has three kinds of units, each a hundred times.
Compiled layer by layer, its step takes minutes to trace and optimise; with a
function for each kind that is done once a kind. The layers and their weights
stay what they were.
"""

import re
import typing

import keras

UNIT = re.compile(r"(stage\d+_unit\d+)_")  # of the names that the residual families give their layers


class Piece(typing.NamedTuple):
    """A part of a network: `model` computes it, with these variables in place of its own.

    `trained` and `others` are in the order of the model's `trainable_variables`
    and `non_trainable_variables`.
    """

    model: keras.Model
    trained: list
    others: list


def units(network):
    """The layers of each residual unit, in order."""
    found = {}
    for layer in network.layers:
        if match := UNIT.match(layer.name):
            found.setdefault(match[1], []).append(layer)
    return list(found.values())


def pieces(network, together=1):
    """The stem, the residual units and the head, as `Piece`s; those that are alike have the same model.

    Args:
        network: A functional model; a chain of residual units between a stem
            and a head.
        together: Most units in a piece; they are alike.

    Returns:
        A list, or `None` where units have little in common (with stochastic
        depth each has a rate of its own) or are no chain: a unit takes more
        than what the one before it gives.
    """
    chain = units(network)
    starts = [chain[0][0].input, *(layers[-1].output for layers in chain)]
    kinds = [_kind(layers, start) for layers, start in zip(chain, starts, strict=False)]
    if None in kinds or len(set(kinds)) > len(kinds) // 2:
        return None
    first_of = {}
    found = [_piece(keras.Model(network.inputs[0], starts[0]), {})]
    for first, last in _runs(kinds, together):
        layers = sum(chain[first:last], [])
        kind = kinds[first], last - first
        if kind not in first_of:
            first_of[kind] = layers, keras.Model(starts[first], starts[last])
        like, model = first_of[kind]
        own = {
            id(variable): mine
            for layer, other in zip(like, layers, strict=True)
            for variable, mine in zip(layer.variables, other.variables, strict=True)
        }
        found.append(_piece(model, own))
    return [*found, _piece(keras.Model(starts[-1], network.outputs[0]), {})]


def _runs(kinds, most):
    """(first, one past the last) of runs of the same kind, of at most so many."""
    first = 0
    for place in range(1, len(kinds) + 1):
        if place == len(kinds) or kinds[place] != kinds[first] or place - first == most:
            yield first, place
            first = place


def _piece(model, own):
    trained, others = (
        [own.get(id(variable), variable) for variable in variables]
        for variables in (model.trainable_variables, model.non_trainable_variables)
    )
    return Piece(model, trained, others)


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
