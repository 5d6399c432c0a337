"""Publishing a folder of weights on the Hub: check, upload in one commit, tag, say the pin."""

import contextlib
import io
import pathlib
import re
import shutil
import sys
import tempfile
from typing import NamedTuple

import keras
import numpy as np

from training.card import LICENSE
from training.card import card_text
from training.card import is_of_a_recipe
from training.folder_files import SAFETENSORS
from training.folder_files import safetensors_bytes
from zoo.card import eval_results
from zoo.card import example_shape
from zoo.card import snippet
from zoo.datasets import load_dataset
from zoo.details import read_details
from zoo.evaluation import check_same_data
from zoo.evaluation import evaluate
from zoo.folders import check_folder
from zoo.folders import sha256
from zoo.folders import write_sums
from zoo.hub import NAMESPACE
from zoo.hub import SCHEME
from zoo.hub import SUMS
from zoo.hub import agrees
from zoo.hub import client_errors
from zoo.hub import endpoint
from zoo.hub import explain
from zoo.hub import read_sums
from zoo.hub import repository_of
from zoo.hub import sums_of
from zoo.hub import tag_of
from zoo.inference import predict
from zoo.messages import first_line
from zoo.pretrained import load_folder
from zoo.registry import BUNDLED
from zoo.registry import published_weights

WAITING = pathlib.Path("results/hub")  # folders too large for the wheel
FILES = {
    "README.md",
    "config.json",
    "curves.png",
    "golden.npz",
    "history.csv",
    "metadata.json",
    SAFETENSORS,
    "model.weights.h5",
    "recipe.json",
    "test_logits.npz",
}
# Of anyone's own model; `finetune` makes the others too, `zoo.save_model` does not.
OWN_FILES = FILES - {"curves.png", "history.csv", "test_logits.npz"}
REMADE = {"README.md", SAFETENSORS, SUMS}  # by `python -m training card`
KEPT = {".gitattributes"}  # the Hub's own file
GOLDEN_TOLERANCE = 1e-4  # between backends
TOP1_TOLERANCE = 5e-4  # likewise: one row of 2,000 that hangs on the last digit


class Publication(NamedTuple):
    """What `publish` did: `changed` is false where everything was there already.

    `of_the_zoo` is false for anyone's own model, which no table of the package names.
    """

    repository: str
    commit: str | None
    tag: str
    pin: str
    changed: bool
    checks: tuple
    of_the_zoo: bool


def publish(name, namespace=None, private=False, dry_run=False, folder=None, data_dir=None):
    """Checks a folder of weights and puts it on the Hub.

    The repository is made if there is none, then gets what differs in one
    commit, and a tag named by the sums. What is there already is left alone, so
    a second call changes nothing, and one that was interrupted is run again.

    Args:
        name: Name of the model, `arch.tag`.
        namespace: User or organisation; default `ZOO_HUB_NAMESPACE`, else
            `keras-mpelu`.
        private: Whether a new repository is private.
        dry_run: Whether to stop after the checks; nothing is asked of the Hub.
        folder: The folder; default `results/hub/NAME`, else the bundled one.
        data_dir: Where `zoo.load_dataset` looks for the test rows.

    Returns:
        A `Publication`.

    Raises:
        ValueError: a check failed, or the Hub's validation refused the card.
        OSError: no such folder, or the Hub cannot be reached or refuses.
    """
    repository = f"{namespace}/{name}" if namespace else repository_of(name)
    with completed(find_waiting(name) if folder is None else pathlib.Path(folder)) as folder:
        checks = tuple(check_publishable(name, folder, data_dir))
        details = read_details(folder)
        of_a_recipe = is_of_a_recipe(details)
        as_published = published_weights().get(name) == sha256(folder / SUMS)  # so in a mirror too
        of_the_zoo = of_a_recipe and (as_published or repository.partition("/")[0] == NAMESPACE)
        by_address = of_a_recipe and not of_the_zoo
        with addressed(folder, details, repository) if by_address else contextlib.nullcontext(folder) as sent:
            pin = sha256(sent / SUMS)
            commit, changed = (None, False) if dry_run else _send(sent, repository, private, pin, name)
    return Publication(repository, commit, tag_of(pin), pin, changed, checks, of_the_zoo)


def _send(folder, repository, private, pin, name):
    """The commit that has a folder, and whether it is new."""
    try:
        return _upload(folder, repository, private, tag_of(pin), name)
    except (*client_errors(), ValueError) as error:
        if isinstance(error, ValueError):  # the Hub's own words on what was sent
            words = " ".join(str(error).split())
            raise ValueError(f"{endpoint()} refuses {repository}, and nothing was published: {words}") from error
        raise OSError(
            f"cannot publish {repository} at {endpoint()}: {explain(error)}; run the same command again: what has "
            "arrived is kept"
        ) from error


