"""Do wanting and not wanting pull the same weights apart, and do experts help? Cosines of their gradients.

    python benchmarks/conflict.py                                            # trains a backbone per seed
    python benchmarks/conflict.py --seeds 2020 --backbone_checkpoint saved/DPR-SASRec-ml-100k-...
    python benchmarks/conflict.py --report                                   # only the plot and the table

Before every few steps of stage 3, the gradients of the loss are taken on fixed windows with dropout off: once
all their targets are asked a positive prompt, once a negative one. There are two sets of windows, A and B.
*Between* is the cosine of A's positive and B's negative gradient (and the other way round); *same kind* that of
A's and B's gradients of one kind: what sampling leaves of a cosine where there is no conflict at all.
Nothing of the training changes by it. It runs to its last epoch, without validation.

A record is results/<dataset>/conflict/<model>-experts-<n>-seed-<seed>.json; what is recorded is not run
again. Further `--option=value` go to the training.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # requests.py must not hide the library of that name
    sys.path.append(sys.path.pop(0))

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from recbole.utils import init_seed

from gradients import KINDS, WatchedTrainer
from recbole_dpr import run_recbole_dpr
from recbole_dpr.arguments import exit_status
from recbole_dpr.config import DPRConfig
from recbole_dpr.errors import DPRError
from recbole_dpr.evaluation.plots import COLOURS, DPI, WIDTH
from recbole_dpr.files import write_text
from recbole_dpr.options import read_command_line
from recbole_dpr.training.setup import prepare, prompted_training, training_loader

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PLOT = ROOT / "results", ROOT / "docs" / "images" / "gradient-conflict.png"
SHOWN = {"experts": "mixture of experts", "fusion": "fusion", "semantic": "semantic space"}
TABLED = {**SHOWN, "prompt": "embedding of the prompt", "all": "all that stage 3 trains"}
VERSIONS = ("recbole", "torch", "numpy")

Record = dict[str, Any]
Found = dict[int, list[Record]]  # by number of experts
Series = Callable[[Record], np.ndarray]  # from a record to a value over the steps


def run(config: DPRConfig, every: int) -> Record:
    """Train as `run_recbole_dpr` does, but without validation, and measure; returns the record."""
    data, phrasebook, model = prepare(config)
    init_seed(config["seed"], config["reproducibility"])
    training = prompted_training(config, data, phrasebook)
    with tempfile.TemporaryDirectory() as run_dir:
        trainer = WatchedTrainer(config, model, run_dir, training, every=every)
        trainer.fit(training_loader(config, data, model), saved=False)
    return {
        **{name: config[name] for name in ("model", "dataset", "seed", "n_experts")},
        "steps": trainer.steps,
        "cosines": trainer.cosines,
        "router": trainer.router,
        "machine": f"{os.cpu_count()} CPU cores, Python {platform.python_version()}",
        "versions": {name: version(name) for name in VERSIONS},
    }


def between(group: str) -> Series:
    """The cosine between the kinds."""
    return lambda record: np.array(record["cosines"][group]["between"], dtype=float)


def within(group: str) -> Series:
    """The mean of the cosines within the two kinds."""
    return lambda record: np.mean(
        [np.array(record["cosines"][group][kind], dtype=float) for kind in KINDS], axis=0
    )


def one_by_one(record: Record) -> np.ndarray:
    """The mean of the single experts' cosines between the kinds, by the weights that the router gives them."""
    weights = np.sum([record["router"][kind] for kind in KINDS], axis=0).T
    values = np.stack([between(f"expert {i + 1}")(record) for i in range(len(weights))])
    return np.average(values, axis=0, weights=weights)


def recorded(folder: Path, model: str) -> Found:
    """The records of a model, seeds ascending."""
    paths = sorted(folder.glob(f"{model}-experts-*.json"))
    records = sorted((json.loads(path.read_text()) for path in paths), key=lambda r: r["n_experts"])
    return {
        n: [r for r in records if r["n_experts"] == n] for n in {r["n_experts"]: 0 for r in records}
    }


def named(n: int) -> str:
    return f"{n} expert{'s' * (n > 1)}"


