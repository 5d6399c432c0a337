"""The report of the comparison on the UCI tasks: ours, the paper's, and scikit-learn's methods, on the same tasks.

`python -m training benchmark uci-report` makes `report.md`, `tasks.csv` and
`critical_difference.png` in the folder of the results from `runs.csv`,
`ensembles.csv`, `classical.csv` and `paper.csv` there. It counts the tasks that have no defect
and on which every method of ours is complete, and says how many these are.
"""

import collections
import csv
import pathlib
from typing import NamedTuple

import numpy as np

from training import uci_ensemble
from training.text_tables import markdown_table
from training.uci import FIELDS
from training.uci import read_slice
from training.uci import rows_of
from training.uci import select
from training.uci_ensemble import ENSEMBLE
from training.uci_ensemble import FULL
from training.uci_ensemble import SEED
from zoo import uci

LEVEL = 0.05  # of the critical difference
FEW_TEST_ROWS = 100
COLUMNS = ["method", "mean accuracy", "average rank", "p, SNN not better", "p, no difference", "SNN win/tie/loss"]
OURS = "SNN, five or full passes (ours)"
# Tasks with so many test rows that sampling errors are below a percentage point, and no defect.
LARGE = (
    "letter pendigits statlog-landsat optical magic adult connect-4 chess-krvk statlog-shuttle nursery thyroid twonorm "
    "ringnorm"
).split()


class Table(NamedTuple):
    """Accuracies `(tasks, methods)`."""

    tasks: list
    methods: list
    accuracy: np.ndarray

    def of(self, tasks):
        rows = [self.tasks.index(task) for task in tasks]
        return Table(list(tasks), self.methods, self.accuracy[rows])


def run(out):
    """Writes the report.

    Args:
        out: Folder of the results; the files are in `out/uci`.

    Returns:
        The path of report.md.

    Raises:
        FileNotFoundError: there are no runs.
        ValueError: no task is complete, or a file is of another slice or has
            other columns.
    """
    folder = pathlib.Path(out) / "uci"
    slice_ = read_slice(folder)
    if not (folder / "runs.csv").is_file():
        raise FileNotFoundError(f"no {folder / 'runs.csv'}; python -m training benchmark uci makes it")
    runs = rows_of(folder / "runs.csv", slice_, FIELDS)
    ensembles = rows_of(folder / "ensembles.csv", slice_, uci_ensemble.FIELDS)
    paper = read_paper(folder / "paper.csv")
    ours = our_table(runs, slice_)
    tasks = [task for task in uci.sound_tasks() if task in ours.tasks]
    if not tasks:
        raise ValueError(f"{folder / 'runs.csv'}: no sound task is complete for all methods; go on with benchmark uci")
    ours = ours.of(tasks)
    classical = classical_table(_rows(folder / "classical.csv"), tasks) if (folder / "classical.csv").exists() else None
    draw(ours, folder / "critical_difference.png")
    _write_tasks(folder / "tasks.csv", ours, paper, classical)
    path = folder / "report.md"
    full = {row["task"]: float(row["test_accuracy"]) for row in ensembles if row["kind"] == FULL}
    full = {task: accuracy for task, accuracy in full.items() if task in tasks}
    untrained = [row["task"] for row in ensembles if row["kind"] == FULL and row["task"] in tasks and _untrained(row)]
    parts = _text(ours, paper.of(tasks), headline(runs, ensembles, slice_), full, untrained, slice_)
    parts += _rivals(ours, classical, ensembles, slice_.settings["rows_per_period"])
    parts += _large(ours, paper, classical, full)
    path.write_text("\n\n".join(parts + _remarks(ours, slice_)) + "\n")
    return path


def _rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def read_paper(path):
    """The paper's Table A11; NaN is not reported."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    methods = [name for name in rows[0] if name != "task"]
    values = [[float("nan") if row[name] == "NA" else float(row[name]) for name in methods] for row in rows]
    return Table([row["task"] for row in rows], methods, np.array(values))


def our_table(runs, slice_):
    """Test accuracy of the selected configurations at the slice's first seed, on tasks that are complete."""
    settings = slice_.settings
    seed = settings["seeds"][0]
    methods = list(settings["methods"])
    size = len(settings["learning_rates"]) * len(next(iter(settings["methods"].values())))
    count = collections.Counter((row["method"], row["task"], int(row["seed"])) for row in runs)
    chosen = select(runs)
    tasks = [task for task in uci.tasks() if all(count[method, task, seed] == size for method in methods)]
    values = [[float(chosen[method, task, seed]["test_accuracy"]) for method in methods] for task in tasks]
    return Table(tasks, methods, np.array(values).reshape(len(tasks), len(methods)))


