"""`python -m training train / finetune / benchmark / card / compact / publish / report`."""

import argparse
import importlib
import os
import pathlib
import sys

from zoo.__main__ import run_command

# What `train --queue` takes; the other options are of a run, and stand in the queue's own commands.
OF_A_QUEUE = {"command", "run", "name", "queue", "out", "data_dir", "stop_after"}
BENCHMARKS = (
    "tabular",
    "finetuning",
    "throughput",
    "loading",
    "inference",
    "training",
    "signal",
    "robustness",
    "plain",
    "modern",
    "learned",
    "activation",
    "startup",
    "deep",
    "scaling",
    "memory",
    "ceilings",
)
TABLE_OPTIONS = ("task", "patience", "balanced", "categorical", "ignore")
# What is measured on the UCI tasks, and the options that it takes.
UCI_BENCHMARKS = {
    "uci": ("methods", "tasks", "seeds", "stop_after", "jobs", "data_dir"),
    "uci-classical": ("methods", "tasks", "seeds", "stop_after", "data_dir"),
    "uci-speed": ("methods", "tasks", "data_dir"),
    "uci-report": (),
    "uci-ensemble": ("tasks", "stop_after", "jobs", "data_dir"),
    "uci-export": ("tasks", "data_dir"),
}


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m training", description="Train, fine-tune and measure the zoo's models."
    )
    commands = parser.add_subparsers(dest="command", required=True)

    train = commands.add_parser("train", help="train a model by its recipe, or go on with an interrupted run")
    train.add_argument("name", nargs="?", help="such as mpelu_resnet20.cifar100, or mpelu_resnet20 for its default")
    train.add_argument("--queue", metavar="FILE", help="in place of a name: the next unfinished runs of this table")
    train.add_argument("--data-dir", help="where the data are looked for first (default: $ZOO_DATA_DIR)")
    train.add_argument(
        "--data",
        metavar="PATH",
        help="your own: a folder of class folders of images, or a CSV file; a fifth of each class is held out as test "
        "rows",
    )
    train.add_argument("--label", default="label", help="column of the label in the CSV (default: %(default)s)")
    train.add_argument("--out", default="runs", help="folder of the runs (default: %(default)s)")
    train.add_argument("--seeds", type=int, nargs="+", help="seeds in place of the recipe's; the first is published")
    length = train.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=int, help="epochs in place of the recipe's; the schedule is rescaled")
    length.add_argument("--minutes", type=float, help="the same, as the time a seed may take on this machine")
    train.add_argument("--stop-after", type=float, metavar="MINUTES", help="stop in time; the same command goes on")
    train.add_argument("--validation", type=float, metavar="FRACTION", help="hold training rows out; read no test row")
    train.add_argument("--publish", choices=["last", "average"], help="weights to publish, as chosen by --validation")
    train.add_argument("--dtype", choices=["float32", "mixed_bfloat16"], help="dtype policy in place of the recipe's")
    train.add_argument(
        "--devices",
        type=int,
        default=1,
        help="GPUs to spread a batch over (JAX, TensorFlow), or on TensorFlow without any, parts of the processor",
    )
    train.add_argument("--deterministic", action="store_true", help="exact resume on a GPU too (slower)")
    train.add_argument(
        "--tensorboard",
        metavar="FOLDER",
        help="write TensorBoard logs, one folder a seed (needs tensorflow and tensorboard; waits for every step)",
    )
    train.add_argument("--bundle", action="store_true", help="copy the folder of weights into the package")
    train.add_argument("--add-to", metavar="FOLDER", help="add the figures of --seeds to this finished folder")
    train.set_defaults(run=lambda args: _train(args, train))

    finetune = commands.add_parser("finetune", help="fine-tune a pretrained model on your own images or table")
    finetune.add_argument("name", help="a pretrained model; for a table also an architecture, such as snn_mlp4")
    finetune.add_argument(
        "--data",
        required=True,
        help="a folder of class folders of images, which are stretched to the network's size (of those here 32 x 32) "
        "whatever their aspect ratio, or a CSV file",
    )
    finetune.add_argument("--out", required=True, help="folder to make; zoo.load_model loads it")
    finetune.add_argument(
        "--target", "--label", dest="label", default="label", help="column to predict in the CSV (default: %(default)s)"
    )
    finetune.add_argument("--epochs", type=int, help="default: 30; for an architecture 200, with early stopping")
    finetune.add_argument("--learning-rate", type=float, default=None, help="of Adam (default: 1e-3)")
    finetune.add_argument("--validation", type=float, default=0.2, help="fraction held out (default: %(default)s)")
    finetune.add_argument("--seed", type=int, default=0)
    finetune.add_argument("--batch-size", type=int, metavar="N", help="rows of a step (default: 32, or all of fewer)")
    finetune.add_argument("--freeze", action="store_true", help="train only the head of the pretrained model")
    finetune.add_argument("--flip", action="store_true", help="mirror images at random, left to right, in training")
    finetune.add_argument("--image-size", type=int, metavar="N", help="N x N pixels in place of the network's own size")
    table = finetune.add_argument_group("your own table", "with an architecture, such as snn_mlp4, trained anew")
    table.add_argument("--task", choices=["auto", "classification", "regression"], help="default: by the target")
    table.add_argument("--patience", type=int, help="epochs without a lower loss before it stops (default: 20)")
    table.add_argument("--balanced", action="store_true", default=None, help="rare classes weigh as frequent ones")
    table.add_argument("--categorical", nargs="+", metavar="COLUMN", help="columns of numbers that are codes")
    table.add_argument("--ignore", nargs="+", metavar="COLUMN", help="columns to leave out")
    finetune.set_defaults(run=_finetune)

    benchmark = commands.add_parser("benchmark", help="measure what the CSV under --out has no rows of")
    benchmark.add_argument("what", choices=[*BENCHMARKS, *UCI_BENCHMARKS])
    benchmark.add_argument(
        "--out",
        default="results",
        help="folder of the CSV (default: %(default)s); rows that it has are kept and not measured again (but for "
        "uci-speed and uci-report), so give another folder to measure anew; uci and what builds on it take "
        "uci/slice.json from there",
    )
    grid = benchmark.add_argument_group(
        "uci",
        "the paper's seven methods on the UCI tasks (uci), scikit-learn's (uci-classical), the report of both "
        "(uci-report), stacked training against model.fit (uci-speed), the selected SNNs at other seeds and "
        "ensembles of them (uci-ensemble) and as folders of weights (uci-export); what was interrupted goes on",
    )
    grid.add_argument("--methods", nargs="+", help="such as SNN BatchNorm (default: all of results/uci/slice.json)")
    grid.add_argument("--tasks", nargs="+", help="such as iris letter (default: all)")
    grid.add_argument("--seeds", type=int, nargs="+", help="seeds (default: the slice's)")
    grid.add_argument("--stop-after", type=float, metavar="MINUTES", help="begin nothing after that")
    grid.add_argument("--jobs", type=int, help="processes (default: one per core)")
    grid.add_argument("--data-dir", help="where the data are looked for first (default: $ZOO_DATA_DIR)")
    benchmark.set_defaults(run=_benchmark)

    card = commands.add_parser("card", help="make card, model.safetensors and sums of folders anew")
    card.add_argument("folders", nargs="+", metavar="FOLDER", help="such as zoo/weights/mpelu_resnet20.cifar100")
    card.set_defaults(run=_card)

    compact = commands.add_parser("compact", help="halve the weights of folders: kernels in float16, where top-1 stays")
    compact.add_argument("folders", nargs="+", metavar="FOLDER", help="such as zoo/weights/mpelu_resnet20.cifar100")
    compact.add_argument("--data-dir", help="where the data are looked for first (default: $ZOO_DATA_DIR)")
    compact.set_defaults(run=_compact)

    publish = commands.add_parser("publish", help="check a folder of weights, upload it to the Hub, print its pin")
    publish.add_argument("name", help="such as mpelu_resnet20.cifar100, or the name of your own folder")
    publish.add_argument("--namespace", help="user or organisation (default: $ZOO_HUB_NAMESPACE, or keras-mpelu)")
    publish.add_argument("--private", action="store_true", help="make a new repository private")
    publish.add_argument("--dry-run", action="store_true", help="only the checks; asks nothing of the Hub")
    publish.add_argument("--folder", help="the folder (default: results/hub/NAME, else the bundled one)")
    publish.add_argument("--data-dir", help="where the data are looked for first (default: $ZOO_DATA_DIR)")
    publish.set_defaults(run=_publish)

    report = commands.add_parser("report", help="make results/models.csv and the README's table anew")
    report.set_defaults(run=_report)
    return run_command(parser, arguments)


