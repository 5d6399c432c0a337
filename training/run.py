"""From a recipe to a complete folder of weights: train, evaluate once, write the card."""

import dataclasses
import hashlib
import importlib.util
import json
import math
import pathlib
import shutil
import statistics
import sys
import time
from typing import NamedTuple

import keras
import numpy as np

from training import further_seeds
from training import loop
from training.card import OWN_DATA
from training.card import by_superclass
from training.card import card_text
from training.card import is_of_a_recipe
from training.card import own_card
from training.card import what_was_learned
from training.curves import curves_png
from training.distillation import ask_teachers
from training.distillation import differing_teachers
from training.folder_files import SAFETENSORS
from training.folder_files import leave_out_second_copy
from training.folder_files import logits_npz
from training.folder_files import npz_bytes
from training.folder_files import safetensors_bytes
from training.machine import bfloat16_is_slow
from training.machine import versions
from training.minutes import epochs_in
from training.own_data import check_writable
from training.own_data import hold_out
from training.own_data import loadable
from training.own_data import own_dataset
from training.recipes import differences
from training.recipes import same_choice
from training.recipes import stored_seeds
from training.standardisation import builder_arguments
from training.standardisation import image_statistics
from training.text_tables import csv_text
from zoo.datasets import SCIKIT_LEARN
from zoo.datasets import list_datasets
from zoo.datasets import load_dataset
from zoo.evaluation import log_probabilities
from zoo.evaluation import metrics
from zoo.folders import put_in_place
from zoo.folders import sha256
from zoo.hub import SUMS
from zoo.index import multiply_accumulates
from zoo.index import trainable_parameters
from zoo.inference import predict
from zoo.registry import BUNDLED
from zoo.registry import train_command
from zoo.saving import save_model

PACKAGING = ("huggingface_hub", "matplotlib", "safetensors")  # for the card, the picture, model.safetensors
TEACHERS_KNOW = "the teachers were trained on the held-out rows too"
SPLIT_SEED = 0  # of the validation split: the same for all recipes, or they could not be compared


