"""Search for good options of a DPR model, with RecBole's HyperTuning.

    python run_hyper_dpr.py --params_file=hyper.test --model=DPR-SASRec --dataset=ml-100k

The file of ranges is RecBole's: a line per option, such as `stage3_learning_rate choice [0.001,0.002]` or
`prompt_dropout uniform 0.1,0.3`, which wants --algo=random or bayes (bounds of a `loguniform` are natural logarithms). Needs hyperopt: pip install 'recbole_dpr[hyper]'.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import recbole_dpr
import run_recbole_dpr
from recbole_dpr.arguments import HelpFormatter, Parser, exit_status
from recbole_dpr.errors import DPRError
from recbole_dpr.options import read_command_line


def build_parser() -> argparse.ArgumentParser:
    """RecBole's flags of run_hyper.py; `--key=value` options hold in every run."""
    parser = Parser(prog="run_hyper_dpr.py", description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--params_file", required=True, help="options to search over, by line")
    parser.add_argument("--config_files", help="yaml files of options, separated by spaces")
    parser.add_argument("--output_file", default="hyper_dpr.result", help="where all results go")
    parser.add_argument("--tool", default="Hyperopt", help="Hyperopt, the one that is supported")
    parser.add_argument("--algo", default="exhaustive", choices=("exhaustive", "random", "bayes"))
    parser.add_argument(
        "--max_evals", type=int, default=100, help="runs at most; exhaustive tries all"
    )
    parser.add_argument(
        "--early_stop", type=int, default=10, help="runs without a better one; exhaustive tries all"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; returns its exit status."""
    return exit_status(lambda: search(sys.argv[1:] if argv is None else argv))


def search(argv: Sequence[str]) -> int:
    """Search, and print the best options with their figures."""
    flags, options = build_parser().parse_known_args(argv)
    if flags.tool.lower() != "hyperopt":
        raise DPRError(
            f"--tool={flags.tool} is not supported: RecBole 1.2.1 pins ray to versions that today's "
            "NumPy and setuptools cannot load; leave it out, or write --tool=Hyperopt"
        )
    fixed = read_command_line(options)
    from recbole_dpr.tuning import tune

    def objective(params: dict[str, Any], config_files: list[str] | None) -> dict[str, Any]:
        return recbole_dpr.objective_function({**fixed, **params}, config_files, saved=False)

    try:
        tuning = tune(
            objective,
            flags.params_file,
            run_recbole_dpr.config_files(flags.config_files),
            flags.algo,
            flags.max_evals,
            flags.early_stop,
            flags.output_file,
        )
    except KeyboardInterrupt:
        print(f"interrupted; {flags.output_file} holds the runs so far", file=sys.stderr)
        return 130
    print(f"best options: {tuning.best_params}")
    best = tuning.params2result[tuning.params2str(tuning.best_params)]
    print(f"their validation: {best['best_valid_result']}")
    print(f"their test: {best['test_result']}")
    run = best["run_dir"]
    print(f"their run: {run} (without weights; --resume={run} of run_recbole_dpr.py trains them)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