def _train(args, parser):
    from training.queue import TEMPFAIL
    from training.recipes import get_recipe

    if (args.name is None) == (args.queue is None):
        raise ValueError("give the name of one model, or --queue FILE")
    if args.queue:
        for option, value in vars(args).items():
            if option not in OF_A_QUEUE and value != parser.get_default(option):
                option = option.replace("_", "-")
                raise ValueError(f"--{option} belongs into the commands of {args.queue}, not beside --queue")
        from training.queue import train_queue

        return train_queue(args, parser.parse_args)
    recipe = get_recipe(args.name)  # an unknown name costs no import of a backend
    if args.deterministic:
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_deterministic_ops=true".strip()
    import keras

    from training.loop import Interrupted
    from training.loop import make_deterministic
    from training.run import describe
    from training.run import train

    if args.deterministic:
        make_deterministic()
    if args.devices > 1 and keras.backend.backend() == "tensorflow":
        from training.mirrored_tensorflow import split_processor

        split_processor(args.devices)
    try:
        made = train(
            recipe,
            data_dir=args.data_dir,
            out=args.out,
            seeds=args.seeds,
            epochs=args.epochs,
            minutes=args.minutes,
            stop_after=args.stop_after,
            validation=args.validation,
            devices=args.devices,
            bundle=args.bundle,
            data=args.data,
            label=args.label,
            publish=args.publish,
            tensorboard=args.tensorboard,
            dtype=args.dtype,
            add_to=args.add_to,
        )
    except Interrupted as reason:
        print(f"{reason}; the same command goes on from there", file=sys.stderr)
        raise SystemExit(TEMPFAIL) from None
    print(describe(made) if (made / "recipe.json").exists() else made)


