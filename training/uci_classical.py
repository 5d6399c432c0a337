"""What users would try first on the UCI tasks: scikit-learn's forests, boosting, SVM and logistic regression.

On the same test rows as the networks, which need validation rows to stop and to
be chosen; these methods have nothing to choose here, so they are given the
validation rows for training too.
"""

import csv
import pathlib
import sys
import time
import warnings

from training.loop import Interrupted
from zoo import uci
from zoo.datasets import load_dataset
from zoo.messages import check_names

FIELDS = ("method", "task", "seed", "trained_on", "test_rows", "test_right", "test_accuracy", "seconds", "scikit-learn")
TRAINED_ON = "training and validation rows"


def estimators(seed):
    """Fresh estimators; defaults but for the number of trees, C and enough iterations."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import SVC

    return {
        "random forest, 500 trees": RandomForestClassifier(500, random_state=seed),
        "histogram gradient boosting": HistGradientBoostingClassifier(random_state=seed),
        "SVM, RBF, C=10": SVC(C=10),
        "logistic regression": LogisticRegression(max_iter=1000),
    }


def run(out, methods=None, tasks=None, seeds=(0,), stop_after=None, data_dir=None):
    """Fits what `out/uci/classical.csv` lacks, tasks with few rows first.

    Args:
        out: Folder of the results.
        methods: Names in `estimators(0)`; by default all.
        tasks: Names without `uci/`; by default all that are at hand.
        seeds: Seeds of the estimators that have one.
        stop_after: Minutes after which no further fit is begun.
        data_dir: As for `zoo.load_dataset`.

    Returns:
        The path of the CSV.

    Raises:
        training.loop.Interrupted: `stop_after` came before the end.
        ValueError: a name is unknown.
    """
    import sklearn

    path = pathlib.Path(out) / "uci" / "classical.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    done = set()
    if path.exists():
        with open(path, newline="") as file:
            done = {(row["method"], row["task"], row["seed"]) for row in csv.DictReader(file)}
    known = uci.facts()
    names, tasks = methods or list(estimators(0)), tasks or [task for task in known if known[task].sha256]
    check_names(names, estimators(0), "method")
    check_names(tasks, known, "task")
    tasks = sorted(tasks, key=lambda task: known[task].rows)
    planned = [(task, seed, name) for task in tasks for seed in seeds for name in names]
    waiting = [(task, seed, name) for task, seed, name in planned if (name, task, str(seed)) not in done]
    started = time.monotonic()
    for number, (task, seed, name) in enumerate(waiting):
        if stop_after is not None and time.monotonic() > started + 60 * stop_after:
            raise Interrupted(f"{len(planned) - len(waiting) + number} of {len(planned)} fits are done; {path}")
        row = fit(name, load_dataset(f"uci/{task}", data_dir), seed)
        with open(path, "a", newline="") as file:
            writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
            if not file.tell():
                writer.writeheader()
            writer.writerow({**row, "task": task, "scikit-learn": sklearn.__version__})
        print(f"{number + 1} of {len(waiting)}: {name}, {task}: {row['test_accuracy']}", file=sys.stderr, flush=True)
    return path


def fit(name, data, seed):
    started = time.monotonic()
    estimator = estimators(seed)[name]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="lbfgs failed to converge")  # the figure is that of 1000 iterations
        estimator.fit(data.x_train, data.y_train)
    right = int((estimator.predict(data.x_test) == data.y_test).sum())
    return {
        "method": name,
        "seed": seed,
        "trained_on": TRAINED_ON,
        "test_rows": len(data.y_test),
        "test_right": right,
        "test_accuracy": f"{right / len(data.y_test):.6f}",
        "seconds": f"{time.monotonic() - started:.2f}",
    }
