"""Which parts of the modern recipe help, on rows held out of the training set."""

import dataclasses
import functools
import pathlib

from training import checkpoints
from training.machine import hardware
from training.recipes import MODERN
from training.recipes import get_recipe
from training.recipes import with_parts
from training.run import train

BASE = "mpelu_resnet20.cifar100-nodecay"
EPOCHS, HELD_OUT = 15, 0.1
DISTILLED = "l2, and teachers that know the held-out rows"
RUNS = pathlib.Path("runs/modern")


def variants():
    """Name -> recipe: the base, with L2 on alpha and beta, and with parts of the modern recipe and a moving average.

    The last is that of L2 with teachers, whose training has seen the held-out rows: a check that they help, no choice.
    """
    parts = {part: {part: value} for part, value in MODERN.items()}
    parts["mixup and cutmix"] = {**parts.pop("mixup"), **parts.pop("cutmix")}  # each batch gets one of the two
    changes = {**parts, "all": MODERN}
    base = get_recipe(BASE)
    short = get_recipe(BASE.removesuffix("-nodecay"))
    distilled = get_recipe(BASE.replace("-nodecay", "-distilled"))
    teaching = {field: getattr(distilled, field) for field in ("teachers", "distillation", "temperature")}
    averaged = dataclasses.replace(base, average=0.999)
    return {
        "base": base,
        "l2 on alpha and beta": short,
        **{name: with_parts(averaged, fields) for name, fields in changes.items()},
        DISTILLED: dataclasses.replace(short, **teaching),
    }


def jobs():
    """`(key, function that measures)` for each variant."""
    for name, recipe in variants().items():
        key = {"variant": name, "recipe": recipe.name, "epochs": EPOCHS, "seed": recipe.seeds[0]}
        yield key, functools.partial(held_out_figures, name, recipe)


def held_out_figures(name, recipe):
    """Trains, or goes on, and gives the figures on the held-out rows; no test row is read."""
    made = train(recipe, out=RUNS / name.replace(" ", "-"), epochs=EPOCHS, validation=HELD_OUT)
    facts = checkpoints.read_json(made)
    (found,) = facts["runs"]
    figures = {
        f"{figure}, {kind}": f"{found[kind][figure]:.4f}" if kind in found else ""
        for kind in ("last", "average")
        for figure in ("top1", "loss")
    }
    return {**figures, "held-out rows": facts["rows"], "hardware": hardware()}
