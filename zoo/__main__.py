"""`python -m zoo list / info / predict / evaluate / demo / index`."""

import argparse
import json
import os
import sys

from zoo.registry import BUNDLED
from zoo.registry import list_models
from zoo.registry import model_info
from zoo.registry import read_index
from zoo.registry import train_command


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m zoo", description="Keras networks with exponential linear units, with pretrained weights."
    )
    commands = parser.add_subparsers(dest="command", required=True)

    listing = commands.add_parser("list", help="names of architectures, or of pretrained models")
    listing.add_argument("pattern", nargs="?", default="*", help="such as 'mpelu*'")
    listing.add_argument("--pretrained", action="store_true", help="only models with weights that load today")
    listing.add_argument("--remote", action="store_true", help="addresses of the Keras models in a Hub namespace")
    listing.add_argument("--namespace", help="of --remote (default: $ZOO_HUB_NAMESPACE, or keras-mpelu)")
    listing.set_defaults(run=_list)

    info = commands.add_parser("info", help="parameters, accuracy, recipe, size and licence of a model")
    info.add_argument("name", help="an architecture, a pretrained model, or the folder of one")
    info.set_defaults(run=_info)

    predict = commands.add_parser("predict", help="the five likeliest classes of images, or of the rows of a CSV")
    predict.add_argument("name", help="a pretrained model, or the folder of one")
    predict.add_argument("files", nargs="+", metavar="FILE", help="images of any size, or CSV files with a header")
    predict.add_argument("--json", action="store_true", help="one JSON object a line")
    predict.set_defaults(run=_predict)

    evaluate = commands.add_parser(
        "evaluate", help="figures of a pretrained model on test rows, or on data of your own"
    )
    evaluate.add_argument("name", help="a pretrained model, or the folder of one")
    what = evaluate.add_mutually_exclusive_group()
    what.add_argument("--dataset", help="another data set than the model's own")
    what.add_argument("--data", metavar="PATH", help="your own: a folder of class folders of images, or a CSV file")
    evaluate.add_argument("--label", help="column of the label in the CSV (default: the model's target, or label)")
    evaluate.add_argument("--data-dir", help="where the data are looked for first (default: $ZOO_DATA_DIR)")
    evaluate.add_argument("--json", action="store_true", help="the figures as one JSON object")
    evaluate.set_defaults(run=_evaluate)

    demo = commands.add_parser("demo", help="load, evaluate and fine-tune bundled models, offline")
    demo.add_argument("--out", default="zoo_demo.png", help="picture to write (default: %(default)s)")
    demo.set_defaults(run=_demo)

    index = commands.add_parser("index", help="make zoo/index.json anew (for whoever adds a model)")
    index.add_argument(
        "--models", action="store_true", help="only pretrained models and the papers' figures; builds no network"
    )
    index.set_defaults(run=_index)
    return run_command(parser, arguments)


