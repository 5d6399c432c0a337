"""Halves the weights of a finished folder: kernels rounded to float16, where the accuracy stays."""

import pathlib

import keras
import numpy as np

from training.card import by_superclass
from training.card import card_text
from training.card import is_of_a_recipe
from training.card import rewrite
from training.folder_files import SAFETENSORS
from training.folder_files import leave_out_second_copy
from training.folder_files import logits_npz
from training.folder_files import safetensors_bytes
from zoo.datasets import load_dataset
from zoo.details import read_details
from zoo.evaluation import check_same_data
from zoo.evaluation import evaluate
from zoo.evaluation import log_probabilities
from zoo.evaluation import metrics
from zoo.folders import sha256
from zoo.heads import gives_probabilities
from zoo.heads import with_logits
from zoo.hub import NEEDED
from zoo.hub import SUMS
from zoo.inference import predict
from zoo.pretrained import load_folder
from zoo.saving import save_model

MADE = {*NEEDED, "README.md", "recipe.json", "golden.npz", SUMS}  # by save_model
TOLERANCE = 2e-4 + 1e-9  # of top-1: two rows of 10,000, and what is lost in their difference


def compact(folder, data_dir=None):
    """Rounds the kernels of a finished folder to float16 and stores them so.

    The rounded weights are the published ones from then on: their figures on the
    test rows are measured anew (those of further seeds stay), and the card gives
    top-1 before and after. The folder is replaced whole or not at all; one that
    is rounded already keeps its figures, and the card of one that is refused for
    its accuracy says so, for its test rows have been read again.

    Args:
        folder: A folder as `training.run.train` makes it.
        data_dir: Where `zoo.load_dataset` looks first.

    Returns:
        The pin: the sha256 of the new SHA256SUMS, for the family's table.

    Raises:
        ValueError: the folder is not of a recipe, its top-1 is not that of its
            card, or would change by more than 0.02 points: then the card has
            been made anew, and the message has its pin.
        OSError: there is no such folder, or its data are not at hand.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {str(folder)!r}")
    model = load_folder(folder, compile=False)
    details = read_details(folder, model)
    if not is_of_a_recipe(details):
        raise ValueError(f"{folder} is not of `python -m training train` on a data set with a name; zoo.save_model it")
    dataset = load_dataset(details["data"]["name"], data_dir)
    check_same_data(details, dataset)
    results = details["results"]
    stored = evaluate(model, dataset)["top1"]
    if abs(stored - results["top1"]) > TOLERANCE:
        raise ValueError(f"{folder} has {stored:.4f} of the test rows right, its card says {results['top1']:.4f}")
    before = results.get("top1_in_float32", results["top1"])
    round_kernels(model)
    rounded = with_logits(model)
    logits = predict(rounded, dataset.x_test)
    figures = metrics(log_probabilities(logits, gives_probabilities(rounded, logits)), dataset.y_test)
    if abs(figures["top1"] - before) > TOLERANCE:
        pin = rewrite(folder, data_dir, details | {"results": results | {"top1_if_rounded": figures["top1"]}})
        raise ValueError(
            f"{folder} would have {figures['top1']:.4f} of the test rows right in place of {before:.4f}, more "
            f"than {TOLERANCE:.4f} apart; it stays in float32, its card says so, and its pin is {pin}"
        )
    results.pop("top1_if_rounded", None)
    results.update(figures, **by_superclass(dataset, logits), top1_in_float32=before)
    results["top1_by_seed"][0] = figures["top1"]  # the first seed is the published one
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name not in MADE}
    files[SAFETENSORS] = safetensors_bytes(model)
    files["test_logits.npz"] = logits_npz(logits)
    save_model(model, folder, details, card_text(details), files, overwrite=True)
    leave_out_second_copy(folder, folder)
    return sha256(folder / SUMS)


def round_kernels(model):
    """Rounds all weights of two axes or more to float16's values; they stay float32.

    Raises:
        ValueError: one has a value beyond float16's range.
    """
    for weight in model.weights:
        if len(weight.shape) > 1:
            with np.errstate(over="ignore"):
                rounded = keras.ops.convert_to_numpy(weight.value).astype("float16")
            if not np.isfinite(rounded).all():
                raise ValueError(f"{weight.path} has values beyond 65,504, the largest of float16; it stays in float32")
            weight.assign(rounded.astype("float32"))
