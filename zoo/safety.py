"""What a folder of weights may make Keras do, checked before Keras sees it.

Keras's safe mode runs no code from a file, but it allocates whatever
config.json asks for. Here the sizes are held to what model.weights.h5 really
holds, and classes to those that Keras has or that were registered.
"""

import collections
import json
import math

import h5py
import keras

SMALL = 2**20  # sizes up to this are harmless whatever the file holds
NOT_SIZES = {"seed", "shared_object_id", "mask_value", "value", "vocabulary"}  # keys of integers of other meaning
KERAS = {"keras", "keras_hub"}  # packages whose classes Keras itself looks up
# Classes that carry or fetch code, which safe mode refuses too, each in its own words.
CODE = {"Lambda", "__lambda__", "__typespec__", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"}


class Refused(ValueError):
    """The folder asks for something that it must not have."""


def check_contents(folder):
    """Checks config.json and model.weights.h5 against each other; allocates nothing of a model's size.

    Raises:
        Refused: code, an unknown class, a size beyond the file's, or another
            shape than the file's.
    """
    config_path, weights_path = folder / "config.json", folder / "model.weights.h5"
    config = json.loads(config_path.read_text(encoding="utf-8"))
    if not isinstance(config, dict):
        raise Refused(f"{config_path} is no model: expected an object, received {type(config).__name__}")
    config.pop("compile_config", None)  # never used: models are compiled here
    held = held_shapes(weights_path)
    check_config(config, max(SMALL, sum(map(math.prod, held))), config_path)
    for path, shape in _missing(config, held):
        raise Refused(
            f"{config_path} asks for the weight {path} of shape {shape}, which {weights_path.name} does not hold; the "
            "two files are not of one model"
        )


def held_shapes(path):
    """Shapes of all arrays in an h5 file, from its headers alone.

    Raises:
        Refused: an array is larger than the file, or lies outside of it.
    """
    size, shapes, seen = path.stat().st_size, [], set()
    with h5py.File(path, "r") as file:
        groups = [file["/"]]
        while groups:
            group = groups.pop()
            address = h5py.h5o.get_info(group.id).addr
            if address in seen:
                continue
            seen.add(address)
            for name in group:
                if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                    raise Refused(f"{path} has a link {group.name}/{name} that leads elsewhere; do not use this model")
                item = group[name]
                if isinstance(item, h5py.Group):
                    groups.append(item)
                    continue
                if item.external or item.is_virtual:
                    raise Refused(f"{path} keeps the array {item.name} in another file; do not use this model")
                shapes.append(item.shape or ())
                size -= math.prod(shapes[-1]) * item.dtype.itemsize
                if size < 0:
                    raise Refused(
                        f"{path} says that {item.name} has shape {item.shape}, too much for this file; fetch it again"
                    )
    return shapes


def check_config(config, largest, path):
    """Raises Refused where a config holds code, an unknown class or too large a number."""
    waiting = [(None, config)]
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, dict):
            if isinstance(value.get("class_name"), str):
                _check_class(value, path)
            waiting += [item for item in value.items() if item[0] not in NOT_SIZES]
        elif isinstance(value, list):
            waiting += [(key, item) for item in value]
        elif isinstance(value, int) and abs(value) > largest:
            raise Refused(
                f"{path} has {key} = {value}, more than model.weights.h5 can hold ({largest}); do not use this model"
            )


def _check_class(entry, path):
    name, module, registered = entry["class_name"], entry.get("module"), entry.get("registered_name")
    if name in CODE and (module is None or str(module).partition(".")[0] in KERAS):
        raise Refused(f"{path} holds a {name}, which would run code from the file; that is never allowed")
    if module in (None, "builtins") or str(module).partition(".")[0] in KERAS:
        return  # left to Keras, which looks among its own
    if keras.saving.get_registered_object(registered) is None:
        raise Refused(
            f"{path} names the class {registered or name!r} of {module}, which is not registered; import the package "
            "that defines it, then load again (`import keras_mpelu` for the layers of keras-mpelu)"
        )


def _missing(config, held):
    """(path, shape) of the weights that a config asks for and a file does not hold."""
    # In this scope Keras makes variables without values: shapes only.
    with keras.StatelessScope(initialize_variables=False):
        model = keras.saving.deserialize_keras_object(config, safe_mode=True)
    counts = collections.Counter(held)
    for weight in model.weights:
        shape = tuple(weight.shape)
        if not counts[shape]:
            yield weight.path, shape
        counts[shape] -= 1
