"""Saving a model as a folder of weights (zoo/folders.py) that `zoo.load_model` takes."""

import contextlib
import json
import os
import pathlib
import shutil
import tempfile

import keras
import numpy as np

from keras_mpelu import OneHotColumns
from keras_mpelu.deep_graphs import deep_graphs
from zoo.card import example_shape
from zoo.card import short_card
from zoo.details import check_details
from zoo.folders import put_in_place
from zoo.folders import write_sums
from zoo.graphs import functional_model
from zoo.hub import NEEDED
from zoo.inference import run
from zoo.messages import words_of_keras
from zoo.safety import check_contents
from zoo.storage import store_compactly


def save_model(model, folder, details=None, card=None, files=None, overwrite=False):
    """Saves a model as a folder that `zoo.load_model` and plain Keras load.

    The folder appears complete or not at all. Kernels all of whose values
    float16 holds exactly lie in it as float16; no value changes. How the model
    was compiled and its optimizer's state are not kept: to go on with a `fit`
    later, keep Keras's own `model.save("NAME.keras")` too.

    Args:
        model: A functional or sequential `keras.Model` of one input and one
            output.
        folder: Folder to make.
        details: What to keep in `recipe.json`; `class_names` and
            `feature_names` are what `python -m zoo predict` prints and expects;
            `base_model` (a published name or `hf://` address), `license` and
            `results` go to the card.
        card: Text of `README.md`; a short one is made if `None`.
        files: `{name: bytes}` of further files.
        overwrite: Whether a model in that folder is replaced.

    Returns:
        The path of the folder.

    Raises:
        FileExistsError: the folder exists and `overwrite` is `False`, or it is
            a file or holds something else than a model.
        ValueError: the model is of another kind or does not run, could not be
            loaded again, or the details do not fit it.

    Example:

    >>> model = zoo.create_model("snn_mlp2", width=8)
    >>> folder = zoo.save_model(model, "my_model")
    >>> zoo.load_model("./my_model").count_params() == model.count_params()
    True
    """
    folder, details = pathlib.Path(folder), _as_json(details or {})
    if folder.exists() and not overwrite:
        raise FileExistsError(f"{folder} exists; give another folder, or delete it")
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file, which is never replaced by a folder; give another folder")
    if folder.exists() and any(folder.iterdir()) and not all((folder / file).is_file() for file in NEEDED):
        raise FileExistsError(f"{folder} holds something else than a model, which is never replaced; give another")
    model = _plain(model)
    check_details(details, "details", model)
    inputs = golden_inputs(model)
    outputs = run(model, inputs)
    if outputs.dtype.kind not in "biuf":  # bfloat16, which a file of NumPy does not know
        outputs = outputs.astype("float32")
    made = [parent for parent in folder.parents if not parent.exists()]
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = pathlib.Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        with deep_graphs():
            model.save(new, zipped=False)
        _fit_to_weights(new / "config.json")
        store_compactly(new / "model.weights.h5")
        try:
            check_contents(new)
        except Exception as error:  # Keras's words on whatever the model holds
            words = words_of_keras(error).replace(f"{new}{os.sep}", "")
            raise ValueError(
                f"{model.name} could not be loaded again: {words}. Nothing was saved; classes of your own are "
                "registered by keras.saving.register_keras_serializable()"
            ) from error
        np.savez_compressed(new / "golden.npz", inputs=inputs, outputs=outputs)
        (new / "recipe.json").write_text(json.dumps(details, indent=1) + "\n", encoding="utf-8")
        (new / "README.md").write_text(card or short_card(model, folder.name, details), encoding="utf-8")
        for file, content in (files or {}).items():
            (new / file).write_bytes(content)
        with contextlib.suppress(OSError):  # Keras's folder for assets, where it is empty
            (new / "assets").rmdir()
        write_sums(new)
        new.chmod(0o755)  # mkdtemp makes it private
        put_in_place(new, folder)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        with contextlib.suppress(OSError):  # where somebody else has put something
            for parent in made:
                parent.rmdir()
        raise
    return folder


