"""A zoo of Keras 3 networks with exponential linear units, with pretrained weights.

`import zoo` loads no backend; the first `create_model` or `load_model` does.
"""

import importlib

from zoo.registry import create_model
from zoo.registry import list_models
from zoo.registry import model_info

# The modules behind these are imported on first use.
_LAZY = {
    "Dataset": "zoo.datasets",
    "decode_predictions": "zoo.prediction",
    "encode_rows": "zoo.prediction",
    "evaluate": "zoo.evaluation",
    "list_datasets": "zoo.datasets",
    "load_dataset": "zoo.datasets",
    "load_model": "zoo.pretrained",
    "save_model": "zoo.saving",
}

__all__ = [
    "Dataset",
    "create_model",
    "decode_predictions",
    "encode_rows",
    "evaluate",
    "list_datasets",
    "list_models",
    "load_dataset",
    "load_model",
    "model_info",
    "save_model",
]


def __getattr__(name):
    if name == "deploy":  # the module: zoo.deploy.deploy(model)
        return importlib.import_module("zoo.deploy")
    if name not in _LAZY:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__():
    return sorted({*globals(), *__all__})
