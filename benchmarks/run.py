"""Run a suite of experiments on a data set, record them, and write docs/results.md from the records.

    python benchmarks/run.py --suite main --dataset ml-100k
    python benchmarks/run.py --suite ablation --dataset ml-100k --seeds 2020
    python benchmarks/run.py --suite main --dataset ml-1m --data_path=data --models DPR-SASRec --long
    python benchmarks/run.py --suite backbones --dataset ml-100k --plan     # only show what would be run
    python benchmarks/run.py --report                                       # only rebuild the pages

`benchmarks/suites/suites.yaml` says which runs a suite is made of. What is recorded is not run again; what was
cut off goes on where it stood, or starts again where it cannot. It may be stopped or killed at any time. Each
run has a process of its own. Options of the runs (`--data_path=...`, `--gpu_id=0`, `--epochs=1`) follow as
`--option=value`, as for run_recbole_dpr.py.

A record is results/<data set>/<variant>/seed-<n>.json; run folders are kept under --runs, where other
runs take their backbones from. A finished run folder without a record is recorded, not run again.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.append(sys.path.pop(0))  # so that requests.py does not hide the library of that name

import yaml

from recbole_dpr.arguments import exit_status
from recbole_dpr.files import YamlLoader
from recbole_dpr.options import read_command_line
from suites.jobs import duration, estimate, is_done, run_all, time_left
from suites.plan import FILE, Run, Suites, plan, read_suites, start_of
from suites.records import ROOT, Folders, experiment, recorded_with


def say(line: str) -> None:
    """One line of progress."""
    print(line, file=sys.stderr, flush=True)


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, dict[str, Any]]:
    """The flags, and the options of the runs.

    Raises
    ------
    DPRError
        If an option is not written --option=value.
    """
    introduction, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=introduction,
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--suite", help="main, ablation, speed or backbones")
    parser.add_argument("--dataset", help="one that the suite knows")
    parser.add_argument("--models", nargs="+", help="only these models or variants")
    parser.add_argument("--seeds", nargs="+", type=int, help="in place of the suite's")
    parser.add_argument("--long", action="store_true", help="also what takes days without a GPU")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time; default 1")
    parser.add_argument("--plan", action="store_true", help="only show what would be run")
    parser.add_argument("--report", action="store_true", help="only rebuild the pages")
    parser.add_argument(
        "--again", action="store_true", help="delete the records and run folders of the plan first"
    )
    parser.add_argument("--results", type=Path, default=Folders.results, help="records")
    parser.add_argument("--runs", type=Path, default=Folders.runs, help="run folders")
    parser.add_argument("--docs", type=Path, help="pages; default docs/, or --results if given")
    parser.add_argument("--suites", type=Path, default=FILE, metavar="FILE", help="another table")
    args, texts = parser.parse_known_args(argv)
    if not args.report and not (args.suite and args.dataset):
        parser.error("--suite and --dataset are needed, or --report")
    given = read_command_line(texts)
    try:
        options = {name: yaml.load(value, YamlLoader) for name, value in given.items()}
    except yaml.YAMLError as error:
        parser.error(f"an option's value is no YAML: {' '.join(str(error).split())}")
    return args, options


def queue(
    planned: Sequence[Run], suites: Suites, folders: Folders, options: dict[str, Any]
) -> tuple[list[Run], dict[Run, Run | None]]:
    """What of the plan is still to be run, each after the run that it starts from; and those starts."""
    starts = {run: start_of(suites, run, options) for run in planned}
    runs: list[Run] = []
    for run in planned:
        if is_done(run, folders, starts.values()):
            continue
        start = starts[run]
        if start and start not in runs and not is_done(start, folders, [start]):
            runs.append(start)
        if run not in runs:
            runs.append(run)
    return runs, starts


def show(runs: Sequence[Run], planned: Sequence[Run], folders: Folders, jobs: int) -> None:
    """Say what there is to do, and how long it will take."""
    for run in runs:
        seconds = estimate(run, folders.load(run.dataset))
        say(f"  {run!s:<40} {duration(seconds) if seconds else '-':>12}")
    done = [run for run in planned if run not in runs]
    say(f"{len(runs)} to run, {len(done)} recorded; left: {time_left(runs, {}, folders, jobs)}")
    others = [r for r in done if recorded_with(folders, r) != experiment(r.options)]
    if others:
        say(
            "recorded with other options than the suite's: "
            + ", ".join(map(str, others))
            + "; --again runs all that is planned again"
        )


def write_pages(folders: Folders, docs: Path, suites: Suites) -> None:
    """Every page and plot, from the records."""
    from suites import backbones_page, results_page

    for path in (*results_page.write(folders, docs, suites), *backbones_page.write(folders, docs)):
        say(f"wrote {path}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; returns its exit status, 1 if a run failed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    args, options = parse(argv)
    suites = read_suites(args.suites)
    folders = Folders(args.results.resolve(), args.runs.resolve())
    own = folders.results == Folders.results
    docs = args.docs or (ROOT / "docs" if own else folders.results)
    if args.report:
        write_pages(folders, docs, suites)
        return 0
    planned = plan(
        suites,
        args.suite,
        args.dataset,
        models=args.models,
        seeds=args.seeds,
        options=options,
        long=args.long,
    )
    if args.again and not args.plan:
        for run in planned:
            folders.forget(run)
    runs, starts = queue(planned, suites, folders, options)
    show(runs, planned, folders, args.jobs)
    if args.plan:
        return 0
    try:
        failed = run_all(runs, starts, folders, args.jobs, say)
    except KeyboardInterrupt:
        say("interrupted; the same command goes on")
        return 130
    finally:
        write_pages(folders, docs, suites)
    if failed:
        say("failed: " + ", ".join(map(str, failed)))
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(exit_status(main))