def train(
    recipe,
    data_dir=None,
    out="runs",
    seeds=None,
    epochs=None,
    minutes=None,
    stop_after=None,
    validation=None,
    devices=1,
    bundle=False,
    callbacks=(),
    data=None,
    label="label",
    publish=None,
    tensorboard=None,
    dtype=None,
    add_to=None,
):
    """Trains every seed of a recipe and writes the folder of the first.

    The test set is read once, when a seed has ended.

    Args:
        recipe: A `Recipe`.
        data_dir: Where `zoo.load_dataset` looks first.
        out: Folder of the runs; this one is `out/NAME`.
        seeds: Seeds in place of the recipe's.
        epochs: Epochs in place of the recipe's, with the schedule rescaled.
        minutes: The same, as the time that one seed may take on this machine;
            a few steps are timed first.
        stop_after: Minutes after which to stop; the same call goes on from
            there.
        validation: Fraction of the training rows of each class to hold out. The
            run then ends with figures on these in `out/NAME/validation.json`,
            reads no test row and publishes nothing: it is for choices.
        devices: Devices to spread each batch over (JAX, TensorFlow). Parts of
            a processor are made by `training.mirrored_tensorflow.split_processor`.
        callbacks: Further Keras callbacks, such as `keras.callbacks.TensorBoard`.
        bundle: Whether to copy the folder into the package (`zoo/weights`),
            where weights of another run are not replaced.
        data: A folder of class folders of images, or a CSV, in place of the
            recipe's data set. A fifth of each class is held out as test rows,
            and images are standardised by their own statistics.
        label: Column of the label in the CSV.
        publish: `"last"` or `"average"` in place of the recipe's; to be chosen
            by a run with `validation`.
        tensorboard: Folder for TensorBoard's logs, one folder each seed.
        dtype: Keras dtype policy in place of the recipe's; another run.
        add_to: A finished folder of this training at other seeds. It keeps its
            weights; seeds and top-1 of these runs are added to its card.

    Returns:
        The path of the folder of weights, or of `validation.json`, or where a
        package for the folder of weights is missing, of `out/NAME`.

    Raises:
        training.loop.Interrupted: `stop_after` came before the end.
        ValueError: what is there already, in `out`, in the package or in
            `add_to`, is of another run.
        ValueError, OSError: as `training.loop.fit` and `zoo.load_dataset`.
    """
    started = time.monotonic()

    def minutes_left():
        return None if stop_after is None else stop_after - (time.monotonic() - started) / 60

    seeds = tuple(seeds or recipe.seeds)
    _check_options(seeds, epochs, minutes, stop_after, validation)
    if data is not None:
        if bundle:
            raise ValueError(f"weights of one's own data ({data}) are not for the package; leave bundle out")
        recipe = recipe.on_own_data(data)
    elif recipe.dataset not in list_datasets():
        raise ValueError(
            f"{recipe.name}: {recipe.dataset} cannot be loaded by its name; give a folder of class folders of images "
            "by --data"
        )
    if add_to is not None and (bundle or data is not None or validation is not None):
        raise ValueError(
            f"the seeds added to {add_to} are of its recipe and data; leave out bundle, data and validation"
        )
    named = recipe
    recipe = recipe.given(publish=publish, dtype=dtype)
    home = pathlib.Path(out) / recipe.name
    check_writable(home)
    missing = _missing_packages(tensorboard, out)
    dataset = load_dataset(recipe.dataset, data_dir) if data is None else own_dataset(data, recipe.arch, label)
    if validation is not None:
        dataset = hold_out(dataset.x_train, dataset.y_train, dataset.class_names, (), validation, SPLIT_SEED)
        home = home / f"validation-{validation}"
    if data is not None and recipe.batch_size > len(dataset.x_train):
        print(f"batch size {len(dataset.x_train)} in place of {recipe.batch_size}: there are no more training rows")
        recipe = dataclasses.replace(recipe, batch_size=len(dataset.x_train))
    arguments = builder_arguments(dataset)
    if data is not None and dataset.x_train.ndim == 4:
        arguments = image_statistics(dataset.x_train)
    if minutes is not None:
        epochs = epochs_in(minutes, recipe, dataset, arguments, home, devices, minutes_left)
    if epochs is not None:
        recipe = recipe.rescaled(epochs)
    made = home / ("validation.json" if validation is not None else f"{recipe.name}/recipe.json")
    if add_to is None:
        _refuse_another(made, recipe, seeds, "give another --out, or move it away")
    else:
        further_seeds.check_addable(add_to, recipe, seeds, dataset)
    if bundle and validation is None:
        bundled = BUNDLED / recipe.name / "recipe.json"
        _refuse_another(bundled, recipe, seeds, "leave --bundle out, or remove the bundled folder")
    _warn(recipe, validation)
    loop.check_devices(devices, recipe.batch_size)  # before the teachers, who take their time
    taught = ask_teachers(recipe, dataset, home, minutes_left)
    ended = []
    for seed in seeds:
        left = minutes_left()
        if left is not None and left <= 0:
            raise loop.Interrupted(f"{recipe.name} stopped before seed {seed}; {home}")
        folder = home / f"seed{seed}"
        fitted = loop.fit(
            recipe,
            dataset.x_train,
            dataset.y_train,
            len(dataset.class_names),
            folder,
            seed,
            left,
            arguments,
            devices=devices,
            callbacks=[*callbacks, *logs_of(recipe, seed, folder, tensorboard)],
            taught=taught,
        )
        if validation is not None:
            ended.append({"seed": seed, **_validated(fitted, dataset)})
        elif not missing:
            ended.append(_test_once(fitted, recipe, dataset, folder))
    if validation is not None:
        return _write_validation(made, recipe, dataset, ended)
    if missing:
        return home
    machines = [machine for run in ended for machine in run.fitted.machines]
    hardware, backend = (", then ".join(dict.fromkeys(names)) for names in zip(*machines, strict=True))
    how = {
        "minutes": round(sum(row["seconds"] for run in ended for row in run.fitted.history) / 60, 1),
        "hardware": hardware,
    }
    used = {**versions(), "backend": backend}
    top1_by_seed = [run.figures["top1"] for run in ended]
    command = command_of(named, recipe, seeds, devices)
    if add_to is not None:
        further_seeds.check_addable(add_to, recipe, seeds, dataset)  # another process may have added to it meanwhile
        command = command.get("command", train_command(named.name))
        return further_seeds.add(add_to, list(seeds), top1_by_seed, **how, versions=used, command=command)

    first = ended[0]
    published = loop.build(recipe, len(dataset.class_names), **arguments)
    published.set_weights(first.fitted.model.get_weights())
    results = {
        "dataset": dataset.name,
        **first.figures,
        **by_superclass(dataset, first.logits),
        "seeds": list(seeds),
        "top1_by_seed": top1_by_seed,
        "parameters": trainable_parameters(published),
        "macs": multiply_accumulates(published),
        "epochs": recipe.epochs,
        **how,
        **_cross_validation(recipe, dataset),
    }
    details = {
        "name": recipe.name,
        "recipe": dataclasses.asdict(dataclasses.replace(recipe, seeds=seeds)),
        **({"teachers": taught.teachers} if taught else {}),
        **what_was_learned(published),
        "data": {
            "name": dataset.name,
            "sha256": dataset.sha256,
            "train_rows": len(dataset.x_train),
            "test_rows": len(dataset.x_test),
            **({} if data is None else {"source": OWN_DATA}),  # no path: the folder may be published
        },
        "class_names": list(dataset.class_names),
        "feature_names": list(dataset.feature_names),
        "results": results,
        "versions": used,
        **(command if data is None else {}),
    }
    history, alpha_beta = first.fitted.history, first.fitted.alpha_beta
    weights = save_model(
        published,
        home / recipe.name,
        details=details,
        card=card_text(details) if data is None else own_card(published, details, ("curves.png",)),
        files={
            "history.csv": csv_text(history).encode(),
            "curves.png": curves_png(history, f"{recipe.name}, seed {seeds[0]}", alpha_beta),
            SAFETENSORS: safetensors_bytes(published),
            "test_logits.npz": logits_npz(first.logits),
        },
        overwrite=True,
    )
    if bundle:
        copy = shutil.copytree(weights, BUNDLED / f".{recipe.name}.new", dirs_exist_ok=True)
        weights = BUNDLED / recipe.name
        leave_out_second_copy(copy, weights)
        put_in_place(copy, weights)
    return weights


