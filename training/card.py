"""Model cards, made from the facts in recipe.json, and folders made up to date with them."""

import itertools
import json
import math
import pathlib
import shutil
import tempfile

import keras
import numpy as np

from keras_mpelu import MPELU
from training.folder_files import SAFETENSORS
from training.folder_files import leave_out_second_copy
from training.folder_files import safetensors_bytes
from training.recipes import MPELU_WEIGHTS
from training.recipes import is_tuned
from training.report import others_weights
from training.text_tables import markdown_table
from zoo import uci
from zoo.card import card_head
from zoo.card import dataset_in_words
from zoo.card import known_dataset
from zoo.card import short_card
from zoo.card import snippet
from zoo.card import source_in_words
from zoo.datasets import load_dataset
from zoo.details import read_details
from zoo.evaluation import top1_by_superclass
from zoo.figures import in_percent
from zoo.figures import mean_and_spread
from zoo.folders import put_in_place
from zoo.folders import sha256
from zoo.folders import write_sums
from zoo.hub import SUMS
from zoo.hub import repository_of
from zoo.inference import predict
from zoo.pretrained import load_folder
from zoo.registry import read_index
from zoo.registry import train_command

LICENSE = "apache-2.0"
OWN_DATA = "own data"  # in place of a data set's name and sum: `python -m training train --data`

# As in the README.
MPELU_IN_WORDS = "f(x) = x for x > 0, alpha * (exp(beta * x) - 1) otherwise, alpha and beta learnt for each channel"
SCALED = {  # by `zoo.uci.Facts.scaling`
    "together": " The authors standardised all rows together, those for testing too, so that every figure on the "
    "test rows, theirs as well, owes them a little.",
    "apart": " The authors standardised the training rows by themselves and the test rows by themselves, so new rows "
    "would need statistics of many of their kind.",
    "": "",
}
AT_ZERO = 0.05  # a median alpha below it counts as 0: MPELU with alpha = 0 is ReLU


def card_text(details, address=None):
    """The card of a model.

    Args:
        details: What `training.run.train` puts in recipe.json.
        address: What it is loaded by where that is not its name, such as
            `hf://namespace/name`.

    Returns:
        Markdown with a YAML head that holds the model index.
    """
    details = json.loads(json.dumps(details))  # tuples print as lists, as they do when recipe.json is read back
    name, results, recipe, data = details["name"], details["results"], details["recipe"], details["data"]
    dataset_name = dataset_in_words(data["name"])
    columns = details["feature_names"]
    input_shape = (len(columns),) if columns else (32, 32, 3)
    command = details.get("command", train_command(name))
    rows = [
        ("top-1 accuracy", f"{100 * results['top1']:.2f} %"),
        ("its 95 % interval, by the number of test rows alone (Wilson)", _interval(results["top1"], data["test_rows"])),
        ("top-5 accuracy", f"{100 * results['top5']:.2f} %") if len(details["class_names"]) > 5 else None,
        ("cross-entropy", f"{results['loss']:.4f} nats"),
        ("expected calibration error, 15 bins", f"{results['ece']:.4f}"),
    ]
    unknown = f'Where the package does not know the name yet: `zoo.load_model("hf://{repository_of(name)}")`. '
    lines = [
        card_head(details, name, tags=[name.partition(".")[0]], license=LICENSE),
        f"# {name}\n",
        snippet(address or name, input_shape, len(details["class_names"])),
        f"{_preprocessing(data['name'])} It needs the package keras-mpelu, and runs on TensorFlow, JAX and PyTorch. "
        f"{'' if address else unknown}After `import keras_mpelu`, plain `keras.saving.load_model` reads the folder "
        "that `huggingface_hub.snapshot_download` gives. There model.safetensors holds the same weights by the names "
        "of the layers.\n",
        f"{_network(name, results)}\n",
        f"Measured on the {data['test_rows']:,} test rows of {dataset_name}, read "
        f"{'before and after rounding' if _storage(results) else 'once'}, after the training; by "
        f"`python -m zoo evaluate {address or name}`:\n",
        *_table(("figure", "these weights"), filter(None, rows)),
        f"Spread: {_spread(results)}\n",
        f"Paper: {_paper_in_words(name)}\n",
    ]
    if "comparison_top1" in details:
        lines.append(
            "The network that our comparison of seven methods selected for these data, 256 wide and trained on at most "
            f"1024 rows a period: {100 * details['comparison_top1']:.2f} % (`results/uci/tasks.csv` of the "
            "repository).\n"
        )
    if peers := others_weights(name):
        lines.append(f"Others' weights for the ReLU network of this size, top-1 in %: {peers}.\n")
    if "cross_validation" in results:
        lines += _cross_validation(results["cross_validation"], chosen=is_tuned(name))
    if "top1_by_superclass" in results:
        lines += _superclasses(results["top1_by_superclass"])
    lines += [
        *_settings(recipe),
        f"Trained on all {data['train_rows']:,} training rows with "
        f"`{command}` in "
        f"{results['minutes']} minutes{_of_seeds(results)} on {results['hardware']} "
        f"({details['versions']['backend']}, Keras {details['versions']['keras']}); the minutes are wall time, and the "
        f"machine may have done other work in that time.{_choices(command, results)}\n",
        *(f"{remark}\n" for remark in details.get("remarks", ())),
        *_teachers(details),
        *_storage(results),
        *_added(results.get("added", ())),
        "![training curves](curves.png)\n",
        "## Data\n",
        f"{_data(details)}\n",
        "## Limits\n",
        *(f"{limit}\n" for limit in _limits(details)),
    ]
    return "\n".join(lines)