def _finetune(args):
    from training.finetune import finetune

    finetune(
        args.name,
        args.data,
        args.out,
        label=args.label,
        epochs=args.epochs,
        learning_rate=args.learning_rate,
        validation=args.validation,
        seed=args.seed,
        batch_size=args.batch_size,
        freeze=args.freeze,
        flip=args.flip,
        image_size=args.image_size,
        **{name: value for name in TABLE_OPTIONS if (value := getattr(args, name)) is not None},
    )


def _benchmark(args):
    names = {name for taken in UCI_BENCHMARKS.values() for name in taken}
    given = {name: value for name in sorted(names) if (value := getattr(args, name)) is not None}
    taken = UCI_BENCHMARKS.get(args.what, ())
    if strange := [name for name in given if name not in taken]:
        takers = ", ".join(what for what, taken in UCI_BENCHMARKS.items() if strange[0] in taken)
        raise ValueError(f"--{strange[0].replace('_', '-')} belongs to {takers}, not to {args.what}")
    from training.loop import Interrupted
    from training.queue import TEMPFAIL

    if args.what in BENCHMARKS:
        from training.benchmark import BENCHMARKS as measures

        measure = measures[args.what]
    else:
        measure = importlib.import_module(f"training.{args.what.replace('-', '_')}").run
    try:
        print(measure(args.out, **given))
    except Interrupted as reason:
        print(f"{reason}; the same command goes on from there", file=sys.stderr)
        raise SystemExit(TEMPFAIL) from None


def _card(args):
    from training.card import rewrite

    for folder in args.folders:
        _print_pin(folder, rewrite(folder))


def _compact(args):
    from training.compact import compact

    for folder in args.folders:
        _print_pin(folder, compact(folder, args.data_dir))


def _print_pin(folder, pin):
    print(f'{folder}\npin: "{pathlib.Path(folder).name}": "{pin}",', flush=True)


def _publish(args):
    from training.publishing import describe
    from training.publishing import publish
    from zoo.registry import read_index

    done = publish(args.name, args.namespace, args.private, args.dry_run, args.folder, args.data_dir)
    known = read_index()["architectures"].get(args.name.partition(".")[0], {})
    print(describe(done, known.get("family") if done.of_the_zoo else None))


def _report(args):
    from training.report import report

    print("\n".join(map(str, report())))


if __name__ == "__main__":
    sys.exit(main())