def headline(runs, ensembles, slice_):
    """The headline's method at each of its seeds: a `Table` with the seeds in place of methods, and who diverged.

    The first seed's selected networks, and the same configurations at the
    others, on the tasks that all of them have. `[(task, seed), ...]` of those
    whose loss was never finite.
    """
    first, *others = slice_.settings["headline"]["seeds"]
    method = slice_.settings["headline"]["method"]
    chosen = [row for (one, _, seed), row in select(runs).items() if (one, seed) == (method, first)]
    further = [row for row in ensembles if row["kind"] == SEED]
    found = {(row["task"], int(row["seed"])): float(row["test_accuracy"]) for row in [*chosen, *further]}
    lost = {(row["task"], int(row["seed"])) for row in chosen if row["period"] == "0"}
    lost |= {(row["task"], int(row["seed"])) for row in further if _untrained(row)}
    seeds = [first, *(seed for seed in others if any(number == seed for _, number in found))]
    size = len(slice_.settings["learning_rates"]) * len(slice_.settings["methods"][method])
    count = collections.Counter(row["task"] for row in runs if (row["method"], int(row["seed"])) == (method, first))
    tasks = [task for task in uci.sound_tasks() if count[task] == size and all((task, seed) in found for seed in seeds)]
    accuracy = np.array([[found[task, seed] for seed in seeds] for task in tasks]).reshape(len(tasks), len(seeds))
    return Table(tasks, seeds, accuracy), sorted(one for one in lost if one[0] in tasks and one[1] in seeds)


def _untrained(row):
    """Whether all networks of a row of ensembles.csv diverged."""
    return row["diverged"] == row["members"]


def classical_table(rows, tasks):
    """The mean over the seeds of scikit-learn's methods, on those of the tasks that all of them have."""
    found = collections.defaultdict(list)
    for row in rows:
        found[row["method"], row["task"]].append(float(row["test_accuracy"]))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    tasks = [task for task in tasks if all((method, task) in found for method in methods)]
    values = [[np.mean(found[method, task]) for method in methods] for task in tasks]
    return Table(tasks, methods, np.array(values).reshape(len(tasks), len(methods)))


# Statistics


def ranks(accuracy):
    """Average rank of each method; 1 is best, equals share theirs."""
    from scipy.stats import rankdata

    return rankdata(-np.round(accuracy, 6), axis=1).mean(axis=0)  # the digits of the files, as below


def wilcoxon_p(first, second, alternative="greater"):
    """p of Wilcoxon's signed-rank test of paired accuracies, ties left out; 1 where all are equal.

    `"greater"` is one-sided: that the first is not better, as in the paper.
    """
    from scipy.stats import wilcoxon

    # Accuracies to the six digits of the files, or differences that are equal would not tie.
    difference = np.round(first - second, 6)
    if not difference.any():
        return 1.0
    return float(wilcoxon(difference, alternative=alternative, method="asymptotic").pvalue)


def win_tie_loss(first, second):
    """Tasks on which the first is better, equal and worse."""
    difference = np.round(first - second, 6)
    return int((difference > 0).sum()), int((difference == 0).sum()), int((difference < 0).sum())


def critical_difference(methods, tasks):
    """Nemenyi's: average ranks that differ by less do not differ significantly (Demsar, 2006)."""
    from scipy.stats import studentized_range

    quantile = studentized_range.ppf(1 - LEVEL, methods, np.inf) / np.sqrt(2)
    return float(quantile * np.sqrt(methods * (methods + 1) / (6 * tasks)))


def cliques(average_ranks, difference):
    """The longest runs of methods, best first, whose ranks lie within the critical difference: (first, last)."""
    ordered = np.sort(average_ranks)
    found = []
    for first in range(len(ordered)):
        last = int(np.searchsorted(ordered, ordered[first] + difference, side="right")) - 1
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return found


