"""`results/models.csv` and the README's table, from the index of the bundled folders."""

import csv
import io
import pathlib

from zoo.details import mean_and_spread
from zoo.registry import list_models
from zoo.registry import model_info
from zoo.registry import train_command

FINETUNING = "<!-- fine-tuning: made by `python -m training report` -->", "<!-- end of fine-tuning -->"
START, END = "<!-- results: made by `python -m training report` -->", "<!-- end of results -->"

# Others' weights for the same task, from their own pages; none was measured here.
PEERS = {
    "relu_resnet20.cifar100": "pytorchcv 70.36 (best epoch on test), chenyaofo 68.83 (test as validation)",
}


def results_csv():
    """One row per published model, as CSV text."""
    text = io.StringIO()
    writer = None
    for name in list_models(pretrained=True):
        info = model_info(name)
        mean, spread = mean_and_spread(info["top1_by_seed"])
        runs = [info, *info.get("added", ())]  # seeds that were trained together, and those that were added
        row = {
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
            "train": info.get("command", train_command(name)),
            "measure": f"python -m zoo evaluate {name}",
        }
        writer = writer or csv.DictWriter(text, row, lineterminator="\n")
        if not text.tell():
            writer.writeheader()
        writer.writerow(row)
    return text.getvalue()


def readme_table(results):
    """The README's tables, from the text of results/models.csv: all but the UCI tasks, and these in a fold."""
    rows = list(csv.DictReader(io.StringIO(results)))
    of_uci = [row for row in rows if row["dataset"].startswith("uci/")]
    text = _table([row for row in rows if row not in of_uci])
    if not of_uci:
        return text
    lines = [
        "",
        f"<details><summary>Self-normalizing networks for {len(of_uci)} UCI tasks</summary>",
        "",
        "| model | test rows | top-1, ours | paper's SNN | parameters |",
        "|---|---|---|---|---|",
    ]
    for row in sorted(of_uci, key=lambda row: -int(row["test_rows"])):
        lines.append(
            f"| `{row['name']}` | {int(row['test_rows']):,} | {100 * float(row['top1']):.2f} % | "
            f"{row['paper_top1'] or 'none'} | {int(row['parameters']):,} |"
        )
    return "\n".join([text, *lines, "", "</details>"])


def _table(rows):
    lines = [
        "| model | data | top-1, ours | n | paper | others' weights | parameters | epochs | minutes of all n | "
        "hardware |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        n = len(row["seeds"].split())
        top1 = f"{100 * float(row['top1_mean']):.2f} %"
        if row["top1_spread"]:
            top1 += f" +- {100 * float(row['top1_spread']):.2f}"
        lines.append(
            f"| `{row['name']}` | {row['dataset']} | {top1} | {n} | {row['paper_top1'] or 'none'} | "
            f"{PEERS.get(row['name'], 'none')} | {int(row['parameters']):,} | {row['epochs']} | {row['minutes']} | "
            f"{row['hardware']} |"
        )
    return "\n".join(lines)


def finetuning_sentence(measured):
    """The README's sentence, from the text of results/finetuning.csv."""
    rows = list(csv.DictReader(io.StringIO(measured)))
    accuracy = {
        arm: [float(row["test_accuracy"]) for row in rows if row["arm"] == arm] for arm in ("pretrained", "scratch")
    }
    means = {}
    for arm, values in accuracy.items():
        mean, spread = mean_and_spread(values)
        means[arm] = f"{100 * mean:.1f} +- {100 * spread:.1f} %"
    first = rows[0]
    return "\n".join(
        (
            f"Fine-tuning `{first['model']}` on {first['images']} images of rendered digits, which it has never seen,",
            f"gives {means['pretrained']} on {first['test_rows']} test rows; the same network from scratch",
            f"{means['scratch']} (means of {len(accuracy['scratch'])} seeds, {first['epochs']} epochs, each arm at the "
            "best of five learning rates by another",
            f"{first['images']} images, of equals the lowest; `python -m training benchmark finetuning`, "
            "`results/finetuning.csv`).",
        )
    )


def with_table(readme, results, finetuning):
    """The README with its table and its sentence on fine-tuning replaced."""
    readme = _between(readme, START, END, readme_table(results))
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
    finetuning = (root / "results" / "finetuning.csv").read_text()
    readme.write_text(with_table(readme.read_text(), results, finetuning))
    return root / "results" / "models.csv", readme