@contextlib.contextmanager
def addressed(folder, details, repository):
    """A copy of the folder whose card loads the model from the repository.

    By its name, as the zoo's own cards have it, readers would load the zoo's model, or none.
    """
    with tempfile.TemporaryDirectory() as work:
        copy = pathlib.Path(shutil.copytree(folder, pathlib.Path(work) / folder.absolute().name))
        (copy / "README.md").write_text(card_text(details, f"{SCHEME}{repository}"), encoding="utf-8")
        write_sums(copy)
        yield copy


@contextlib.contextmanager
def completed(folder):
    """The folder, or where it has the sum of model.safetensors alone, as those of the package, a copy with that file.

    Raises:
        ValueError: the folder is not sound, or what is made here is not what the sum is of.
    """
    if (folder / SAFETENSORS).exists() or not (folder / SUMS).is_file():
        yield folder
        return
    listed = read_sums(folder / SUMS).get(SAFETENSORS)
    if listed is None:  # it never had one: the checks say so
        yield folder
        return
    with tempfile.TemporaryDirectory() as work:
        copy = pathlib.Path(shutil.copytree(folder, pathlib.Path(work) / folder.absolute().name))
        (copy / SAFETENSORS).write_bytes(safetensors_bytes(load_folder(folder, compile=False)))
        if sha256(copy / SAFETENSORS) != listed.digest:
            raise ValueError(
                f"{SAFETENSORS} as it is made here from {folder} is not that of its {SUMS}; run `python -m training "
                f"card {folder}`, which gives another pin"
            )
        try:
            yield copy
        except (OSError, ValueError) as error:  # what is to be mended is the folder, not the copy
            kind = OSError if isinstance(error, OSError) else ValueError  # their own kinds may take other arguments
            raise kind(str(error).replace(str(copy), str(folder))) from error


def find_waiting(name):
    """The folder of a model that waits for the Hub, or the bundled one."""
    for folder in (WAITING / name, BUNDLED / name):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"no folder {WAITING / name} or {BUNDLED / name}; train the model, or give --folder")


