"""Train a promptable recommender and report what its prompts do.

    python run_recbole_dpr.py --model=DPR-SASRec --dataset=ml-100k

`python run_recbole_dpr.py --help` tells the rest. Also installed as the command run_recbole_dpr.
"""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import recbole_dpr
from recbole_dpr.arguments import HelpFormatter, Once, Parser, exit_status
from recbole_dpr.errors import DPRError
from recbole_dpr.files import properties_dir
from recbole_dpr.options import SCRIPT_FLAGS, read_options

EXAMPLES = """\
examples:
  python run_recbole_dpr.py
  python run_recbole_dpr.py --model=DPR-GRU4Rec --seed=2021
  python run_recbole_dpr.py --model=SASRec                    the backbone alone, as a baseline
  python run_recbole_dpr.py --dataset=ml-1m --data_path=data  reads data/ml-1m/ml-1m.inter and .item
  python run_recbole_dpr.py --config_files="a.yaml b.yaml" --stage3_epochs=20
  python run_recbole_dpr.py --resume=saved/DPR-SASRec-ml-100k-...

The folder of the run is printed last. It holds report.md with its plots, metrics.json, config.yaml
and the model.
"""


def build_parser() -> argparse.ArgumentParser:
    """The flags of RecBole's run_recbole.py, and --resume."""
    folder = properties_dir()
    defaults = read_options(folder / "overall.yaml")
    parser = Parser(
        prog="run_recbole_dpr.py",
        usage="%(prog)s [--model=MODEL] [--dataset=DATASET] [--OPTION=VALUE ...]",
        description="Train a sequential recommender that follows a plain-language prompt, compare\n"
        "it with filters that know the true attributes, and write a report.",
        epilog=f"{EXAMPLES}\n{_option_list(folder)}",
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "-m",
        "--model",
        action=Once,
        help="DPR-<backbone> for any RecBole sequential model (DPR-SASRec, DPR-GRU4Rec, ...), or "
        f"the plain model (SASRec) as a baseline; default {defaults['model'].default}",
    )
    parser.add_argument(
        "-d",
        "--dataset",
        action=Once,
        help="a folder of RecBole atomic files in data_path, or a data set that RecBole can "
        f"download; default {defaults['dataset'].default}",
    )
    parser.add_argument(
        "--config_files",
        action=Once,
        metavar="FILES",
        help="yaml files of options, separated by spaces; the last one is the strongest",
    )
    parser.add_argument(
        "--resume",
        action=Once,
        metavar="RUN_DIR",
        type=os.path.expanduser,  # a shell leaves the ~ behind a = alone
        help="go on with a run that was cut off, from its run folder",
    )
    processes = parser.add_argument_group(
        "flags of RecBole's distributed training",
        "Known, so that scripts written for RecBole run here. More than one process is not\n"
        "supported yet.",
    )
    for flag in SCRIPT_FLAGS:
        processes.add_argument(f"--{flag}", action=Once, metavar="X")
    return parser


def _option_list(folder: Path) -> str:
    lines = [
        "options, given as --OPTION=VALUE, and their defaults. Besides these, every option of",
        "RecBole and of the backbone works under its RecBole name: --seed=1, --hidden_size=128,",
        "--epochs=10 (an upper limit for all three stages, whatever they have of their own); of others",
        "(learning_rate, train_batch_size, ...) a stage's own option counts where it has one. Data sets",
        "bring defaults of their own.",
        f"(The files: {folder})",
        "",
    ]
    for name, option in read_options(folder / "model" / "DPR.yaml").items():
        if name == "resume":  # stands above, as a flag
            continue
        value = option.default
        if isinstance(value, dict):
            value = "{" + ", ".join(f"{key}: {entry}" for key, entry in value.items()) + "}"
        lines.append(f"  --{name}={'None' if value is None else value}")
        indent = " " * 8
        lines.append(
            textwrap.fill(option.help, 96, initial_indent=indent, subsequent_indent=indent)
        )
    return "\n".join(lines)


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Split the arguments into the flags above and `--key=value` texts.

    Raises
    ------
    DPRError
        If something else is among them: RecBole would ignore it.
    """
    flags, options = build_parser().parse_known_args(argv)
    for position, text in enumerate(options):
        name, equals, _ = text.partition("=")
        if not text.startswith("-"):
            before = options[position - 1] if position else ""
            if before.startswith("--") and "=" not in before:
                raise DPRError(f"{before} {text} must be written {before}={text}")
            raise DPRError(f"unexpected {text!r}: options are written --option=value; see --help")
        if not name.startswith("--"):
            raise DPRError(f"unknown flag {text!r}: options are written --option=value; see --help")
        following = options[position + 1 : position + 2]
        if not equals and not (following and not following[0].startswith("-")):
            raise DPRError(f"{text} has no value: write {text}=VALUE")
    for flag in SCRIPT_FLAGS:
        if getattr(flags, flag) is not None:
            options.append(f"--{flag}={getattr(flags, flag)}")
    return flags, options


def config_files(text: str | None) -> list[str]:
    """The files that `--config_files` names: split at spaces, unless the whole is one file."""
    if text is None:
        return []
    files = [text] if Path(text).expanduser().is_file() else text.split()
    return [os.path.expanduser(file) for file in files]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; returns its exit status."""

    def train() -> None:
        flags, options = parse(sys.argv[1:] if argv is None else argv)
        result = recbole_dpr.run_recbole_dpr(
            model=flags.model,
            dataset=flags.dataset,
            config_file_list=config_files(flags.config_files) or None,
            config_dict=None,
            command_line=options,
            resume=flags.resume,
        )
        print(result["run_dir"])

    return exit_status(train)  # after Ctrl-C the log says how to go on


if __name__ == "__main__":
    sys.exit(main())
