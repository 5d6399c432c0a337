"""Makes `index.json`: what `list`, `info` and the README's table read without a backend."""

import importlib
import json
import re

import keras
import numpy as np

from zoo.activations import SOURCES
from zoo.folders import sha256
from zoo.hub import SUMS
from zoo.registry import BUNDLED
from zoo.registry import FAMILIES
from zoo.registry import INDEX
from zoo.registry import architectures
from zoo.registry import create_model
from zoo.registry import published_weights
from zoo.registry import read_index

# What is published but not bundled: its small files stay in the repository, beside the results.
WAITING = INDEX.parent.parent / "results" / "hub"


def natural_order(name):
    """Sorting key that puts resnet20 before resnet110."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def multiply_accumulates(model):
    """Multiply-accumulates of the convolutions and dense layers, for one input."""
    return sum(map(_multiply_accumulates, model.layers))


def _multiply_accumulates(layer):
    layer = getattr(layer, "layer", layer)  # of a wrapper such as WeightNormalization
    if isinstance(layer, keras.layers.Conv2D):
        return int(np.prod(layer.output.shape[1:3])) * int(np.prod(layer.kernel.shape))
    return int(np.prod(layer.kernel.shape)) if isinstance(layer, keras.layers.Dense) else 0


def trainable_parameters(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def per_class(model):
    """Parameters and multiply-accumulates that each class adds: the classifier's share, which has no others."""
    classifier = [layer for layer in model.layers if layer.name.startswith("classifier")]
    return {
        "parameters": sum(map(trainable_parameters, classifier)) // model.output_shape[-1],
        "macs": sum(map(_multiply_accumulates, classifier)) // model.output_shape[-1],
    }


def make_index(models_only=False):
    """Builds every architecture and reads every folder of weights.

    Args:
        models_only: Whether to keep what the index has of the architectures,
            and build none; it takes a second instead of minutes.

    Returns:
        The dictionary that `index.json` holds.
    """
    found = read_index()["architectures"] if models_only else _architectures()
    index = {"architectures": _with_paper_figures(found), "models": {}}
    for name in sorted(published_weights(), key=natural_order):
        bundled = BUNDLED / name
        index["models"][name] = model_entry(bundled if bundled.is_dir() else WAITING / name)
    return index


def _architectures():
    found = {}
    for arch in sorted(architectures(), key=natural_order):
        model = create_model(arch)
        found[arch] = {
            "family": architectures()[arch][2],
            "parameters": trainable_parameters(model),
            "macs": multiply_accumulates(model),
            "per_class": per_class(model),
            "input_shape": list(model.input_shape[1:]),
            "num_classes": model.output_shape[-1],
        }
        keras.utils.clear_session()
    return found


def _with_paper_figures(found):
    """The rows of the architectures, with the sources and the figures that the families' files have now."""
    modules = {family: importlib.import_module(f"zoo.{family}") for family in FAMILIES}
    found = {
        arch: {
            **{key: value for key, value in row.items() if key != "paper"},
            "sources": list(dict.fromkeys([modules[row["family"]].SOURCE, *_source_of_units(arch)])),
        }
        for arch, row in found.items()
    }
    for module in modules.values():
        for name, accuracy in module.PAPER.items():
            found[name.partition(".")[0]].setdefault("paper", {})[name.partition(".")[2]] = accuracy
    return found


def _source_of_units(arch):
    """Where the activation comes from by which an architecture's name begins, as a list of one or none."""
    return [source for unit, source in SOURCES.items() if arch.startswith(unit)]


def model_entry(folder):
    """The row of one folder of weights."""
    details = json.loads((folder / "recipe.json").read_text())
    return {
        **{key: value for key, value in details["results"].items() if key != "top1_by_superclass"},  # the card has it
        **({"command": details["command"]} if "command" in details else {}),  # where it takes more than the name
        **({"input_shape": [len(details["feature_names"])]} if details["feature_names"] else {}),  # of tables
        "num_classes": len(details["class_names"]),
        "size_bytes": sum(path.stat().st_size for path in folder.iterdir()),
        "licence": "Apache-2.0",
        "sums": sha256(folder / SUMS),
    }


def write_index(models_only=False):
    """Writes `index.json` beside the registry."""
    INDEX.write_text(json.dumps(make_index(models_only), indent=1) + "\n")
    read_index.cache_clear()
    return INDEX