def _fit_to_weights(path):
    """Makes a config fit what Keras saves: LoRA's matrices are in the kernels there, and inner models not compiled."""

    def fitting(part):
        if part.get("compile_config"):
            part["compile_config"] = {}
        if str(part.get("module")).startswith("keras.") and isinstance(part.get("config"), dict):
            for key in ("lora_rank", "lora_alpha"):
                part["config"].pop(key, None)
        return part

    fitted = json.loads(path.read_text(encoding="utf-8"), object_hook=fitting)
    path.write_text(json.dumps(fitted), encoding="utf-8")


def _as_json(details):
    """The details as recipe.json will give them back; NumPy's numbers and arrays become Python's."""

    def of_numpy(value):
        if isinstance(value, np.generic | np.ndarray):
            return value.tolist()
        raise TypeError(f"a {type(value).__name__}")

    try:
        return json.loads(json.dumps(details, default=of_numpy))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"details hold what JSON cannot ({error}); give texts, numbers, truth values, lists and dictionaries"
        ) from error


def _plain(model):
    """The model without compile state, as it is saved: its optimizer may be of a class that a reader does not have.

    Raises:
        ValueError: it is not a graph from one input to one output.
    """
    if not isinstance(model, keras.Model):
        raise ValueError(f"expected a keras.Model to save, received {type(model).__name__}")
    if not getattr(model, "inputs", None):  # Keras's own attribute; subclassed and unbuilt models lack it
        raise ValueError(
            f"{model.name!r} is a {type(model).__name__} without a graph, which could not be loaded without its code; "
            "make it by keras.Model(inputs, outputs), or begin a Sequential with keras.Input"
        )
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ValueError(
            f"{model.name!r} has {len(model.inputs)} inputs and {len(model.outputs)} outputs, expected one of each; "
            "Keras's model.save(folder, zipped=False) makes a folder that zoo.load_model loads, without card and sums"
        )
    return functional_model(model.inputs[0], model.outputs[0], model.name)


def golden_inputs(model):
    """Four inputs made by code: images of smooth gradients, codes in turn, or rows within two deviations of the means.

    As many as a batch has, where the model fixes that.

    Raises:
        ValueError: the model does not take numbers.
    """
    shape, dtype = (model.inputs[0].shape[0] or 4, *example_shape(model)), model.inputs[0].dtype
    count = int(np.prod(shape))
    if dtype in ("string", "complex64", "complex128"):
        raise ValueError(f"{model.name!r} takes inputs of dtype {dtype}, expected numbers")
    if len(shape) == 4 and dtype not in ("bool", "int8"):
        return (np.arange(count) * 7 // 5 % 256).astype("uint8").reshape(shape)
    whole = dtype == "bool" or dtype.startswith(("int", "uint"))
    if (codes := _codes(model)) or whole:
        return (np.arange(count) % (codes or 2)).astype(dtype if whole else "float32").reshape(shape)
    rows = 2 * np.sin(np.arange(count)).reshape(shape)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization) and getattr(layer, "mean", None) is not None:
            mean, variance = (keras.ops.convert_to_numpy(value) for value in (layer.mean, layer.variance))
            if mean.size == shape[-1]:
                rows = rows * np.sqrt(variance).reshape(-1) + mean.reshape(-1)
            elif any(isinstance(layer, OneHotColumns) for layer in model.layers):
                rows = _golden_codes(model, rows, mean, np.sqrt(variance))
    return rows.astype("float32")


def _codes(model):
    """How many codes all embeddings of a model know; `None` where it has none."""
    layers, known = list(model.layers), []
    for layer in layers:
        if isinstance(layer, keras.Model):
            layers += layer.layers
        elif isinstance(layer, keras.layers.Embedding):
            known.append(layer.input_dim)
        elif isinstance(layer, keras.layers.CategoryEncoding):
            known.append(layer.num_tokens)
    return min(known, default=None)


def _golden_codes(model, rows, mean, deviation):
    sizes = next(layer.sizes for layer in model.layers if isinstance(layer, OneHotColumns))
    place = 0
    for column, size in enumerate(sizes):
        if size:
            rows[:, column] = np.arange(len(rows)) % size
        else:
            rows[:, column] = rows[:, column] * deviation.flat[place] + mean.flat[place]
        place += max(size, 1)
    return rows