def run_command(parser, arguments=None):
    """Runs a parsed command; what a user can mend ends in one line and exit status 1."""
    args = parser.parse_args(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # no start-up notes of TensorFlow among our lines
    # Read when TensorFlow is imported, which no command has done yet. By itself TensorFlow uses oneDNN only on newer
    # processors than those with AVX2, where training is 1.4 to 1.7 times as fast with it (results/README.md).
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    try:
        args.run(args)
        sys.stdout.flush()  # here, where a reader that has gone is met
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        package = {"sklearn": "scikit-learn", "PIL": "pillow"}.get(package, package)
        hints = [f"pip install {package}"] if isinstance(error, ModuleNotFoundError) and package else []
        if package in ("tensorflow", "jax", "torch"):
            hints.append("set KERAS_BACKEND to another one that you have: tensorflow, jax or torch")
        else:
            backend = os.environ.get("KERAS_BACKEND") or "tensorflow"
            hints.append(f'install what most commands need: pip install "keras-mpelu[{backend},data,train]"')
        return _fail(f"{error}; {', or '.join(hints)}")
    except (ValueError, OSError, FloatingPointError) as error:
        return _fail(str(error))
    return 0


def _fail(message):
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return 1


def _list(args):
    if args.namespace and not args.remote:
        raise ValueError("--namespace is of the Hub: give --remote too, or leave it out")
    if args.remote and args.pretrained:
        raise ValueError("--remote lists models with weights alone: leave --pretrained out")
    if args.remote:
        from zoo.hub import list_remote

        names = list_remote(args.namespace, args.pattern)
        if not names:
            raise ValueError(f"no Keras model there matches {args.pattern!r}; check --namespace")
        print("\n".join(names))
        return
    names = list_models(args.pattern, args.pretrained)
    if not names:
        raise ValueError(f"no model matches {args.pattern!r}; `python -m zoo list` shows all")
    print("\n".join(names))


def _info(args):
    index, name = read_index(), args.name
    path = os.path.isdir(name) or os.sep in name or "/" in name  # of a folder, or an address on the Hub
    known = name in index["architectures"] or name in index["models"]
    for key, value in _of_a_folder(name) if path and not known else _readable(model_info(name)):
        print(f"{key:<18} {value}")


def _of_a_folder(name):
    """What recipe.json says of a model that has no name here."""
    from zoo.details import read_details
    from zoo.folders import check_folder
    from zoo.folders import find_folder

    folder, _ = find_folder(name)
    check_folder(folder)
    details = read_details(folder)
    data, results, classes = (details.get(key, {}) for key in ("data", "results", "class_names"))
    yield "name", name if "://" in name else details.get("name", folder.absolute().name)
    for key, what in (("base_model", "made from"), ("task", "task")):
        if key in details:
            yield what, details[key]
    if data:
        rows = (("train_rows", "training"), ("test_rows", "test"))
        counts = [f"{data[key]:,} {of} rows" for key, of in rows if isinstance(data.get(key), int)]
        yield "data", ", ".join([data.get("name") or "own data", *counts])
    if "table" in details:
        yield "predicts", details["table"]["target"]
    if classes:
        yield "classes", f"{len(classes)}: {', '.join(classes[:10])}{', ...' if len(classes) > 10 else ''}"
    for key, value in results.items():
        # Anyone may have written it.
        numbers = isinstance(value, list) and all(isinstance(one, float) for one in value)
        if key == "top1_by_seed" and numbers and len(value) > 1:
            yield from _mean_of_seeds(results)
        if isinstance(value, int | float):
            yield key, f"{value:,}" if isinstance(value, int) else f"{value:.6g}"
    yield "size", f"{sum(path.stat().st_size for path in folder.iterdir()) / 1e6:.2f} MB"
    if (folder / "README.md").exists():
        yield "card", folder / "README.md"


def _readable(info):
    yield "name", info["name"]
    yield "family", f"{info['family']} (zoo/{info['family']}.py)"
    yield "source", "; ".join(info["sources"])
    arch, _, tag = info["name"].partition(".")
    parameters, macs = (_readable_count(info, key, with_classes=not tag) for key in ("parameters", "macs"))
    yield "parameters", f"{parameters} (trainable)"
    yield "MACs", f"{macs} (convolutions and dense layers, one input)"
    if "top1" in info:
        yield "data set", f"{info['dataset']}, {info['rows']:,} test rows"
        yield "top-1", f"{100 * info['top1']:.2f} % (seed {info['seeds'][0]})"
        if len(info["seeds"]) > 1:
            yield from _mean_of_seeds(info)
        yield "top-5", f"{100 * info['top5']:.2f} %"
        yield "cross-entropy", f"{info['loss']:.4f} nats"
        yield "calibration error", f"{info['ece']:.4f}"
        yield "trained", f"{info['epochs']} epochs, {info['minutes']} minutes, {info['hardware']}"
        yield "recipe", info.get("command", train_command(info["name"]))
        yield "size", f"{info['size_bytes'] / 1e6:.2f} MB"
        yield "licence", info["licence"]
        if (BUNDLED / info["name"] / "README.md").exists():
            yield "card", BUNDLED / info["name"] / "README.md"
    from zoo.figures import in_percent

    paper = info.get("paper", {})
    if tag:
        paper = {other: figure for other, figure in paper.items() if other == tag}
    for data, figure in paper.items():
        yield "paper's top-1", f"{in_percent(figure)} ({data})"
    if not paper:
        yield "paper's top-1", "none for this network on this data set" if tag else "none for this network"
    if not tag:
        yield "pretrained", ", ".join(list_models(f"{arch}.*", pretrained=True)) or "not yet"


def _mean_of_seeds(results):
    from zoo.figures import mean_and_spread

    mean, spread = mean_and_spread(results["top1_by_seed"])
    seeds = f" (seeds {', '.join(map(str, results['seeds']))})" if isinstance(results.get("seeds"), list) else ""
    yield "mean top-1", f"{100 * mean:.2f} +- {100 * spread:.2f} %{seeds}"


def _readable_count(info, key, with_classes):
    if not with_classes:
        return f"{info[key]:,}"
    # The papers count at the 10 classes of CIFAR-10.
    at_ten = info[key] + (10 - info["num_classes"]) * info["per_class"][key]
    return f"{info[key]:,} at {info['num_classes']} classes, {at_ten:,} at 10"


def _predict(args):
    from zoo.prediction import predict_files

    for row in predict_files(args.name, args.files):
        if args.json:
            print(json.dumps(row))
        elif "value" in row:
            print(f"{row['input']}: {row['value']:.6g}")
        else:
            best = ", ".join(f"{name} {100 * probability:.1f} %" for name, probability in row["top5"])
            print(f"{row['input']}: {best}")


def _evaluate(args):
    progress = sys.stdout.isatty() and not args.json  # where Keras's bar goes
    if args.data:
        if args.data_dir:
            raise ValueError("--data-dir is where data sets are that have a name; leave it out beside --data")
        from zoo.labelled_files import evaluate_files

        name, rows = args.data, f"rows of {args.data}"
        figures = evaluate_files(args.name, args.data, args.label, progress)
    else:
        if args.label:
            raise ValueError("--label is a column of a CSV of your own; give that by --data")
        name, figures = _evaluated_on_a_dataset(args, progress)
        rows = f"test rows of {name}"
    if args.json:
        print(json.dumps({"name": args.name, "data" if args.data else "dataset": name, **figures}))
        return
    print(f"{args.name} on {figures['rows']:,} {rows}:")
    if "rmse" in figures:
        r2 = f"R2 {figures['r2']:.3f}" if "r2" in figures else "no R2: one value only"
        print(f"root mean squared error {figures['rmse']:.4g}, mean absolute error {figures['mae']:.4g}, {r2}")
        return
    print(f"top-1 {100 * figures['top1']:.2f} %, top-5 {100 * figures['top5']:.2f} %", end=", ")
    print(f"cross-entropy {figures['loss']:.4f} nats, calibration error {figures['ece']:.4f}")


def _evaluated_on_a_dataset(args, progress):
    from zoo.card import known_dataset
    from zoo.datasets import load_dataset
    from zoo.evaluation import check_same_data
    from zoo.evaluation import evaluate
    from zoo.pretrained import load_with_details

    model, details = load_with_details(args.name)
    name = args.dataset or known_dataset(details)
    if not name:
        raise ValueError(
            f"{args.name} was trained on no data set that has a name here; give one with --dataset, or your own data "
            "with --data"
        )
    dataset = load_dataset(name, args.data_dir)
    check_same_data(details, dataset)
    return name, evaluate(model, dataset, progress=progress)


def _demo(args):
    from zoo.demo import demo

    demo(args.out)


def _index(args):
    from zoo.index import write_index

    print(write_index(args.models))


if __name__ == "__main__":
    sys.exit(main())