def _check_options(seeds, epochs, minutes, stop_after, validation):
    if epochs is not None and minutes is not None:
        raise ValueError(f"epochs or minutes, not both; received epochs={epochs} and minutes={minutes}")
    if minutes is not None and not 0 < minutes < float("inf"):
        raise ValueError(f"minutes is a number above 0; received {minutes}")
    if stop_after is not None and math.isnan(stop_after):
        raise ValueError(f"stop_after is a number of minutes; received {stop_after}")
    if len(set(seeds)) < len(seeds) or not all(0 <= seed < 2**32 for seed in seeds):
        raise ValueError(f"seeds are different whole numbers from 0 to 2**32 - 1; received {list(seeds)}")
    if validation is not None and not 0 < validation < 1:
        raise ValueError(f"validation is a fraction between 0 and 1; received {validation}")


def _missing_packages(tensorboard, out):
    """Those without which there is no folder of weights; a line on stderr names them.

    Raises:
        ModuleNotFoundError: TensorBoard's logs are asked for, and it is missing.
    """
    if tensorboard is not None:
        for name in ("tensorflow", "tensorboard"):
            if importlib.util.find_spec(name) is None:
                raise ModuleNotFoundError(f"TensorBoard's logs need {name}; install it, or leave them out")
    missing = [name for name in PACKAGING if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"{', '.join(missing)} missing here: the run trains and keeps its checkpoints, but the folder of weights "
            f"is to be made where the extra keras-mpelu[train] is installed, by the same command on the same {out}",
            file=sys.stderr,
        )
    return missing


def _warn(recipe, validation):
    slow = bfloat16_is_slow() if recipe.dtype == "mixed_bfloat16" else False
    if slow is not False:
        which = "has no instructions" if slow else "may have no instructions (this system does not tell)"
        print(
            f"{recipe.name} trains in bfloat16, for which this processor {which}: it can take ten times as long as in "
            "float32; --dtype float32 makes another run of it, of which the card tells",
            file=sys.stderr,
        )
    if recipe.teachers and validation is not None:
        print(f"{recipe.name}: {TEACHERS_KNOW}, so the figures on these flatter it", file=sys.stderr)


def command_of(named, recipe, seeds, devices):
    """The command that makes the weights again, where it takes more than the recipe's name."""
    options = []
    if recipe.epochs != named.epochs:  # also where they came of minutes
        options += ["--epochs", recipe.epochs]
    if seeds != tuple(named.seeds):
        options += ["--seeds", *seeds]
    if recipe.publish != named.publish:
        options += ["--publish", recipe.publish]
    if recipe.dtype != named.dtype:
        options += ["--dtype", recipe.dtype]
    if devices != 1:
        options += ["--devices", devices]
    command = " ".join(map(str, ["python -m training train", named.name, *options]))
    # Where the name alone stands for another command, as of UCI tasks, it is said in any case.
    return {"command": command} if command != train_command(named.name) else {}