def _preprocessing(dataset):
    if dataset.startswith("uci/"):
        return f'Its inputs are the standardised columns that `zoo.load_dataset("{dataset}")` gives.'
    return "Preprocessing is inside the model."


def _network(name, results):
    arch = name.partition(".")[0]
    sources = read_index()["architectures"].get(arch, {}).get("sources", ())
    whose = f"`{arch}` of {', with the units of '.join(sources)}" if sources else f"`{arch}`"
    return (
        f"{whose}: {results['parameters']:,} parameters, {results['macs']:,} multiply-accumulates for an input."
        f"{f' MPELU is {MPELU_IN_WORDS}.' if arch.startswith('mpelu') else ''}"
    )


def _interval(share, rows):
    z = 1.959964  # of the normal distribution, 95 %
    middle = share + z * z / (2 * rows)
    half = z * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    low, high = (100 * (middle + side) / (1 + z * z / rows) for side in (-half, half))
    return f"{low:.2f} to {high:.2f} %"


def _choices(command, results):
    """What was chosen on the test rows; nothing of it where options of one's own led to what is not recorded."""
    words = set(command.split())
    if not {"train", "uci-export"} & words or {"--epochs", "--publish", "--seeds"} & words:
        return ""
    but = " but whether the kernels are rounded (below)" if _storage(results) else ""
    return f" No choice was made on the test rows{but}."


def is_of_a_recipe(details):
    """Whether recipe.json is of `training.run.train` on a data set with a name; else the model is anyone's own."""
    return {"recipe", "results"} <= set(details) and known_dataset(details) is not None


def own_card(model, details, pictures=()):
    """The card of anyone's own model: the short one, and what is known of its training.

    Args:
        model: The model.
        details: What recipe.json holds.
        pictures: Names of the files beside the card.
    """
    details = json.loads(json.dumps(details))
    parts = [short_card(model, details["name"], details)]
    if "table" in details:
        from training.finetune_table import report_text  # which is written in terms of this module

        parts.append(report_text(details, pictures))
    if {"recipe", "results", "versions"} <= set(details) and details.get("data", {}).get("source") == OWN_DATA:
        data, results, versions = details["data"], details["results"], details["versions"]
        parts += [
            *_settings(details["recipe"]),
            f"Trained from random weights on {data['train_rows']:,} rows of {data['name']} (one's own data) in "
            f"{results['minutes']} minutes{_of_seeds(results)} on {results['hardware']} ({versions['backend']}, Keras "
            f"{versions['keras']}).\n",
        ]
    elif {"base_model", "recipe"} <= set(details) and "epochs" in details.get("results", {}):  # of `finetune`
        rows = [*details["recipe"].items(), ("epochs done", details["results"]["epochs"])]
        parts += ["## Training\n", *_table(("setting", "value"), rows)]
    if "curves.png" in pictures:
        parts.append("![training curves](curves.png)\n")
    return "\n".join(parts)


def _settings(recipe):
    rows = [
        (key, value)
        for key, value in recipe.items()
        if key not in ("name", "notes", "multipliers") and value not in ((), {}, [], None)
    ]
    rows += [
        ("alpha and beta of MPELU" if pattern == MPELU_WEIGHTS else pattern, f"{rate:g} x the rate, {decay:g} x the L2")
        for pattern, rate, decay in recipe.get("multipliers", ())
    ]
    return ["## Training\n", f"{recipe['notes']}\n", *_table(("setting", "value"), rows)]