def draw(table, path):
    """The critical-difference diagram: methods at their average rank, bars over those that do not differ."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    average = ranks(table.accuracy)
    difference = critical_difference(len(table.methods), len(table.tasks))
    order = np.argsort(average)
    bars = cliques(average, difference)
    figure, axes = plt.subplots(figsize=(7, 1.6 + 0.25 * len(order)), layout="constrained")
    axes.set_xlim(1, len(order))
    axes.set_ylim(-len(order) - 0.5, 1.2 + 0.35 * len(bars))
    for level, (first, last) in enumerate(bars):
        axes.plot(average[order[[first, last]]], [0.5 + 0.35 * level] * 2, color="black", linewidth=3)
    for place, method in enumerate(order):
        axes.plot([average[method]] * 2, [0, -place - 1], color="tab:blue", linewidth=1)
        axes.text(average[method], -place - 1, f" {table.methods[method]} {average[method]:.2f}", va="center")
    axes.xaxis.set_ticks_position("top")
    axes.xaxis.set_label_position("top")
    axes.set_xlabel(
        f"average rank on {len(table.tasks)} tasks (1 is best); bars: no significant difference "
        f"(Nemenyi, {LEVEL:g}: {difference:.2f})"
    )
    axes.yaxis.set_visible(False)
    for side in ("left", "right", "bottom"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


# Text


def _comparison(table, first="SNN"):
    """Rows of the table of methods, best average rank first."""
    average = ranks(table.accuracy)
    one = table.accuracy[:, table.methods.index(first)]
    for place in np.argsort(average):
        other = table.accuracy[:, place]
        cells = ["", "", ""]
        if table.methods[place] != first:
            cells = [f"{wilcoxon_p(one, other, side):.2g}" for side in ("greater", "two-sided")]
            cells.append("/".join(map(str, win_tie_loss(one, other))))
        yield [table.methods[place], f"{other.mean():.4f}", f"{average[place]:.2f}", *cells]


def _text(ours, paper, seeds, full, untrained, slice_):
    covered, sound = len(ours.tasks), len(uci.sound_tasks())
    whole = "all" if covered == sound else "INCOMPLETE: only"
    parts = [
        "# The seven methods of the paper on the UCI tasks",
        f"Made by `python -m training benchmark uci-report` from the files beside it (slice `{slice_.name}`). "
        f"It covers {whole} {covered} of the {sound} sound tasks at hand: those on which all configurations of all "
        "methods are trained. One network per task and method, chosen on the validation rows; column 0 of the folds; "
        "p by Wilcoxon's signed-rank test of the accuracies, one-sided (that SNN is not better, as in the paper) and "
        "two-sided.",
        "## Ours",
        markdown_table(COLUMNS, _comparison(ours)),
        "![critical difference](critical_difference.png)",
    ]
    if full:
        both = [
            full.get(task, snn)
            for task, snn in zip(ours.tasks, ours.accuracy[:, ours.methods.index("SNN")], strict=True)
        ]
        parts.append(
            f"With full passes over the training rows, as in the paper, on the {len(full)} tasks of more than "
            f"{slice_.settings['rows_per_period']} of them (`uci-ensemble`, the SNN alone): mean accuracy "
            f"{np.mean(both):.4f}."
            + (f" Diverged, and counted with the weights at the start: {', '.join(untrained)}." if untrained else "")
        )
    parts += _seeds(*seeds, ours, slice_.settings["headline"]["method"], slice_.settings["rows_per_period"])
    reported = np.isfinite(paper.accuracy).all(axis=1)
    same = Table([], paper.methods, paper.accuracy[reported])
    parts += [
        f"## The paper's, on the {reported.sum()} of these tasks that its Table A11 has for all methods",
        markdown_table(COLUMNS, _comparison(same)),
    ]
    return parts


def _seeds(table, lost, ours, method, most):
    """Mean and spread over the seeds, what those that diverged do to them, and where each seed stands."""
    if not table.tasks:
        return []
    text = (
        f"{method} over {len(table.tasks)} sound tasks and the seeds {', '.join(map(str, table.methods))}: "
        f"mean accuracy {_mean_and_deviation(table.accuracy)}."
    )
    if len(table.methods) > 1:
        text += (
            " The further seeds train the configurations that the first one's validation rows chose (`uci-ensemble`)."
        )
    if lost:
        names = ", ".join(f"{task} at seed {seed}" for task, seed in lost)
        others = [task for task in table.tasks if task not in {task for task, _ in lost}]
        text += (
            f" {len(lost)} of these {table.accuracy.size} networks diverged ({names}): their loss was never finite. "
            "They are counted, with the accuracy of the weights that they started with."
        )
        if others:
            text += (
                f" On the {len(others)} tasks on which none diverged: mean accuracy "
                f"{_mean_and_deviation(table.of(others).accuracy)}."
            )
    return [text, *_standings(table, ours, method, most)]


def _standings(table, ours, method, most):
    """The method among the others at each of its seeds and in their mean; the others stay at their one seed."""
    tasks = [task for task in ours.tasks if task in table.tasks]
    if len(table.methods) < 2 or not tasks:
        return []
    others, own = ours.of(tasks), table.of(tasks).accuracy
    place = others.methods.index(method)
    head = ["", *(f"seed {seed}" for seed in table.methods), "mean of the seeds"]
    small = np.array([uci.facts()[task].train <= most for task in tasks])
    lines = [["mean accuracy"], [f"that of the {small.sum()} tasks of at most {most} training rows"]]
    lines += [["average rank"], ["others with a better one"]]
    lines += [[f"p against {rival}, win/tie/loss"] for rival in others.methods if rival != method]
    for accuracy in (*own.T, own.mean(axis=1)):
        others.accuracy[:, place] = accuracy
        average = ranks(others.accuracy)
        cells = [f"{accuracy.mean():.4f}", f"{accuracy[small].mean():.4f}" if small.any() else ""]
        cells += [f"{average[place]:.2f}", f"{(average < average[place]).sum()}"]
        for rival in np.delete(others.accuracy.T, place, axis=0):
            counts = "/".join(map(str, win_tie_loss(accuracy, rival)))
            cells.append(f"{wilcoxon_p(accuracy, rival, 'two-sided'):.2g}, {counts}")
        for line, cell in zip(lines, cells, strict=True):
            line.append(cell)
    return [
        f"{method} at each seed in the table above, its rivals as they are; p two-sided, for one comparison each. The "
        f"first seed's networks are those that the grid trained and chose from; the others are the chosen "
        "configurations trained anew.",
        markdown_table(head, lines),
    ]


def _mean_and_deviation(accuracy):
    """Of the means of the columns, as text."""
    means = accuracy.mean(axis=0)
    spread = f", standard deviation {np.std(means, ddof=1):.4f}" if len(means) > 1 else " (one seed: no spread)"
    return f"{means.mean():.4f}{spread}"


def _rivals(ours, classical, ensembles, most):
    """Beside scikit-learn's methods, with the ensemble where there is one."""
    if classical is None or not classical.tasks:
        return []
    kinds = {row["task"]: row["kind"] for row in ensembles if row["kind"] in (ENSEMBLE, FULL)}
    found = {row["task"]: float(row["test_accuracy"]) for row in ensembles if row["kind"] in (ENSEMBLE, FULL)}
    tasks = [task for task in classical.tasks if task in found] or classical.tasks
    both, theirs = ours.of(tasks), classical.of(tasks)
    columns = {"SNN": both.accuracy[:, both.methods.index("SNN")]}
    if found:
        columns[OURS] = np.array([found[task] for task in tasks])
    joined = Table(
        tasks, [*columns, *theirs.methods], np.column_stack([*columns.values(), *np.atleast_2d(theirs.accuracy.T)])
    )
    parts = [
        f"## Beside scikit-learn's methods, on {len(tasks)} of these tasks",
        "These were trained on the training and the validation rows; the single network on the training rows alone, "
        "the validation rows being for stopping and choosing. p and win/tie/loss are those of the single SNN.",
        markdown_table(COLUMNS, _comparison(joined)),
    ]
    if found:
        few = [task for task in tasks if kinds[task] == ENSEMBLE]
        rows = [row for row in ensembles if row["kind"] == ENSEMBLE and row["task"] in few]
        single = [float(row["members_accuracy"]) for row in rows]
        parts += [
            "The second of these is ours and not the paper's comparison (`uci-ensemble`). On the "
            f"{len(few)} tasks of at most {most} training rows the selected configuration is trained five times on the "
            "training and validation rows less a fold, on which it is stopped, and the probabilities are averaged "
            f"(mean accuracy there {np.mean([found[task] for task in few]):.4f}, of the members alone "
            f"{np.mean(single):.4f}). Members that diverged, whose loss was never finite, are left out of both means "
            f"({_diverged_members(rows)}). On the other {len(tasks) - len(few)} it is trained once, on the training "
            f"rows, in full passes over them as in the paper, where the grid takes {most} rows a period. The same "
            "table by its side:",
            markdown_table([name.replace("SNN", "ours") for name in COLUMNS], _comparison(joined, OURS)),
            _gap(joined, max(theirs.methods, key=lambda name: joined.accuracy[:, joined.methods.index(name)].mean())),
        ]
    return parts


