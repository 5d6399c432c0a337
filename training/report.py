"""`results/models.csv` and the README's table, from the index of the bundled folders."""

import csv
import io
import pathlib
import re
from statistics import fmean

from training.text_tables import csv_text
from training.text_tables import markdown_table
from zoo.figures import in_percent
from zoo.figures import mean_and_spread
from zoo.registry import list_models
from zoo.registry import model_info
from zoo.registry import train_command

FINETUNING = "<!-- fine-tuning: made by `python -m training report` -->", "<!-- end of fine-tuning -->"
START, END = "<!-- results: made by `python -m training report` -->", "<!-- end of results -->"

# Others' weights for the ReLU network of the size, top-1 in percent from their own pages; none was measured here.
PEERS = {
    "resnet20.cifar100": "pytorchcv 70.36 (best epoch on test), chenyaofo 68.83 (test as validation)",
    "resnet32.cifar100": "chenyaofo 70.16 (test as validation)",
}


def others_weights(name):
    """What others' weights for the ReLU network of a model's size and data have, or nothing.

    >>> others_weights("mpelu_resnet32.cifar100-modern")
    'chenyaofo 70.16 (test as validation)'
    """
    return PEERS.get(name.partition("-")[0].partition("_")[2], "")


def results_csv():
    """One row per published model, as CSV text."""
    rows = []
    for name in list_models(pretrained=True):
        info = model_info(name)
        mean, spread = mean_and_spread(info["top1_by_seed"])
        runs = [info, *info.get("added", ())]  # seeds that were trained together, and those that were added
        rows.append(
            {
                "name": name,
                "dataset": info["dataset"],
                "test_rows": info["rows"],
                "parameters": info["parameters"],
                "macs": info["macs"],
                "epochs": info["epochs"],
                "seeds": " ".join(map(str, info["seeds"])),
                "top1": round(info["top1"], 6),
                "top1_mean": round(mean, 6),
                "top1_spread": "" if spread is None else round(spread, 6),
                "top5": round(info["top5"], 6),
                "loss": round(info["loss"], 6),
                "ece": round(info["ece"], 6),
                "paper_top1": info.get("paper", {}).get(name.partition(".")[2], ""),
                "minutes": round(sum(run["minutes"] for run in runs), 1),
                "hardware": "; ".join(dict.fromkeys(run["hardware"] for run in runs)),
                "train": "; ".join(
                    [info.get("command", train_command(name)), *(run["command"] for run in info.get("added", ()))]
                ),
                "measure": f"python -m zoo evaluate {name}",
            }
        )
    return csv_text(rows)


def readme_table(results, comparison):
    """The README's tables: all but the UCI tasks, and these in a fold.

    Args:
        results: The text of results/models.csv.
        comparison: That of results/uci/tasks.csv.
    """
    rows = list(csv.DictReader(io.StringIO(results)))
    of_uci = [row for row in rows if row["dataset"].startswith("uci/")]
    text = _table([row for row in rows if row not in of_uci])
    if not of_uci:
        return text
    compared = {row["task"]: float(row["SNN"]) for row in csv.DictReader(io.StringIO(comparison))}
    cells = []
    for row in sorted(of_uci, key=lambda row: -int(row["test_rows"])):
        task = row["dataset"].removeprefix("uci/")
        selected = _percent(compared[task]) if task in compared else "none"
        cells.append([*_measured(row), selected, _paper(row), f"{int(row['parameters']):,}"])
    header = ("model", "test rows", "top-1, these weights", "SNN of our comparison", "paper's SNN", "parameters")
    lines = [
        "",
        f"<details><summary>Self-normalizing networks for {len(of_uci)} UCI tasks</summary>",
        "",
        *_of_uci_in_words(of_uci, compared),
        "",
        markdown_table(header, cells),
        "",
        "</details>",
    ]
    return "\n".join([text, *lines])