def _added(runs):
    return [
        f"{_seeds(run['seeds']).capitalize()} {'was' if len(run['seeds']) == 1 else 'were'} trained later, with the "
        f"code of that time, by `{run['command']}` in "
        f"{run['minutes']} minutes on {run['hardware']} ({run['versions']['backend']}, Keras "
        f"{run['versions']['keras']}); the weights were not kept.\n"
        for run in runs
    ]


def _of_seeds(results):
    """Minutes are those of all seeds of a training, but for the ones that were added."""
    count = len(results["seeds"]) - sum(len(run["seeds"]) for run in results.get("added", ()))
    return f" for all {count} seeds" if count > 1 else ""


def _seeds(seeds):
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _teachers(details):
    teachers = details.get("teachers")
    if not teachers:
        return []
    names = ", ".join(f"{name} (model.weights.h5 {digest[:12]})" for name, digest in teachers.items())
    return [f"Its teachers: {names}. The minutes leave out their answers, which were made before.\n"]


def _storage(results):
    if "top1_if_rounded" in results:
        return [
            "With the kernels rounded to float16 (`python -m training compact`) top-1 would be "
            f"{100 * results['top1_if_rounded']:.2f} %, over 0.02 points apart, so they stay in float32.\n"
        ]
    before = results.get("top1_in_float32")
    if before is None:
        return []
    changed = "changed by more than 0.02 points" if results["rows"] >= 5000 else "changed"  # a row is more than that
    return [
        "The kernels were then rounded to float16, in which the files hold them (`python -m training compact`): top-1 "
        f"was {100 * before:.2f} % before; had it {changed}, they would have stayed in float32. "
        "The loaded model is in float32."
        f"{'' if len(results['seeds']) == 1 else ' The figures of the other seeds are in float32.'}\n"
    ]


def rewrite(folder, data_dir=None, details=None):
    """Makes the card, model.safetensors and the sums of a finished folder anew, without training.

    Everything comes from recipe.json and the weights, which stay as they are,
    as does the picture. What a newer version says of a model and recipe.json
    lacks is measured anew and added, where the data are at hand. The folder is
    replaced whole or not at all.

    Args:
        folder: A folder as `training.run.train`, `training.finetune` or
            `zoo.save_model` makes it.
        data_dir: Where `zoo.load_dataset` looks first.
        details: What recipe.json is to hold (default: what it holds).

    Returns:
        The pin: the sha256 of the new SHA256SUMS, for the family's table.

    Raises:
        ValueError: the folder is not sound.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {str(folder)!r}")
    model = load_folder(folder, compile=False)
    changed = details is not None
    details = details or read_details(folder, model) or {"name": folder.absolute().name}
    if is_of_a_recipe(details):
        missing, learned = _missing_figures(details, model, data_dir), what_was_learned(model)
        changed = changed or bool(missing) or not learned.items() <= details.items()
        details["results"].update(missing)
        details.update(learned)
    new = pathlib.Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        shutil.copytree(folder, new, dirs_exist_ok=True)
        if changed:
            (new / "recipe.json").write_text(json.dumps(details, indent=1) + "\n")
        pictures = {path.name for path in new.glob("*.png")}
        card = card_text(details) if is_of_a_recipe(details) else own_card(model, details, pictures)
        (new / "README.md").write_text(card, encoding="utf-8")
        (new / SAFETENSORS).write_bytes(safetensors_bytes(model))
        write_sums(new)
        leave_out_second_copy(new, folder)
        new.chmod(0o755)  # mkdtemp makes it private
        put_in_place(new, folder)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    return sha256(folder / SUMS)


def _missing_figures(details, model, data_dir):
    """Figures of the test rows that recipe.json lacks."""
    if details["data"]["name"] != "cifar100" or "top1_by_superclass" in details["results"]:
        return {}
    try:
        dataset = load_dataset("cifar100", data_dir, download=False)
    except OSError:
        return {}
    return by_superclass(dataset, predict(model, dataset.x_test))


def by_superclass(dataset, logits):
    """What the card of a CIFAR-100 model says beside the figures of every data set."""
    if dataset.name != "cifar100":
        return {}
    return {"top1_by_superclass": top1_by_superclass(logits.argmax(axis=1), dataset.y_test, dataset.class_names)}


def what_was_learned(model):
    """What the card of a network with MPELU says of its alphas: in how many layers their median is 0, of how many."""
    medians = [
        float(np.median(keras.ops.convert_to_numpy(layer.alpha))) for layer in model.layers if isinstance(layer, MPELU)
    ]
    if not medians:
        return {}
    return {"learned": {"mpelu_layers": len(medians), "of_alpha_0": sum(abs(median) < AT_ZERO for median in medians)}}


def _table(header, rows):
    return [markdown_table(header, rows) + "\n"]


def _spread(results):
    mean, spread = mean_and_spread(results["top1_by_seed"])
    if spread is None:
        return f"n = 1 (seed {results['seeds'][0]}), so none can be given."
    seeds = results["seeds"]
    of = f"(n = {len(seeds)}, {_seeds(seeds)}; the first is published)"
    return f"{100 * mean:.2f} +- {100 * spread:.2f} % top-1 {of}."


def _paper(name):
    """The paper's top-1 for this network on this data set, or None."""
    arch, _, tag = name.partition(".")
    return read_index()["architectures"].get(arch, {}).get("paper", {}).get(tag)


