"""Checkpoints: atomic, checked when read, in parts small enough to move."""

import contextlib
import hashlib
import io
import json
import os
import zipfile

import numpy as np

PART_BYTES = 15 * 2**20  # what moves in pieces of 16 MiB, with room to spare
KEPT = 2
TIMED_EPOCHS = "epochs_in_minutes.json"  # of a run that was given minutes: [[minutes, epochs], ...]


def write_atomically(path, content):
    """Writes bytes so that a reader sees the old file or the whole new one, also after a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def read_json(path):
    """What a JSON file holds; an error that names the file where it is cut short or no JSON."""
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); bring a sound copy of it, or give another --out") from None


def timed_epochs(folder):
    """Epochs by the minutes for which they were timed, of the run in this folder."""
    path = folder / TIMED_EPOCHS
    return dict(read_json(path)) if path.exists() else {}


def save(folder, step, arrays, facts):
    """Writes a checkpoint: numbered parts, then the JSON that vouches for them.

    Args:
        folder: Folder of the run.
        step: Steps done; names the checkpoint.
        arrays: `{name: NumPy array}`.
        facts: What else belongs to it; must fit in JSON.

    Raises:
        OSError: it could not be written; the earlier checkpoints stay as they were.
    """
    buffer = io.BytesIO()
    np.savez(buffer, **{f"{number:05d}": array for number, array in enumerate(arrays.values())})
    content = buffer.getbuffer()
    parts = []
    name = f"step-{step:09d}"
    try:
        for number, start in enumerate(range(0, len(content), PART_BYTES)):
            part = content[start : start + PART_BYTES]
            file = f"{name}.{number:02d}.npz"
            write_atomically(folder / file, part)
            parts.append({"file": file, "sha256": hashlib.sha256(part).hexdigest()})
        manifest = {"step": step, "parts": parts, "names": list(arrays), "facts": facts}
        write_atomically(folder / f"{name}.json", json.dumps(manifest).encode())
    except OSError:
        with contextlib.suppress(OSError):
            _delete(folder, name)
        raise
    manifests = sorted(path.stem for path in folder.glob("step-*.json"))
    named = {path.name.partition(".")[0] for path in folder.glob("step-*")}
    for old in named - set(manifests[-KEPT:]):  # also parts of a checkpoint that a kill left without its JSON
        _delete(folder, old)
    for left in folder.glob(".step-*"):  # by a kill in the midst of a write
        left.unlink()


def load_newest(folder):
    """The newest checkpoint that is sound: `(step, arrays, facts)`; `None` if there is none at all.

    A damaged one is named and put aside (`damaged-step-...`), nothing is
    deleted.

    Raises:
        ValueError: there are checkpoints, but none is sound.
        OSError: one could not be read for another reason than that it is
            missing.
    """
    manifests = sorted(folder.glob("step-*.json"), reverse=True)
    damaged = []
    for path in manifests:
        try:
            manifest = json.loads(path.read_text())
            content = bytearray()
            for part in manifest["parts"]:
                piece = (folder / part["file"]).read_bytes()
                if hashlib.sha256(piece).hexdigest() != part["sha256"]:
                    raise ValueError(f"{part['file']} differs from its sum")
                content += piece
            with np.load(io.BytesIO(content), allow_pickle=False) as stored:
                arrays = {name: stored[f"{number:05d}"] for number, name in enumerate(manifest["names"])}
            for name in damaged:
                _put_aside(folder, name)
            return manifest["step"], arrays, manifest["facts"]
        except (FileNotFoundError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            print(f"{path.name} is damaged ({error}); trying the one before", flush=True)
            damaged.append(path.stem)
    if manifests:
        raise ValueError(
            f"none of the {len(manifests)} checkpoints in {folder} is sound; bring the missing parts, or give another "
            "--out to start anew"
        )
    return None


def _put_aside(folder, name):
    """Out of the way of what follows, which is older: else it would count as the newest."""
    for path in folder.glob(f"{name}.*"):
        os.replace(path, path.with_name(f"damaged-{path.name}"))


def _delete(folder, name):
    (folder / f"{name}.json").unlink(missing_ok=True)  # first: parts without it are no checkpoint
    for part in folder.glob(f"{name}.*.npz"):
        part.unlink()
