"""Further seeds of a finished folder: its weights stay, its card gives the spread."""

import pathlib

from training.card import rewrite
from training.checkpoints import read_json
from training.recipes import Recipe
from training.recipes import same_choice
from training.recipes import stored_seeds


def check_addable(folder, recipe, seeds):
    """Refuses seeds that cannot be added to the folder, before they are trained.

    Raises:
        FileNotFoundError: there is no such folder, or it has no recipe.json.
        ValueError: the folder is of another training, or has one of the seeds.
    """
    facts = _facts(folder)
    stored = stored_seeds(facts) if "results" in facts else []
    same = same_choice(facts, recipe, stored) and facts["recipe"].get("publish", Recipe.publish) == recipe.publish
    if not same:
        raise ValueError(
            f"{folder} is not of {recipe.name} as it is trained here; give the folder and options of one run"
        )
    if twice := [seed for seed in seeds if seed in stored]:
        raise ValueError(f"{folder} has the seeds {stored}, so {twice} cannot be added; give others by --seeds")


def has_seeds(folder, recipe, seeds):
    """Whether the folder is of this training and has all of the seeds."""
    path = pathlib.Path(folder) / "recipe.json"
    if not path.exists():
        return False
    facts = read_json(path)
    return set(seeds) <= set(stored_seeds(facts)) and same_choice(facts, recipe, stored_seeds(facts))


def add(folder, seeds, top1_by_seed, minutes, hardware, versions, command):
    """Adds the figures of further seeds to a finished folder.

    Args:
        folder: A folder as `training.run.train` makes it.
        seeds: The further seeds.
        top1_by_seed: Top-1 on the test rows of each.
        minutes: Wall time of their training.
        hardware: The processor in words.
        versions: As `training.run.versions` gives them.
        command: The command that trained them.

    Returns:
        The path of the folder.
    """
    details = _facts(folder)
    results = details["results"]
    results["seeds"] += seeds
    results["top1_by_seed"] += top1_by_seed
    results["minutes"] = round(results["minutes"] + minutes, 1)
    if hardware not in results["hardware"].split(", "):
        results["hardware"] += f", {hardware}"
    details.setdefault("added", []).append({"seeds": seeds, "command": command, "versions": versions})
    rewrite(folder, details=details)
    return pathlib.Path(folder)


def _facts(folder):
    path = pathlib.Path(folder) / "recipe.json"
    if not path.exists():
        raise FileNotFoundError(f"no {path}; seeds are added to a folder that `python -m training train` made")
    return read_json(path)