def _gap(joined, rival):
    """Where ours is behind the best rival, and ahead of it, task by task."""
    difference = joined.accuracy[:, joined.methods.index(OURS)] - joined.accuracy[:, joined.methods.index(rival)]
    test_rows = np.array([uci.facts()[task].test for task in joined.tasks])
    few = test_rows <= FEW_TEST_ROWS
    ahead, _, behind = win_tie_loss(difference, np.zeros_like(difference))
    widest = [place for place in np.argsort(difference, kind="stable")[:10] if difference[place] < 0]
    names = [f"{joined.tasks[place]} {difference[place]:.4f} ({test_rows[place]} test rows)" for place in widest]
    return (
        f"Task by task, ours less {rival}: ahead on {ahead} tasks by {difference.clip(0).sum():.4f} in all, behind on "
        f"{behind} by {-difference.clip(max=0).sum():.4f}; the sum over all {len(difference)} is "
        f"{difference.sum():.4f}, of which the {few.sum()} tasks of at most {FEW_TEST_ROWS} test rows, where one row "
        f"is 0.01 or more, make {difference[few].sum():.4f}. Widest behind: {', '.join(names) or 'none'}."
    )


def _diverged_members(rows):
    """Of the ensembles, as text."""
    counts = {row["task"]: (int(row["diverged"]), int(row["members"])) for row in rows}
    text = ", ".join(f"{task} {lost} of {members}" for task, (lost, members) in counts.items() if lost)
    if untrained := [row["task"] for row in rows if _untrained(row)]:
        text += f"; where all did, the weights at the start are averaged: {', '.join(untrained)}"
    return text or "none did"