def _refuse_another(made, recipe, seeds, remedy):
    """What has ended is made anew or gets further seeds; another run does not take its place."""
    if not made.exists():
        return
    facts = loop.checkpoints.read_json(made)
    if "recipe" not in facts:
        raise ValueError(f"{made} is not of `python -m training train`, which would replace it; {remedy}")
    stored = stored_seeds(facts)
    if other := differing_teachers(facts, recipe):
        raise ValueError(f"{made} was taught by other weights of {', '.join(other)}; {remedy}")
    if not same_choice(facts, recipe, seeds[: len(stored)]):
        words = differences(facts["recipe"], dataclasses.asdict(recipe))
        differ = f" (it has {words})" if words else ""
        raise ValueError(
            f"{made} is of another run (seeds {stored}, {facts['recipe'].get('epochs', 'other')} epochs) than this one "
            f"(seeds {list(seeds)}, {recipe.epochs} epochs), which would replace it{differ}; {remedy}"
        )


def logs_of(recipe, seed, folder, tensorboard):
    """Keras's own logs of a run, as callbacks."""
    # An interrupted epoch has a row too; `step` tells it from a whole one. (history.csv has whole ones only.)
    yield keras.callbacks.CSVLogger(str(folder / "log.csv"), append=True)
    if tensorboard is not None:
        yield keras.callbacks.TensorBoard(str(pathlib.Path(tensorboard) / recipe.name / f"seed{seed}"))


def _validated(fitted, dataset):
    """Figures on the held-out rows of the last weights, and of their moving average."""
    figures = {}
    for kind, weights in (("last", None), ("average", fitted.average)):
        if kind == "average":
            if weights is None:
                continue
            fitted.model.set_weights(weights)
        logits = predict(fitted.model, dataset.x_test)
        figures[kind] = metrics(log_probabilities(logits, are_probabilities=False), dataset.y_test)
        print(f"{kind} weights: validation top-1 {100 * figures[kind]['top1']:.2f} %", flush=True)
    return figures


def _write_validation(path, recipe, dataset, ended):
    facts = {
        "recipe": dataclasses.asdict(recipe),
        "rows": len(dataset.y_test),
        "runs": ended,
        "choice": better_weights(ended),
        **({"caution": TEACHERS_KNOW} if recipe.teachers else {}),
    }
    loop.checkpoints.write_atomically(path, (json.dumps(facts, indent=1) + "\n").encode())
    return path


def better_weights(runs):
    """Which of `"last"` and `"average"` has the better mean top-1 on the validation rows; of equals the last."""
    means = {
        kind: statistics.fmean(run[kind]["top1"] for run in runs) for kind in ("last", "average") if kind in runs[0]
    }
    choice = max(means, key=means.get)
    print(f"the better weights on the validation rows: {choice} (--publish {choice})", flush=True)
    return choice


class Tested(NamedTuple):
    """A seed that has ended: what `loop.fit` made, logits and figures on the test rows of the weights to publish."""

    fitted: loop.Fitted
    logits: np.ndarray
    figures: dict


def _test_once(fitted, recipe, dataset, folder):
    """A `Tested`; the logits are kept, so that a second call does not read the test rows again."""
    model = fitted.model
    if recipe.publish == "average":
        model.set_weights(fitted.average)
    digest = hashlib.sha256(b"".join(np.asarray(value).tobytes() for value in model.get_weights())).hexdigest()
    kept = folder / f"test-{digest[:16]}.npz"  # of these weights and no others
    if not kept.exists():
        if others := list(folder.glob("test-*.npz")):
            raise ValueError(
                f"the test rows were read for other weights of this run ({others[0]}); the choice between the last and "
                "the average weights belongs before that, on a validation split"
            )
        loop.checkpoints.write_atomically(kept, npz_bytes(logits=predict(model, dataset.x_test)))
    logits = np.load(kept)["logits"]
    return Tested(fitted, logits, metrics(log_probabilities(logits, are_probabilities=False), dataset.y_test))


def _cross_validation(recipe, dataset):
    if dataset.name not in SCIKIT_LEARN or recipe.teachers:  # teachers have seen rows of every fold
        return {}
    from training.tabular import cross_validate

    return {"cross_validation": cross_validate(recipe, dataset)}


def describe(weights):
    """What to know of a finished folder, with its pin for the family's table, or how to load one's own."""
    weights = pathlib.Path(weights)
    details = json.loads((weights / "recipe.json").read_text())
    results = details["results"]
    figures = f"{weights}: top-1 {100 * results['top1']:.2f} % on {results['rows']} test rows of {results['dataset']}"
    if not is_of_a_recipe(details):
        return f"{figures}\nload it with zoo.load_model({loadable(weights)!r})"
    return f'{figures}\npin: "{weights.name}": "{sha256(weights / SUMS)}",'
