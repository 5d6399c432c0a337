"""Model cards: the head that the Hub reads, and the short card of anyone's saved model."""

from zoo.datasets import CIFAR
from zoo.datasets import SCIKIT_LEARN
from zoo.datasets import list_datasets
from zoo.figures import mean_and_spread
from zoo.hub import SCHEME
from zoo.hub import repository_of
from zoo.registry import read_index
from zoo.uci import ARCHIVE

TOY_DATASETS = "https://scikit-learn.org/stable/datasets/toy_dataset.html"
SOURCES = {  # data set -> where its rows come from
    "cifar10": "CIFAR-10 (Krizhevsky, 2009, https://www.cs.toronto.edu/~kriz/cifar.html)",
    "cifar100": "CIFAR-100 (Krizhevsky, 2009, https://www.cs.toronto.edu/~kriz/cifar.html)",
    **{
        name: f"`sklearn.datasets.load_{name}()`, from the UCI repository ({TOY_DATASETS}), in a split of our own"
        for name in SCIKIT_LEARN
    },
}
DATASETS = {  # data set -> name in words
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "digits": "scikit-learn digits (8 x 8 images as 64 columns)",
    "wine": "scikit-learn wine",
    "breast_cancer": "scikit-learn breast cancer (Wisconsin diagnostic)",
}


def dataset_in_words(name):
    return DATASETS.get(name, f"{name.removeprefix('uci/')} (UCI, the SNN authors' files)" if "uci/" in name else name)


def source_in_words(name):
    """Where the rows of one of our data sets come from."""
    if name in SOURCES:
        return SOURCES[name]
    task = name.removeprefix("uci/")
    return (
        f"`{task}` of the UCI repository (https://archive.ics.uci.edu) in the files of Klambauer et al. ({ARCHIVE}), "
        "column 0 of their folds"
    )


def known_dataset(details):
    """Name of the data set of ours that a model was trained on; `None` for one's own rows, however they are called."""
    data = details.get("data", {})
    ours = data.get("name") in list_datasets()
    return data["name"] if ours and "sha256" in data and "source" not in data else None


def card_head(details, name, tags=(), license=None):
    """The YAML head of a card, between its lines of dashes.

    Args:
        details: What recipe.json holds: `data`, `results`, `feature_names`
            and, for a fine-tuned model, `base_model`.
        name: Name of the model.
        tags: Tags beside the usual ones.
        license: SPDX identifier in lower case, as the Hub wants it.
    """
    from huggingface_hub import ModelCardData

    dataset = known_dataset(details)
    results = eval_results(details)
    base = details.get("base_model")
    if base in read_index()["models"]:
        base = repository_of(base)
    elif base and base.startswith(SCHEME):
        base = base.removeprefix(SCHEME).partition("@")[0]
    else:
        base = None  # a path on somebody's disk, or an architecture: the Hub knows neither
    head = ModelCardData(
        library_name="keras",
        license=license,
        pipeline_tag=f"{_kind(details)}-classification" if results else None,
        tags=["keras", "keras-mpelu", *tags],
        datasets=[CIFAR[dataset].repo] if dataset in CIFAR else None,
        metrics=["accuracy"] if results else None,
        base_model=base,
        base_model_relation="finetune" if base else None,
        model_name=name if results else None,
        eval_results=results or None,
    )
    return f"---\n{head.to_yaml()}\n---\n"