def _large(ours, paper, classical, full):
    """The large tasks one by one."""
    tasks = [task for task in LARGE if task in ours.tasks]
    if not tasks:
        return []
    header = ["task", "test rows", "SNN", "full passes", "standard error of SNN", "paper's SNN"]
    header.append("best of our other six")
    header += classical.methods[:1] if classical else []
    rows = []
    for task in tasks:
        accuracy = dict(zip(ours.methods, ours.of([task]).accuracy[0], strict=True))
        snn, count = accuracy.pop("SNN"), uci.facts()[task].test
        best = max(accuracy, key=accuracy.get)
        theirs = paper.of([task]).accuracy[0, paper.methods.index("SNN")]
        error = np.sqrt(snn * (1 - snn) / count)
        long = f"{full[task]:.4f}" if task in full else ""
        row = [task, count, f"{snn:.4f}", long, f"{error:.4f}", f"{theirs:.4f}", f"{accuracy[best]:.4f} ({best})"]
        if classical:
            row.append(f"{classical.of([task]).accuracy[0, 0]:.4f}" if task in classical.tasks else "")
        rows.append(row)
    return ["## The large tasks, one by one", markdown_table(header, rows)]


def _remarks(ours, slice_):
    capped = [task for task in ours.tasks if uci.facts()[task].train > slice_.settings["rows_per_period"]]
    scaled = [uci.facts()[task].scaling for task in ours.tasks]
    return [
        "## What to bear in mind",
        f"- {len(capped)} of the tasks have more than {slice_.settings['rows_per_period']} training rows and see fewer "
        f"than {slice_.settings['periods']} passes over them (column `epochs` of runs.csv).",
        "- The paper's networks were chosen from larger grids (SNN 216 configurations), ours from "
        f"{len(slice_.settings['learning_rates']) * len(slice_.settings['methods']['SNN'])} for each method.",
        f"- The authors of the files standardised {scaled.count('together')} of the tasks over all rows, those for "
        f"testing too, and {scaled.count('apart')} in training rows and test rows, each by themselves: all figures "
        "here and the paper's share that leak (column `scaling` of `zoo/uci.csv`).",
        "- Left out for defects of the files: "
        + "; ".join(f"{task} ({reason})" for task, reason in uci.DEFECTS.items())
        + ".",
    ]


def _write_tasks(path, ours, paper, classical):
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        rivals = classical.methods if classical else []
        writer.writerow(["task", *ours.methods, *(f"paper {name}" for name in paper.methods), *rivals])
        for task, accuracy in zip(ours.tasks, ours.accuracy, strict=True):
            cells = [*accuracy, *paper.of([task]).accuracy[0]]
            cells += list(classical.of([task]).accuracy[0]) if classical and task in classical.tasks else []
            row = ["" if np.isnan(cell) else f"{cell:.4f}" for cell in cells]
            writer.writerow([task, *row, *[""] * (len(rivals) if classical and task not in classical.tasks else 0)])
