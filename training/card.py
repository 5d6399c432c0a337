"""Model cards, made from the facts in recipe.json."""

from training.report import PEERS
from training.report import mean_and_spread
from zoo.registry import read_index

DATASETS = {  # data set -> (Hub id, or our own name where it is not on the Hub; name in words)
    "cifar100": ("uoft-cs/cifar100", "CIFAR-100"),
    "digits": ("digits", "scikit-learn digits (8 x 8 images as 64 columns)"),
    "wine": ("wine", "scikit-learn wine"),
    "breast_cancer": ("breast_cancer", "scikit-learn breast cancer (Wisconsin diagnostic)"),
}


def card_text(details):
    """The card of a model.

    Args:
        details: What `training.run.train` puts in recipe.json.

    Returns:
        Markdown with a YAML head that holds the model index.
    """
    from huggingface_hub import EvalResult
    from huggingface_hub import ModelCardData

    name, results, recipe, data = details["name"], details["results"], details["recipe"], details["data"]
    dataset_id, dataset_name = DATASETS.get(data["name"], (data["name"], data["name"]))
    images = "image" if not details["feature_names"] else "tabular"
    head = ModelCardData(
        library_name="keras",
        license="apache-2.0",
        pipeline_tag=f"{images}-classification",
        tags=["keras", "keras-mpelu", name.partition(".")[0]],
        datasets=[dataset_id] if data["name"] == "cifar100" else None,
        model_name=name,
        eval_results=[
            EvalResult(
                task_type=f"{images}-classification",
                dataset_type=dataset_id,
                dataset_name=dataset_name,
                dataset_split="test",
                metric_type="accuracy",
                metric_value=results["top1"],
                metric_name=f"Top-1, seed {results['seeds'][0]}",
            )
        ],
    )
    rows = [
        ("top-1 accuracy", f"{100 * results['top1']:.2f} %"),
        ("top-5 accuracy", f"{100 * results['top5']:.2f} %") if len(details["class_names"]) > 5 else None,
        ("cross-entropy", f"{results['loss']:.4f} nats"),
        ("expected calibration error, 15 bins", f"{results['ece']:.4f}"),
    ]
    lines = [
        f"---\n{head.to_yaml()}\n---\n",
        f"# {name}\n",
        f'```python\nimport zoo\n\nmodel = zoo.load_model("{name}")\n'
        f'print(zoo.evaluate(model, "{data["name"]}"))\n```\n',
        f"Measured on the {data['test_rows']:,} test rows of {dataset_name}, read once, after the last epoch; by "
        f"`python -m zoo evaluate {name}`:\n",
        *_table(("figure", "value"), filter(None, rows)),
        f"Spread: {_spread(results)}\n",
        f"Paper: {_paper(name)}\n",
    ]
    relu_name = f"relu_{name.partition('_')[2]}"
    if relu_name in PEERS:
        lines.append(f"Others' weights for the ReLU network of this size, top-1 in %: {PEERS[relu_name]}.\n")
    if "cross_validation" in results:
        lines += _cross_validation(results["cross_validation"])
    lines += [
        "## Training\n",
        f"{recipe['notes']}\n",
        *_table(
            ("setting", "value"),
            [
                (key, value)
                for key, value in recipe.items()
                if key not in ("name", "notes") and value not in ((), {}, [])
            ],
        ),
        f"Trained on all {data['train_rows']:,} training rows with `python -m training train {name}` in "
        f"{results['minutes']} minutes on {results['hardware']} ({details['versions']['backend']}, Keras "
        f"{details['versions']['keras']}). No choice was made on the test rows.\n",
        "![training curves](curves.png)\n",
        "## Limits\n",
        _limits(data["name"]) + "\n",
    ]
    return "\n".join(lines)


def _table(header, rows):
    lines = [f"| {header[0]} | {header[1]} |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows)]
    return ["\n".join(lines) + "\n"]


def _spread(results):
    mean, spread = mean_and_spread(results["top1_by_seed"])
    if spread is None:
        return f"n = 1 (seed {results['seeds'][0]}), so none can be given."
    seeds = results["seeds"]
    return f"{100 * mean:.2f} +- {100 * spread:.2f} % top-1 (n = {len(seeds)}, seeds {seeds}; the first is published)."


def _paper(name):
    arch, _, tag = name.partition(".")
    paper = read_index()["architectures"].get(arch, {}).get("paper", {})
    if tag in paper:
        return f"top-1 {paper[tag]}."
    others = "; ".join(f"{other}: {figure}" for other, figure in paper.items())
    return f"no figure for this network on this data set{f' (it has {others})' if others else ''}."


def _cross_validation(result):
    rows = [(method, f"{100 * mean:.2f} +- {100 * std:.2f} %") for method, (mean, std) in result["accuracy"].items()]
    return [
        f"The recipe, not these weights: accuracy in {result['folds']}-fold stratified cross-validation over all "
        f"{result['rows']:,} rows (mean +- standard deviation of the folds), all methods in one run:\n",
        *_table(("method", "accuracy"), rows),
        "The network's settings were chosen on part of these rows; the forest and the SVM were not tuned.\n",
    ]


def _limits(dataset):
    if dataset == "cifar100":
        return (
            "Made for 32 x 32 photographs of the 100 CIFAR-100 classes; larger images are to be scaled down first "
            "(`python -m zoo predict` does). The images carry the biases of the web search that they come from."
        )
    return "Knows only the columns and classes of this small data set; a demonstration, not a diagnosis."