def eval_results(details):
    """The figures as huggingface_hub's `EvalResult`s: the published seed, and the mean of several.

    A data set of the Hub is named by its id, configuration and revision; any
    other by our own name, and one's own rows as such, since the Hub's format
    wants a name.
    """
    from huggingface_hub import EvalResult

    results, dataset = details.get("results", {}), known_dataset(details)
    if "top1" not in results or not details.get("data"):
        return []
    facts = CIFAR.get(dataset)
    where = {
        "task_type": f"{_kind(details)}-classification",
        "dataset_type": facts.repo if facts else dataset or "own-data",
        "dataset_name": dataset_in_words(dataset) if dataset else "own data",
        "dataset_config": dataset if facts else None,
        "dataset_split": "test" if dataset else "validation",
        "dataset_revision": facts.revision if facts else None,
        "metric_type": "accuracy",
    }
    seeds, by_seed = results.get("seeds"), results.get("top1_by_seed", [results["top1"]])
    of_seed = f"Top-1, seed {seeds[0]}" if seeds else "Top-1"  # whoever calls zoo.save_model may name none
    found = [EvalResult(**where, metric_value=results["top1"], metric_name=of_seed)]
    mean, spread = mean_and_spread(by_seed)
    if spread is not None:
        found.append(
            EvalResult(
                **where,
                metric_value=mean,
                metric_name=f"Top-1, mean of {len(by_seed)} seeds",
                metric_args={**({"seeds": list(seeds)} if seeds else {}), "standard_deviation": spread},
            )
        )
    return found


def _kind(details):
    return "tabular" if details.get("feature_names") else "image"


def snippet(address, model_input, outputs, of_table=False):
    """The first lines that a reader of the card needs; every card's are run by the tests."""
    count = ", ".join(map(str, model_input))
    if len(model_input) == 3:
        inputs = f'inputs = np.zeros((2, {count}), "uint8")  # images: 0 to 255, height x width x channels'
    elif of_table:
        inputs = f'inputs = np.zeros((2, {count}), "float32")  # rows: the table as the command below encodes it'
    else:
        inputs = f'inputs = np.zeros((2, {count}), "float32")  # rows: the columns as they are in the data'
    return (
        f'```python\nimport numpy as np\nimport zoo\n\nmodel = zoo.load_model("{address}")\n{inputs}\n'
        f"print(model.predict(inputs).shape)  # (2, {outputs})\n```\n"
    )


def example_shape(model):
    """Shape of one input of a model; a size that it leaves open is 32."""
    return tuple(32 if size is None else size for size in model.inputs[0].shape[1:])


def short_card(model, name, details):
    """The card that `zoo.save_model` writes where none is given."""
    # Where the layers are registered that Keras has not.
    module = "zoo.deploy" if any(type(layer).__module__ == "zoo.deploy" for layer in model.layers) else "keras_mpelu"
    results, classes, base = details.get("results", {}), details.get("class_names", []), details.get("base_model")
    lines = [
        card_head(details, name, license=details.get("license")),
        f"# {name}\n",
        snippet(f"./{name}", example_shape(model), model.output_shape[-1], "table" in details),
        *([f"`python -m zoo predict ./{name} FILE.csv` takes the table as it is.\n"] if "table" in details else ()),
        f"Once uploaded, `hf://NAMESPACE/{name}` takes the place of `./{name}`. It needs keras-mpelu; after "
        f"`import {module}`, plain `keras.saving.load_model` reads the folder too.\n",
        f"`{model.name}`, {model.count_params():,} parameters"
        + (f", fine-tuned from `{base}`" if base and base not in read_index()["architectures"] else "")
        + ".\n",
    ]
    if classes:
        lines.append(f"Classes: {', '.join(map(str, classes[:100]))}{', ...' if len(classes) > 100 else ''}.\n")
    if "top1" in results:
        mean, spread = mean_and_spread(results.get("top1_by_seed", [results["top1"]]))
        several = (
            f"; {100 * mean:.2f} +- {100 * spread:.2f} % of seeds {results.get('seeds', 'unnamed')}"
            if spread is not None
            else ""
        )
        rows = f"{results['rows']:,} " if "rows" in results else ""
        lines.append(
            f"Top-1 accuracy {100 * results['top1']:.2f} % on {rows}held-out rows"
            f"{several or '; n = 1, so no spread can be given'}.\n"
        )
    known = "the classes above, and only " if classes else ""
    lines.append(f"## Limits\n\nKnows only {known}inputs like those that it was trained on.\n")
    return "\n".join(lines)