def check_publishable(name, folder, data_dir=None):
    """What a folder must fulfil; yields a line about each check passed.

    Raises:
        ValueError: it does not.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {str(folder)!r}")
    mend = f"run `python -m training card {folder}`"
    check_folder(folder)
    details = read_details(folder)
    needed, known = FILES | {SUMS}, FILES | {SUMS}
    if not (recipe := is_of_a_recipe(details)):
        needed, known = OWN_FILES | {SUMS}, known | {"report.png"}
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    if missing := sorted(needed - present):
        again = "train it again" if recipe else "save it again by zoo.save_model"
        raise ValueError(f"{folder} has no {', '.join(missing)}; {mend if set(missing) <= REMADE else again}")
    if strange := sorted(present - known):
        raise ValueError(f"{folder} has the further files {', '.join(strange)}; remove them, then {mend}")
    if unlisted := sorted((present - {SUMS}) - set(read_sums(folder / SUMS))):
        raise ValueError(f"{folder / SUMS} has no sum of {', '.join(unlisted)}; {mend}")
    yield f"{len(present)} files, all as {SUMS} says"

    if details["name"] != name:
        raise ValueError(f"{folder} holds {details['name']!r}, not {name!r}; publish it by its own name")
    model = load_folder(folder, compile=False)
    read_details(folder, model)  # held to the model now
    with np.load(folder / "golden.npz", allow_pickle=False) as golden:
        inputs, outputs = golden["inputs"], golden["outputs"]
    scale = max(1.0, float(np.abs(outputs).max()))  # a price in the hundred thousands has no digit at 1e-4
    error = float(np.abs(predict(model, inputs) - outputs).max()) / scale
    if not error <= GOLDEN_TOLERANCE:
        raise ValueError(
            f"{folder}: the golden outputs are off by {error:.2g}{f' of {scale:.2g}' * (scale > 1)}, expected at most "
            f"{GOLDEN_TOLERANCE:g}; its files are whole, so Keras {keras.__version__} on {keras.backend.backend()} "
            "computes otherwise than what saved it: try the backend that trained it, or save it again"
        )
    yield f"golden outputs within {error:.1g}{f' of {scale:.2g}' * (scale > 1)}"
    _check_safetensors(model, folder / SAFETENSORS, mend)
    yield f"{SAFETENSORS} holds the same weights"
    yield _check_accuracy(model, details, data_dir) if recipe else "accuracy not measured again: the data are one's own"
    _check_card(folder, model, details, mend)
    yield "the card is complete, and its first snippet runs"


def _check_safetensors(model, path, mend):
    from safetensors.numpy import load_file

    tensors = load_file(path)
    own = {weight.path: value for weight, value in zip(model.weights, model.get_weights(), strict=True)}
    if tensors.keys() != own.keys() or not all(np.array_equal(tensors[key], own[key]) for key in own):
        raise ValueError(f"{path} does not hold the weights of model.weights.h5; {mend}")


def _check_accuracy(model, details, data_dir):
    results = details["results"]
    try:
        dataset = load_dataset(results["dataset"], data_dir, download=False)
    except (FileNotFoundError, ImportError) as error:
        return f"accuracy not measured again, for want of the data: {first_line(error)}"
    check_same_data(details, dataset)
    top1 = evaluate(model, dataset, progress=sys.stdout.isatty())["top1"]
    if abs(top1 - results["top1"]) > TOP1_TOLERANCE:
        raise ValueError(
            f"{details['name']} has top-1 {100 * top1:.2f} % on {dataset.name}, but its recipe.json says "
            f"{100 * results['top1']:.2f} %; train it again"
        )
    return f"top-1 {100 * top1:.2f} % measured again on the {results['rows']:,} test rows of {dataset.name}"


def _check_card(folder, model, details, mend):
    from huggingface_hub import ModelCard

    recipe, name = is_of_a_recipe(details), details["name"]
    card = ModelCard.load(folder / "README.md", ignore_metadata_errors=False)
    license = LICENSE if recipe else details.get("license")
    if card.data.license != license:
        raise ValueError(f"{folder}/README.md has the licence {card.data.license!r}, expected {license!r}; {mend}")
    if (card.data.eval_results or []) != eval_results(details):
        raise ValueError(f"{folder}/README.md has another model-index than recipe.json gives; {mend}")
    parts = ("![training curves](curves.png)", "## Training", "## Limits", "Spread: ", "Paper: ")
    for part in parts if recipe else ():
        if part not in card.text:
            raise ValueError(f"{folder}/README.md lacks {part!r}; {mend}")
    address = name if recipe else f"./{name}"
    ours = snippet(address, example_shape(model), model.output_shape[-1], "table" in details)
    found = re.search(r"```python\n.*?```\n", card.text, flags=re.DOTALL)
    # What is run is our own text, never the file's: this process can read the token.
    if not found or found[0] != ours:
        raise ValueError(f"{folder}/README.md does not begin with the snippet that loads the model; {mend}")
    # By the folder: a model that is not published yet has no name to load it by.
    code = ours.removeprefix("```python\n").removesuffix("```\n")
    code = code.replace(f'load_model("{address}")', f"load_model({str(folder.absolute())!r})")
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # the shape, and Keras's progress bar
            exec(compile(code, "README.md", "exec"), {})
    except Exception as error:
        raise ValueError(f"{folder}/README.md: its snippet fails ({first_line(error)}); {mend}") from error


def _upload(folder, repository, private, tag, name):
    """(commit, whether anything was changed)."""
    from huggingface_hub import CommitOperationAdd
    from huggingface_hub import CommitOperationDelete
    from huggingface_hub import HfApi
    from huggingface_hub import ModelCard

    api = HfApi(library_name="keras-mpelu")
    ModelCard.load(folder / "README.md").validate()  # before anything is made
    api.create_repo(repository, private=private, exist_ok=True)
    before = api.model_info(repository, files_metadata=True)
    wanted = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    there = sums_of(before)
    operations = [
        CommitOperationAdd(path_in_repo=file, path_or_fileobj=path)
        for file, path in wanted.items()
        if file not in there or not agrees(path, there[file])
    ]
    operations += [CommitOperationDelete(path_in_repo=file) for file in there if file not in {*wanted, *KEPT}]
    commit = before.sha
    if operations:
        message = f"Publish {name}, {tag}"
        commit = api.create_commit(repository, operations, commit_message=message, parent_commit=before.sha).oid
    _check_arrived(api, repository, commit, wanted)

    tagged = {reference.name: reference.target_commit for reference in api.list_repo_refs(repository).tags}
    if tag not in tagged:
        api.create_tag(repository, tag=tag, revision=commit)
    elif tagged[tag] != commit:  # the same content, published once before
        _check_arrived(api, repository, tagged[tag], wanted)
    return commit, bool(operations) or tag not in tagged


def _check_arrived(api, repository, commit, wanted):
    there = sums_of(api.model_info(repository, revision=commit, files_metadata=True))
    for file, path in wanted.items():
        if file not in there or not agrees(path, there[file]):
            raise OSError(f"{file} at commit {commit} of {repository} is not the one that was sent")


def describe(publication, family):
    """What to tell whoever published, with the line for the family's table; `None` for anyone's own model."""
    name = publication.repository.partition("/")[2]
    lines = [f"checked: {check}" for check in publication.checks]
    if publication.commit is None:
        lines.append(f"dry run: would publish {publication.repository}, tag {publication.tag}")
    else:
        did = "published" if publication.changed else "nothing to do: already published as"
        lines.append(f"{did} {endpoint()}/{publication.repository} at {publication.commit}, tag {publication.tag}")
    if family is None:
        lines.append(f'load it with zoo.load_model("hf://{publication.repository}@{publication.tag}")')
    else:
        lines.append(f'pin, for WEIGHTS in zoo/{family}.py: "{name}": "{publication.pin}",')
    return "\n".join(lines)
