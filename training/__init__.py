"""Recipes and the loop that turn architectures into published weights."""

import importlib

from training.recipes import Recipe
from training.recipes import get_recipe

_LAZY = {"CoupledSGD": "training.optimizer", "publish": "training.publishing", "train": "training.run"}

__all__ = ["CoupledSGD", "Recipe", "get_recipe", "publish", "train"]


def __getattr__(name):
    if name not in _LAZY:
        raise AttributeError(f"module 'training' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
