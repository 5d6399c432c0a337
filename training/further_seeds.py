"""Further seeds of a finished folder: its weights stay, its card gives the spread."""

import dataclasses
import pathlib

from training.card import is_of_a_recipe
from training.card import rewrite
from training.checkpoints import read_json
from training.distillation import differing_teachers
from training.own_data import check_writable
from training.recipes import differences
from training.recipes import stored_seeds
from zoo.evaluation import check_same_data
from zoo.folders import check_folder


def check_addable(folder, recipe, seeds, dataset):
    """Refuses seeds that cannot be added to the folder, before they are trained.

    Raises:
        OSError: there is no such folder, or nothing can be written beside it.
        ValueError: the folder is damaged, of another training or other data, or
            has one of the seeds.
    """
    folder = pathlib.Path(folder).resolve()
    if not (folder / "recipe.json").exists():
        raise FileNotFoundError(
            f"{folder} has no recipe.json; seeds are added to a folder that `python -m training train` made"
        )
    check_folder(folder)
    check_writable(folder.parent)
    facts = read_json(folder / "recipe.json")
    if (
        not is_of_a_recipe(facts)
        or "name" not in facts["recipe"]
        or not {"seeds", "top1_by_seed"} <= set(facts.get("results", {}))
    ):
        raise ValueError(f"{folder} is not of `python -m training train` on a data set with a name")
    if words := differences(facts["recipe"], dataclasses.asdict(recipe), also=("publish",)):
        raise ValueError(f"{folder} is of another training: {words}; give its own name and options")
    if other := differing_teachers(facts, recipe):
        raise ValueError(f"{folder} was taught by other weights of {', '.join(other)}; train it anew")
    check_same_data(facts, dataset)
    if twice := [seed for seed in seeds if seed in stored_seeds(facts)]:
        raise ValueError(f"{folder} has the seeds {stored_seeds(facts)}; give others by --seeds than {twice}")


def add(folder, seeds, top1_by_seed, **how):
    """Adds the figures of further seeds to a finished folder.

    Args:
        folder: A folder as `training.run.train` makes it.
        seeds: The further seeds.
        top1_by_seed: Top-1 on the test rows of each.
        how: How they were trained, for the card: `minutes`, `hardware`,
            `versions` and `command`.

    Returns:
        The path of the folder.
    """
    details = read_json(pathlib.Path(folder) / "recipe.json")
    results = details["results"]
    results["seeds"] += seeds
    results["top1_by_seed"] += top1_by_seed
    results.setdefault("added", []).append({"seeds": seeds, **how})
    rewrite(pathlib.Path(folder).resolve(), details=details)
    return pathlib.Path(folder)