def plot(found: Found, path: Path) -> None:
    """Draw the cosines over the steps: mean over the seeds, and their range as a band."""
    first = next(iter(found.values()))[0]
    seeds = max(map(len, found.values()))
    figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    axes = figure.subplots(1, len(SHOWN), sharex=True, sharey=True)
    for panel, (group, title) in zip(axes, SHOWN.items(), strict=True):
        for colour, (n, records) in zip(COLOURS[3::-3], found.items(), strict=False):
            lines = {
                "same kind": (within(group), "--"),
                "positive and negative": (between(group), "-"),
            }
            if group == "experts" and n > 1:
                lines["positive and negative, expert by expert"] = (one_by_one, ":")
            for label, (series, style) in lines.items():
                values = np.stack([series(record) for record in records])
                steps, name = records[0]["steps"], f"{named(n)}: {label}"
                panel.plot(
                    steps, values.mean(axis=0), style, color=colour, label=name, linewidth=1.5
                )
                low, high = values.min(axis=0), values.max(axis=0)
                panel.fill_between(steps, low, high, color=colour, alpha=0.12, linewidth=0)
        panel.axhline(0, color="#333333", linewidth=0.8)
        panel.set_title(title, fontsize=10)
        panel.set_xlabel("step of stage 3")
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    axes[0].set_ylabel("cosine of two gradients")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=9)
    figure.suptitle(
        f"Gradients of positive and negative prompts: {first['model']} on {first['dataset']}, "
        f"mean and range of {seeds} seed{'s' * (seeds > 1)}"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=DPI)


def table(found: Found) -> str:
    """Means over seeds and over thirds of stage 3, as a table of Markdown."""
    rows: list[tuple[str, list[Record], Series, Series | None]] = [
        (f"{title}, {named(n)}", records, between(group), within(group))
        for group, title in TABLED.items()
        for n, records in found.items()
    ]
    rows += [
        (f"{named(n)}, one by one", records, one_by_one, None)
        for n, records in found.items()
        if n > 1
    ]
    lines = [
        "| | same kind | positive and negative: first third | second | last | below 0 |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, records, crossed, same in rows:
        values = np.stack([crossed(record) for record in records])
        cuts = np.linspace(0, values.shape[1], 4).astype(int)
        thirds = " | ".join(f"{np.nanmean(values[:, a:b]):.2f}" for a, b in pairwise(cuts))
        alike = f"{np.nanmean([same(record) for record in records]):.2f}" if same else ""
        lines.append(f"| {name} | {alike} | {thirds} | {np.mean(values < 0):.0%} |")
    return "\n".join(lines)


def arguments() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--dataset", default="ml-100k")
    parser.add_argument("--model", default="DPR-SASRec")
    parser.add_argument("--n_experts", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--seeds", nargs="+", type=int, default=[2020, 2021, 2022])
    parser.add_argument(
        "--backbone_checkpoint",
        nargs="+",
        metavar="RUN_DIR",
        help="one per seed; else it is trained",
    )
    parser.add_argument("--every", type=int, default=10, help="steps between two measurements")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--plot", type=Path, default=PLOT)
    parser.add_argument("--report", action="store_true", help="only the plot and the table")
    args, options = parser.parse_known_args()
    if args.backbone_checkpoint and len(args.backbone_checkpoint) != len(args.seeds):
        parser.error("--backbone_checkpoint takes one run folder for each of --seeds")
    return args, options


def main() -> None:
    args, options = arguments()
    folder = args.results / args.dataset / "conflict"
    for place, seed in enumerate([] if args.report else args.seeds):
        paths = {n: folder / f"{args.model}-experts-{n}-seed-{seed}.json" for n in args.n_experts}
        given = {"show_progress": False, **read_command_line(options), "seed": seed}
        backbone = args.backbone_checkpoint and args.backbone_checkpoint[place]
        for n, path in paths.items():
            if path.is_file():
                continue
            if not backbone:
                alone = {**given, "stage2_epochs": 0, "stage3_epochs": 0}
                backbone = run_recbole_dpr(args.model, args.dataset, config_dict=alone)["run_dir"]
            more = {"n_experts": n, "backbone_checkpoint": backbone, "stage1_epochs": 0}
            config = DPRConfig(args.model, args.dataset, config_dict={**given, **more})
            record = run(config, args.every)
            write_text(path, json.dumps(record) + "\n")
            print(f"wrote {path}", file=sys.stderr)
    found = recorded(folder, args.model)
    if not found:
        raise DPRError(f"{folder} holds no record of {args.model}: run this without --report")
    plot(found, args.plot)
    print(table(found))


if __name__ == "__main__":
    sys.exit(exit_status(main))
