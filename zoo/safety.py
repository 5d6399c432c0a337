"""What a folder of weights may make Keras do, checked before Keras sees it.

Keras's safe mode runs no code from a file, but it allocates whatever
config.json asks for. Here the sizes are held to what model.weights.h5 really
holds, and classes to those that Keras has or that were registered.
"""

import collections
import concurrent.futures
import contextlib
import functools
import importlib
import json
import math
import threading

import h5py
import keras

from keras_mpelu.deep_graphs import deep_graphs

SMALL = 2**20  # sizes up to this are harmless whatever the file holds
SMALL_METRIC = 2**12  # likewise in a metric, some of which keep a square of their classes
LONGEST_CONFIG = 2**26  # bytes; that of nopre-1001, some 3,000 layers, has 2**22
NOT_SIZES = {"seed", "shared_object_id", "mask_value", "value", "vocabulary"}  # keys of integers of other meaning
KERAS = {"keras", "keras_hub"}  # packages whose classes Keras itself looks up
# Where Keras's functions may come from; it would also take the like of keras.utils.set_random_seed.
FUNCTIONS = {"activations", "constraints", "initializers", "losses", "ops", "regularizers"}
STACK = 2**26  # bytes for the thread that builds a graph; some systems give a thread half a megabyte
# Classes that carry or fetch code, which safe mode refuses too, each in its own words.
CODE = {"Lambda", "__lambda__", "__typespec__", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"}


class Refused(ValueError):
    """The folder asks for something that it must not have."""


def check_contents(folder, change=lambda config: config):
    """Checks config.json and model.weights.h5 against each other; allocates nothing of a model's size.

    Args:
        folder: The folder.
        change: Makes of the checked config another one (`zoo.adaptation`),
            which is held to the weights in its place.

    Returns:
        The model of the config, whose variables have no values.

    Raises:
        Refused: code, an unknown class, a size beyond the file's, or another
            shape than the file's.
        Exception: what Keras says of a config that makes no model.
    """
    config_path, weights_path = folder / "config.json", folder / "model.weights.h5"
    if config_path.stat().st_size > LONGEST_CONFIG:
        raise Refused(f"{config_path} has {config_path.stat().st_size} bytes, expected at most {LONGEST_CONFIG}")
    config = json.loads(config_path.read_text(encoding="utf-8"))
    if not isinstance(config, dict):
        raise Refused(f"{config_path} is no model: expected an object, received {type(config).__name__}")
    config.pop("compile_config", None)  # never used: models are compiled here
    held = held_shapes(weights_path)
    custom = check_config(config, max(SMALL, sum(map(math.prod, held))), config_path)
    model = model_without_values(change(config), custom)
    if not isinstance(model, keras.Model) or not model.layers:
        raise Refused(
            f"{config_path} describes no model with layers, but a {type(model).__name__}; expected a keras.Model"
        )
    counts = collections.Counter(held)
    for weight in model.weights:
        shape = tuple(weight.shape)
        if not counts[shape]:
            raise Refused(
                f"{config_path} asks for the weight {weight.path} of shape {shape}, which {weights_path.name} does not "
                "hold; the two files are not of one model"
            )
        counts[shape] -= 1
    return model


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
                if not isinstance(item, h5py.Dataset) or item.dtype.kind not in "biufV":  # V: bfloat16, as two bytes
                    raise Refused(f"{path} has {item.name}, which is no array of numbers; do not use this model")
                shapes.append(item.shape or ())
                size -= math.prod(shapes[-1]) * item.dtype.itemsize
                plain = item.id.get_offset() is not None  # lies in this file in one piece: half the work for most
                if not plain and (item.external or item.is_virtual):
                    raise Refused(f"{path} keeps the array {item.name} in another file; do not use this model")
                chunks = None if plain else item.chunks
                # A chunk may be larger than its array, and is unpacked whole.
                if size < 0 or math.prod(chunks or ()) * item.dtype.itemsize > path.stat().st_size:
                    raise Refused(
                        f"{path} says that {item.name} has shape {item.shape}"
                        + (f" in chunks of {chunks}" if chunks else "")
                        + ", too much for this file; fetch it again"
                    )
    return shapes


def check_config(config, largest, path):
    """Raises Refused where a config holds code, an unknown class or too large a number.

    Returns:
        The registered objects that it names, `{name: object}`.
    """
    waiting, custom = [(None, config, largest)], {}
    while waiting:
        key, value, most = waiting.pop()
        if isinstance(value, dict):
            if isinstance(value.get("class_name"), str):
                _check_class(value, path)
                most = min(most, SMALL_METRIC) if "metrics" in str(value.get("module")).split(".") else most
            waiting += [(key, item, most) for key, item in value.items()]
        elif isinstance(value, list):
            waiting += [(key, item, most) for item in value]
        elif isinstance(value, int) and abs(value) > most and key not in NOT_SIZES:
            raise Refused(f"{path} has {key} = {value}, more than model.weights.h5 can hold; do not use this model")
        elif isinstance(value, str) and (found := keras.saving.get_registered_object(value)) is not None:
            custom[value] = found
    return custom


def _check_class(entry, path):
    name, module, registered = entry["class_name"], entry.get("module"), entry.get("registered_name")
    package, _, inside = str(module).partition(".")
    of_keras = module in (None, "builtins") or package in KERAS
    if "." in name:  # Keras would look for a path below the module
        raise Refused(f"{path} names the class {name[:80]!r}, expected a name without a dot; do not use this model")
    if name in CODE and of_keras:
        raise Refused(f"{path} holds a {name}, which would run code from the file; that is never allowed")
    if name in ("__numpy__", "__tensor__"):
        _check_array(entry, path)
    if name == "function":
        registered = entry.get("config")  # that is where Keras looks for its name
        if package in KERAS and (inside.partition(".")[0] not in FUNCTIONS or "." in str(registered)):
            raise Refused(f"{path} names the function {registered!r} of {module}, which is no part of a model")
    custom = keras.saving.get_registered_object(registered) if isinstance(registered, str) else None
    if custom is None and not of_keras:
        raise Refused(
            f"{path} names the class {registered or name!r} of {module}, which is not registered; import the package "
            "that defines it, then load again (`import keras_mpelu` for the layers of keras-mpelu)"
        )
    if name != "function" and (custom is not None or package in KERAS):
        _check_kind(custom or _of_keras(module, name), name, module, path)


def _of_keras(module, name):
    """What Keras's own module has by a name; `None` where there is no such module, or not here."""
    try:
        return vars(importlib.import_module(module)).get(name)
    except Exception:  # a module of another backend's may fail in any way
        return None


def _check_kind(found, name, module, path):
    """Keras calls `from_config` of a class and returns anything else as it is, to be called later with any argument."""
    if not (isinstance(found, type) and issubclass(found, _kinds())):
        what = f"is a {type(found).__name__}" if found is not None else "Keras does not have here"
        raise Refused(f"{path} names the class {name!r} of {module}, which {what}; expected a part of a model")


@functools.cache
def _kinds():
    """Classes whose like a config may name."""
    return (
        keras.Operation,  # layers and models too
        keras.Loss,
        keras.Metric,
        keras.Optimizer,
        keras.Initializer,
        keras.Regularizer,
        keras.DTypePolicy,
        keras.Quantizer,
        keras.constraints.Constraint,
        keras.optimizers.schedules.LearningRateSchedule,
        keras.quantizers.QuantizationConfig,
        keras.random.SeedGenerator,
    )


def _check_array(entry, path):
    """An array in a config has the numbers written out; a type of text may ask for a gigabyte for each."""
    asked = entry["config"].get("dtype") if isinstance(entry.get("config"), dict) else None
    try:
        keras.backend.standardize_dtype(asked)
    except (TypeError, ValueError):
        raise Refused(f"{path} has an array of the type {str(asked)[:40]!r}, expected one of numbers") from None


_one_at_a_time = threading.Lock()


def model_without_values(config, custom=None):
    """The model that a config describes, not compiled, from shapes alone: its variables have no values.

    In a thread of its own: Keras lists the variables that it has not given
    values yet by thread, and would give them when a later scope ends. A
    `keras.RematScope` of the caller, which is by thread too, holds there.
    """
    remat = getattr(keras.layers.Identity(name="probe"), "_remat_mode", None)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with _one_at_a_time:  # the size of a stack is set for all threads that begin
            before = threading.stack_size(STACK)
            try:
                model = pool.submit(_in_this_thread, uncompiled(config), custom, remat)
            finally:
                threading.stack_size(before)
        return model.result()


def _in_this_thread(config, custom, remat):
    with (
        keras.RematScope(*remat) if remat else contextlib.nullcontext(),
        deep_graphs(),
        keras.saving.custom_object_scope(custom or {}),  # those of the calling thread
        keras.StatelessScope(initialize_variables=False),
    ):
        return keras.saving.deserialize_keras_object(config, safe_mode=True)


def uncompiled(value):
    """A config without the optimizers of the models in it, which cannot be made from shapes alone."""
    if isinstance(value, dict):
        return {key: uncompiled(item) for key, item in value.items() if key != "compile_config"}
    return [uncompiled(item) for item in value] if isinstance(value, list) else value