def _paper_in_words(name):
    arch = read_index()["architectures"].get(name.partition(".")[0], {})
    sources = [source.partition(" (")[0] for source in arch.get("sources", ())]
    # Where Li et al. took a network over, the figures of it with MPELU are theirs.
    whose = next((source for source in sources if source.startswith("Li et al.")), sources[0] if sources else "it")
    if figure := _paper(name):
        return f"top-1 {in_percent(figure)} ({whose})."
    paper = arch.get("paper", {})
    others = "; ".join(f"{other}: {in_percent(figure)}" for other, figure in itertools.islice(paper.items(), 3))
    others += f"; and {len(paper) - 3} more" if len(paper) > 3 else ""
    return f"no figure for this network on this data set{f' ({whose}: {others})' if others else ''}."


def _cross_validation(result, chosen):
    rows = [(method, f"{100 * mean:.2f} +- {100 * std:.2f} %") for method, (mean, std) in result["accuracy"].items()]
    return [
        f"The recipe, not these weights: accuracy in {result['folds']}-fold stratified cross-validation over all "
        f"{result['rows']:,} rows (mean +- standard deviation of the folds), all methods in one run:\n",
        *_table(("method", "accuracy"), rows),
        f"The network's settings were {'chosen on part of these rows' if chosen else 'set beforehand'}; the forest and "
        "the SVM were not tuned.\n",
    ]


def _superclasses(top1):
    best_first = sorted(top1.items(), key=lambda item: -item[1])
    rows = [(name.replace("_", " "), f"{100 * share:.1f} %") for name, share in best_first]
    title = "Top-1 (of the fine classes) by superclass, 500 test images each:\n"
    return [title, *_table(("superclass", "top-1"), rows)]


def _data(details):
    """Where the rows come from, how many they are, their columns and classes."""
    data, classes, columns = details["data"], details["class_names"], details["feature_names"]
    sizes = [f"{data['train_rows']:,} training"]
    sizes += [f"{data['validation_rows']:,} validation"] if "validation_rows" in data else []
    words = (
        f"{source_in_words(data['name'])}. {', '.join(sizes)} and {data['test_rows']:,} test rows; the sha256 of all "
        f'of them begins with {data["sha256"][:12]}, as `zoo.load_dataset("{data["name"]}").sha256`. The licence above '
        "is of the weights; for that of the data see their source."
    )
    if data["name"].startswith("uci/"):
        scaled = SCALED[uci.facts()[data["name"].removeprefix("uci/")].scaling]
        nameless = (
            f"The {len(classes)} classes and the {len(columns)} columns are counted from 0: they have no names there."
        )
        return f"{words} {nameless}{scaled}"
    columns = f" Columns: {', '.join(columns)}." if columns else ""
    return f"{words}{columns} Classes: {', '.join(classes)}."


def _limits(details):
    yield _limits_of(details["data"]["name"])
    if "learned" in details:
        layers, at_zero = details["learned"]["mpelu_layers"], details["learned"]["of_alpha_0"]
        close = ", so it is close to a ReLU network" if 2 * at_zero > layers else ""
        yield f"In {at_zero} of its {layers} MPELU layers the median alpha is near 0 (below {AT_ZERO} in size){close}."


def _limits_of(dataset):
    if dataset.startswith("cifar"):
        classes = {"cifar10": "10 CIFAR-10", "cifar100": "100 CIFAR-100"}[dataset]
        return (
            f"Made for 32 x 32 photographs of the {classes} classes; larger images are to be scaled down first "
            "(`python -m zoo predict` does). The images carry the biases of the web search that they come from."
        )
    if dataset.startswith("uci/"):
        return (
            "Takes the SNN authors' columns, which are standardised already; raw UCI values would need the authors' "
            "scaling, which is not published."
        )
    return "Knows only the columns and classes of this small data set; a demonstration, not a diagnosis."
