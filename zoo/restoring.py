"""A model and its weights from a folder, by the shortest way.

`keras.saving.load_model` draws initial weights for every layer, looks through
all attributes of every layer for parts with weights of their own, and copies
weight after weight: most of the time that a network of 1001 layers takes to load.
Here the model is made from shapes alone, as it is for the checks of foreign
folders, and each variable is created with the value that the file has for it.
Only models whose layers have no parts but states of random numbers are read so;
Keras itself reads all others.
"""

import json
import re

import h5py
import keras

import keras_mpelu  # noqa: F401  its layers, which the folders name, are registered
from keras_mpelu.deep_graphs import deep_graphs
from zoo.adaptation import Unadaptable
from zoo.adaptation import adapted
from zoo.graphs import without_collection
from zoo.safety import check_contents
from zoo.safety import model_without_values
from zoo.safety import uncompiled


def read_model(folder, known, input_shape=None, dtype=None):
    """The model of a folder in Keras's directory format, not compiled.

    Args:
        folder: The folder.
        known: Whether the files are known to the byte; others are checked first.
        input_shape, dtype: Images and layers where they are not the stored ones.

    Raises:
        Refused: see `zoo.safety.check_contents`.
        Unadaptable: see `zoo.adaptation.adapted`.
        Exception: what Keras says of files that make no model.
    """
    as_stored = input_shape is None and dtype is None

    def change(config):
        return config if as_stored else adapted(config, input_shape, dtype)

    with deep_graphs(), without_collection():
        if known:
            model = model_without_values(change(_config(folder)))
        else:
            model = check_contents(folder, change)
        if _give_values(model, folder):
            return model
        if as_stored:
            return keras.saving.load_model(folder, compile=False, safe_mode=True)
        if any((folder / "assets").glob("*")):
            raise Unadaptable(f"{folder} has vocabularies beside its weights; load it without input_shape and dtype")
        model = keras.saving.deserialize_keras_object(uncompiled(change(_config(folder))), safe_mode=True)
        model.load_weights(folder / "model.weights.h5")
        return model


def _config(folder):
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))


def _give_values(model, folder):
    """Creates the variables of a model without values; whether the file has exactly its variables."""
    if (folder / "assets").exists():  # vocabularies and the like
        return False
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if tf.distribute.has_strategy():  # of which the model knows that was built in its scope, and so in this thread
            return False
    stored = _stored(folder / "model.weights.h5")
    if stored is None:
        return False
    # Here a layer's assignments go to the scope, for its variables do not exist yet.
    with keras.StatelessScope(initialize_variables=False) as scope:
        try:
            for name, layer in _stored_names(model.layers):
                layer.load_own_variables(stored.pop(name, {}))
        except (KeyError, ValueError):  # Keras says what is wrong, in its own words
            return False
    values = [(variable, scope.get_current_value(variable)) for variable in model.variables]
    # States of random numbers are not stored: a dropout begins anew.
    if stored or any(value is None and variable.name != "seed_generator_state" for variable, value in values):
        return False
    for variable, value in values:
        # Keras has no public names for these: what it calls on every backend with the initial value of any variable,
        # and without one for the variable's own.
        variable._deferred_initialize() if value is None else variable._initialize(value)
    if keras.backend.backend() == "torch":
        for part in (*model.layers, model):
            part.torch_params  # noqa: B018  on reading, the variables become parameters of the torch module
    return True


def _stored(path):
    """What a weights file of Keras holds for each layer, `{layer: {place: array}}`; `None` if more than arrays."""
    stored, strange = {}, []

    def collect(name, item):
        if isinstance(item, h5py.Dataset):
            layer, _, place = name.rpartition("/vars/")
            stored.setdefault(layer, {})[place] = item[()]
            if item.dtype.kind == "V":  # bfloat16, which h5py does not know
                strange.append(name)

    with h5py.File(path, "r") as file:
        if "layers" not in file:
            return None
        file["layers"].visititems(collect)
    return None if strange else stored


def _stored_names(layers):
    """`(name in the weights file, layer)`: there a layer is called by its class and its number among its like."""
    counts = {}
    for layer in layers:
        words = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", type(layer).__name__))
        name = re.sub(r"([a-z])([A-Z])", r"\1_\2", words).lower()
        count = counts[name] = counts.get(name, -1) + 1
        yield (f"{name}_{count}" if count else name), layer
