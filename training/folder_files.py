"""Files of a folder of weights beside Keras's own and the card: history, picture, logits, model.safetensors."""

import importlib.util
import io
import math
import pathlib
import sys

import numpy as np

from training.text_tables import csv_text
from zoo.evaluation import log_probabilities
from zoo.registry import BUNDLED
from zoo.storage import as_stored

SAFETENSORS = "model.safetensors"
UNLIKELY = 1e-4  # of the stored test logits


def training_files(model, history, picture, draw):
    """What stands beside the weights of anyone's own model: the history, a picture, the weights as model.safetensors.

    What cannot be made here is left out with a line on stderr, rather than lose the training.

    Args:
        model: The trained model.
        history: One dictionary per epoch.
        picture: Name of the picture's file.
        draw: Makes the bytes of the picture.

    Returns:
        `{name: bytes}` for `zoo.save_model`.
    """
    files = {"history.csv": csv_text(history).encode()}
    for name, library, make in (
        (picture, "matplotlib", draw),
        (SAFETENSORS, "safetensors", lambda: safetensors_bytes(model)),
    ):
        if importlib.util.find_spec(library) is None:
            print(f"no {library}, so no {name}; pip install 'keras-mpelu[train]'", file=sys.stderr)
            continue
        try:
            files[name] = make()
        except ValueError as error:  # of names that are not the user's doing
            print(f"no {name}: {error}", file=sys.stderr)
    return files


def logits_npz(logits):
    """What a folder keeps of the test rows: logarithms of probabilities (which are logits too), in float16.

    The classes of a row below `UNLIKELY` share their sum equally, so a file of 100 classes takes a third. No
    probability moves by more than `UNLIKELY` and float16's rounding (some 3e-4). It is for comparing predictions:
    figures are the card's, for the cross-entropy of a true class among the shared ones is lost.
    """
    logarithms = log_probabilities(logits, are_probabilities=False)
    unlikely = logarithms < math.log(UNLIKELY)
    shared = np.exp(logarithms).sum(axis=1, where=unlikely) / np.maximum(unlikely.sum(axis=1), 1)
    with np.errstate(divide="ignore"):  # where no class is unlikely, or all of them are 0
        shared = np.maximum(np.log(shared), np.finfo("float16").min)
    return npz_bytes(logits=np.where(unlikely, shared[:, None], logarithms).astype("float16"))


def npz_bytes(**arrays):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def safetensors_bytes(model):
    """All weights of a model by their paths, such as `stem_conv/kernel`, in the safetensors format."""
    from safetensors.numpy import save

    tensors = {
        weight.path: as_stored(np.asarray(value, order="C"))  # np.ascontiguousarray gives a number an axis
        for weight, value in zip(model.weights, model.get_weights(), strict=True)
    }
    if len(tensors) < len(model.weights):
        raise ValueError(f"{model.name} has layers of one name, so its weights cannot be told apart; name every layer")
    # One entry of metadata: the library writes several in an order of its own at every call, and the bytes are summed.
    return save(tensors, metadata={"format": "keras"})


def leave_out_second_copy(new, place):
    """Removes model.safetensors from a folder that is for the package, where few would read it; its sum stays.

    `training.publishing.completed` makes it again, byte for byte.

    Args:
        new: The folder.
        place: Where it is put.
    """
    if pathlib.Path(place).resolve().parent == BUNDLED.resolve():
        (pathlib.Path(new) / SAFETENSORS).unlink(missing_ok=True)