def _of_uci_in_words(rows, compared):
    """How these networks were chosen, and how they stand by the comparison's and the paper's."""
    both = [row for row in rows if row["dataset"].removeprefix("uci/") in compared and row["paper_top1"]]
    ours, theirs = ([float(row[key]) for row in both] for key in ("top1", "paper_top1"))
    selected = [compared[row["dataset"].removeprefix("uci/")] for row in both]
    # The paper's figures have four digits.
    better, worse = (sum(sign * round(a - b, 4) > 0 for a, b in zip(ours, theirs, strict=True)) for sign in (1, -1))
    return [
        "Each is the smallest network that is not worse on the validation rows than the one that the comparison "
        "selected there,",
        "256 wide, or the best of less than 90,000 parameters; which tasks have one was decided by hand, the large "
        "ones first.",
        f"Mean of {len(both)}: these {_percent(fmean(ours))}, the comparison's (at most 1024 rows a period, where most "
        f"of these make full passes) {_percent(fmean(selected))},",
        f"the paper's {_percent(fmean(theirs))}; these are better than the paper's on {better}, equal on "
        f"{len(both) - better - worse}, worse on {worse}.",
    ]


def _percent(share):
    return f"{100 * float(share):.2f} %"


def _paper(row):
    return in_percent(row["paper_top1"]) if row["paper_top1"] else "none"


def _measured(row):
    return f"`{row['name']}`", f"{int(row['test_rows']):,}", _percent(row["top1"])


def _table(rows):
    header = (
        "model",
        "data",
        "test rows",
        "top-1, these weights",
        "mean of n seeds",
        "n",
        "paper",
        "others' ReLU networks, by the test rows",
        "parameters",
        "epochs",
        "minutes of all n",
        "hardware",
    )
    cells = []
    for row in rows:
        name, test_rows, top1 = _measured(row)
        peers = re.sub(r" \(.*?\)", "", others_weights(row["name"]))  # how they used these is on the cards
        mean = ""
        if row["top1_spread"]:
            mean = f"{100 * float(row['top1_mean']):.2f} +- {_percent(row['top1_spread'])}"
        cells.append(
            [
                name,
                row["dataset"],
                test_rows,
                top1,
                mean,
                len(row["seeds"].split()),
                _paper(row),
                peers or "none",
                f"{int(row['parameters']):,}",
                row["epochs"],
                row["minutes"],
                row["hardware"],
            ]
        )
    return markdown_table(header, cells)


def finetuning_sentence(measured):
    """The README's sentence, from the text of results/finetuning.csv."""
    from scipy.stats import ttest_ind

    rows = list(csv.DictReader(io.StringIO(measured)))
    accuracy = {
        arm: [float(row["test_accuracy"]) for row in rows if row["arm"] == arm] for arm in ("pretrained", "scratch")
    }
    means = {}
    for arm, values in accuracy.items():
        mean, spread = mean_and_spread(values)
        means[arm] = f"{100 * mean:.1f} +- {100 * spread:.1f} %"
    p = float(ttest_ind(accuracy["pretrained"], accuracy["scratch"], equal_var=False).pvalue)
    first = rows[0]
    return "\n".join(
        (
            f"Fine-tuning `{first['model']}` on {first['images']} images of rendered digits, which it has never seen,",
            f"gives {means['pretrained']} on {first['test_rows']} test rows; the same network from scratch",
            f"{means['scratch']} (means of {len(accuracy['scratch'])} seeds, {first['epochs']} epochs, each arm at the "
            "best of five learning rates by another",
            f"{first['images']} images, of equals the lowest; Welch's t-test: p {p:.2f}; `python -m training benchmark "
            "finetuning`,",
            "`results/finetuning.csv`).",
        )
    )


def with_table(readme, results, comparison, finetuning):
    """The README with its tables and its sentence on fine-tuning replaced."""
    readme = _between(readme, START, END, readme_table(results, comparison))
    return _between(readme, *FINETUNING, finetuning_sentence(finetuning))


def _between(readme, start, end, text):
    before, _, rest = readme.partition(start)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"README.md has no lines {start!r} and {end!r}")
    return f"{before}{start}\n{text}\n{end}{after}"


def report(root="."):
    """Writes both; returns their paths."""
    root = pathlib.Path(root)
    readme = root / "README.md"
    if not readme.is_file():
        raise FileNotFoundError(f"no {readme}; run this in the root of the repository")
    results = results_csv()
    (root / "results" / "models.csv").write_text(results)
    measured = [(root / "results" / file).read_text() for file in ("uci/tasks.csv", "finetuning.csv")]
    text = with_table(readme.read_text(encoding="utf-8"), results, *measured)
    readme.write_text(text, encoding="utf-8", newline="\n")
    return root / "results" / "models.csv", readme
