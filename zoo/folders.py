"""Folders of weights: where they are, whether they are whole, and how one comes to its place.

A folder is Keras's own directory format (config.json, metadata.json,
model.weights.h5) with a card, the recipe, the history, golden outputs, the
logits on the test set, the same weights as model.safetensors, and SHA256SUMS. It
is exactly what goes to the Hub (zoo/hub.py), but for model.safetensors: folders in
the package have only its sum, and training/publishing.py makes the file again.
"""

import os
import pathlib
import shutil

from zoo.hub import NEEDED
from zoo.hub import SCHEME
from zoo.hub import SUMS
from zoo.hub import Address
from zoo.hub import digest
from zoo.hub import fetch
from zoo.hub import parse_address
from zoo.hub import read_sums
from zoo.hub import repository_of
from zoo.hub import tag_of
from zoo.messages import quoted
from zoo.messages import unknown_name
from zoo.registry import BUNDLED
from zoo.registry import list_models
from zoo.registry import published_weights
from zoo.registry import read_index


def find_folder(name, revision=None):
    """Where the files of a model are, downloaded if need be.

    Returns:
        `(folder, pin)`; `pin` is the sha256 of SHA256SUMS for a published
        model, `None` for a folder given by path and for another's repository.
    """
    is_path = isinstance(name, os.PathLike)  # a folder in any case: pathlib drops the "./" of "./name"
    name = os.fspath(name)
    if not name:
        raise ValueError("the name is empty; give one of `python -m zoo list --pretrained`, or the path of a folder")
    if name.startswith(SCHEME):
        return _fetch(_with_revision(parse_address(name), revision), None), None
    published = name in read_index()["models"]
    if is_path or (not published and (os.path.exists(name) or os.sep in name or "/" in name)):
        if os.path.isfile(name):
            raise NotADirectoryError(
                f"{quoted(name)} is a file; a model of zoo.save_model is a folder. A .keras file is for "
                "keras.saving.load_model, after import keras_mpelu"
            )
        if not os.path.isdir(name):
            raise FileNotFoundError(
                f"no folder {quoted(name)}; give an existing folder, or a name from `python -m zoo list`"
            )
        if revision is not None:
            raise ValueError(f"revision {quoted(revision)} is of a repository on the Hub; {quoted(name)} is a folder")
        return pathlib.Path(name), None
    if not published:
        if name in read_index()["architectures"]:
            own = ", ".join(list_models(f"{name}.*", pretrained=True)) or "none yet"
            raise ValueError(
                f"{name!r} is an architecture; with pretrained weights: {own}. zoo.create_model({name!r}) builds it "
                "with random ones"
            )
        raise unknown_name(name, read_index()["models"], "pretrained model")
    pin = published_weights()[name]
    bundled = BUNDLED / name
    if revision is None and bundled.is_dir():
        return bundled, pin
    return _fetch(Address(repository_of(name), revision or tag_of(pin)), pin), pin


def _with_revision(address, revision):
    if None not in (revision, address.revision) and revision != address.revision:
        raise ValueError(f"the address asks for revision {address.revision!r}, the argument for {revision!r}; give one")
    return Address(address.repository, address.revision or revision)


def _fetch(address, pin):
    try:
        return fetch(address, pin)
    except OSError as error:
        raise OSError(f"{error}; or give the path of a folder") from error


def check_folder(folder, pin=None):
    """Checks a folder against its SHA256SUMS, and that against its pin.

    Args:
        folder: The folder.
        pin: Expected sha256 of SHA256SUMS. `None` for a folder of the user's
            own, where SHA256SUMS may be missing.

    Raises:
        ValueError: a file is missing or differs from its sum.
    """
    folder = pathlib.Path(folder)
    mend = "reinstall keras-mpelu, or delete the folder and load again" if pin else "save the model again"
    for file in NEEDED:
        if not (folder / file).is_file():
            raise ValueError(f"{folder} has no {file}; a folder of weights holds {', '.join(NEEDED)}; {mend}")
    if not (folder / SUMS).is_file():
        if pin:
            raise ValueError(f"{folder} has no {SUMS}; {mend}")
        return
    if pin and sha256(folder / SUMS) != pin:
        raise ValueError(
            f"{folder / SUMS} is not the published one: sha256 {sha256(folder / SUMS)}, expected {pin}; {mend}"
        )
    sums = read_sums(folder / SUMS)
    for file in NEEDED:
        if file not in sums:
            raise ValueError(f"{folder / SUMS} has no sum of {file}; {mend}")
    for file, expected in sums.items():
        if (folder / file).is_file() and sha256(folder / file) != expected.digest:
            raise ValueError(
                f"{folder / file} is damaged or altered: sha256 {sha256(folder / file)}, expected {expected.digest}; "
                f"{mend}"
            )


def sha256(path):
    return digest(path, "sha256")


def write_sums(folder):
    """Writes SHA256SUMS for all other files of a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / SUMS)
    (folder / SUMS).write_text("".join(f"{sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files))


def put_in_place(new, folder):
    """Renames a finished folder to its place; an old one is deleted only after that.

    A kill between the two renames leaves the old one beside its place, as .NAME.old.PROCESS.
    """
    old = folder.with_name(f".{folder.name}.old.{os.getpid()}")
    if folder.exists():
        os.replace(folder, old)
    try:
        os.replace(new, folder)
    except OSError:
        if old.exists():
            os.replace(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
