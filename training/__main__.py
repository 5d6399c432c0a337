"""`python -m training train / finetune / benchmark / report`."""

import argparse
import os
import sys

from zoo.__main__ import run_command


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m training", description="Train, fine-tune and measure the zoo's models."
    )
    commands = parser.add_subparsers(dest="command", required=True)

    train = commands.add_parser("train", help="train a model by its recipe, or go on with an interrupted run")
    train.add_argument("name", help="such as mpelu_resnet20.cifar100")
    train.add_argument("--data-dir", help="where the data are looked for first (default: $ZOO_DATA_DIR)")
    train.add_argument("--out", default="runs", help="folder of the runs (default: %(default)s)")
    train.add_argument("--seeds", type=int, nargs="+", help="seeds in place of the recipe's; the first is published")
    train.add_argument("--epochs", type=int, help="epochs in place of the recipe's; the schedule is rescaled")
    train.add_argument("--stop-after", type=float, metavar="MINUTES", help="stop at the end of an epoch, in time")
    train.add_argument("--bundle", action="store_true", help="copy the folder of weights into the package")
    train.set_defaults(run=_train)

    finetune = commands.add_parser("finetune", help="fine-tune a pretrained model on your own images or table")
    finetune.add_argument("name", help="a pretrained model; for a table also an architecture, such as snn_mlp4")
    finetune.add_argument("--data", required=True, help="a folder of class folders of images, or a CSV file")
    finetune.add_argument("--out", required=True, help="folder to make; zoo.load_model loads it")
    finetune.add_argument("--label", default="label", help="column of the label in the CSV (default: %(default)s)")
    finetune.add_argument("--epochs", type=int, default=30)
    finetune.add_argument("--learning-rate", type=float, default=None, help="of Adam (default: 1e-3)")
    finetune.add_argument("--validation", type=float, default=0.2, help="fraction held out (default: %(default)s)")
    finetune.add_argument("--seed", type=int, default=0)
    finetune.set_defaults(run=_finetune)

    benchmark = commands.add_parser("benchmark", help="measure; writes a CSV under --out")
    benchmark.add_argument("what", choices=["tabular", "finetuning", "signal"])
    benchmark.add_argument("--out", default="results", help="folder of the CSV (default: %(default)s)")
    benchmark.set_defaults(run=_benchmark)

    report = commands.add_parser("report", help="make results/models.csv and the README's table anew")
    report.set_defaults(run=_report)
    return run_command(parser, arguments)


def _train(args):
    from training.recipes import get_recipe

    recipe = get_recipe(args.name)  # an unknown name costs no import of a backend
    from training.loop import Interrupted
    from training.run import describe
    from training.run import train

    try:
        weights = train(recipe, args.data_dir, args.out, args.seeds, args.epochs, args.stop_after, args.bundle)
    except Interrupted as reason:
        print(f"{reason}; the same command goes on from there", file=sys.stderr)
        raise SystemExit(os.EX_TEMPFAIL) from None
    print(describe(weights))


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
    )


def _benchmark(args):
    from training.benchmark import BENCHMARKS

    print(BENCHMARKS[args.what](args.out))


def _report(args):
    from training.report import report

    print("\n".join(map(str, report())))


if __name__ == "__main__":
    sys.exit(main())
