"""The report's pictures: systems per task, training curves, router weights.

Drawn with matplotlib's objects alone (no ``pyplot``, whose global state would clash with a caller's
own figures), 1200 pixels wide, in the Okabe-Ito colours, which colour-blind readers can tell apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from recbole_dpr.evaluation.systems import SYSTEMS, sees

COLOURS = ("#0072B2", "#999999", "#E69F00", "#D55E00", "#009E73", "#56B4E9", "#CC79A7", "#F0E442")
LABELLED = 6  # with more systems than this the numbers on the bars would overlap
DPI = 120
WIDTH = 10.0  # inches


def plot_systems(metrics: Mapping[str, Any], path: str | Path, k: int = 10) -> Path:
    """Draw NDCG, Satisfied and Violation of each system per task (unseen phrases).

    Parameters
    ----------
    metrics : mapping
        As `evaluate_tasks` returns it; whiskers are ``standard_error``, one each way.
    path : path of the PNG
    k : int
        Length of the lists.

    Returns
    -------
    Path
        The file written.
    """
    tasks = {name: figures for name, figures in metrics["tasks"].items() if _users(figures)}
    names = list(dict.fromkeys(system for figures in tasks.values() for system in figures))
    prompted = [name for name in tasks if name != "standard"]
    errors = metrics.get("standard_error", {})

    figure = Figure(figsize=(WIDTH, 7.6), layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=(1.3, 1), hspace=0.08)
    top = figure.add_subplot(grid[0, :])
    _bars(top, tasks, list(tasks), names, f"ndcg@{k}", errors)
    top.set_title(f"NDCG@{k} (higher is better; whiskers: standard error over users)", fontsize=10)
    top.set_ylabel(f"NDCG@{k}")
    satisfied = figure.add_subplot(grid[1, 0])
    _bars(satisfied, tasks, prompted, names, f"satisfied@{k}", percent=True)
    satisfied.set_title(f"Top {k} that fits the prompt (higher is better)", fontsize=10)
    satisfied.set_ylabel(f"Satisfied@{k} (%)")
    satisfied.set_ylim(0, 112)
    violation = figure.add_subplot(grid[1, 1])
    # A positive prompt forbids nothing: its violation is zero by definition.
    forbidding = [task for task in prompted if task != "positive"]
    _bars(violation, tasks, forbidding, names, f"violation@{k}", percent=True)
    violation.set_title(f"Top {k} that is unwanted (lower is better)", fontsize=10)
    violation.set_ylabel(f"Violation@{k} (%)")
    violation.set_ylim(bottom=0)
    handles, _ = top.get_legend_handles_labels()
    labels = [f"{name} (sees {sees(name)})" if sees(name) else name for name in names]
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9)
    figure.suptitle(
        f"{metrics['model']} on {metrics['dataset']}: what prompts do (unseen phrases, test set)"
    )
    return _save(figure, path)


def plot_training(history: Sequence[Mapping[str, Any]], path: str | Path) -> Path:
    """Draw loss and validation figures per epoch, one column for each stage that was run.

    Parameters
    ----------
    history : sequence of mappings
        As `DPRTrainer.history`.
    path : path of the PNG
    """
    stages = sorted({row["stage"] for row in history})
    figure = Figure(figsize=(WIDTH, 5.6), layout="constrained")
    axes = figure.subplots(2, len(stages), squeeze=False)
    for column, stage in enumerate(stages):
        rows = [row for row in history if row["stage"] == stage]
        loss, valid = axes[0, column], axes[1, column]
        loss.plot(*_series(rows, lambda row: row["loss"]), **_line(0))
        measures = _shown(name for row in rows for name in row.get("valid") or {})
        for index, name in enumerate(measures):
            points = _series(rows, lambda row, name=name: (row.get("valid") or {}).get(name))
            valid.plot(*points, label=name.replace("_", ", "), **_line(index))
        if measures:
            valid.set_ylim(bottom=0)
            valid.legend(
                fontsize=7, loc="lower right", ncols=2, columnspacing=0.8, handlelength=1.2
            )
        else:
            valid.text(0.5, 0.5, "no validation figures", ha="center", transform=valid.transAxes)
        seconds = sum(row.get("seconds") or 0 for row in rows)
        epochs = f"{len(rows)} epoch{'s' * (len(rows) != 1)}"
        best = [row["epoch"] + 1 for row in rows if row.get("best")]
        kept = f"best: {best[-1]}" if best else "none kept"
        loss.set_title(
            f"Stage {stage}: {rows[0]['title']}\n{epochs}, {seconds:.0f} s, {kept}", fontsize=10
        )
        for panel in (loss, valid):
            _tidy(panel)
            panel.set_xlim(0.5, max(row["epoch"] for row in rows) + 1.5)
            panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        valid.set_xlabel("epoch")
        if not measures:
            valid.set_yticks([])
    axes[0, 0].set_ylabel("training loss")
    axes[1, 0].set_ylabel("validation")
    figure.suptitle("Training curves")
    return _save(figure, path)


def _shown(names: Iterable[str]) -> list[str]:
    """NDCG over the tasks and for each, where it was measured: more lines could not be told apart."""
    names = list(dict.fromkeys(names))
    return [name for name in names if "ndcg" in name][:4] or names[:4]


def plot_router(weights: Mapping[str, Iterable[float]], path: str | Path) -> Path:
    """Draw the router's mean weight of each expert, per polarity of the prompt.

    Parameters
    ----------
    weights : mapping of polarity to ``[n_experts]`` mean weights (each sums to one)
    path : path of the PNG
    """
    table = np.array([list(map(float, row)) for row in weights.values()])
    figure = Figure(figsize=(WIDTH, 1.9 + 0.62 * len(table)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(table, vmin=0, vmax=1, cmap="cividis", aspect="auto")
    for (row, column), value in np.ndenumerate(table):
        colour = "black" if value > 0.5 else "white"
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour)
    axes.set_xticks(range(table.shape[1]), [str(i + 1) for i in range(table.shape[1])])
    axes.set_yticks(range(len(table)), list(weights))
    axes.set_xlabel("expert")
    axes.set_ylabel("prompt")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    figure.colorbar(image, ax=axes, label="mean router weight", pad=0.02)
    figure.suptitle("Where the router sends prompts (mean weight of each expert)")
    return _save(figure, path)


def _bars(
    axes: Axes,
    tasks: Mapping[str, Any],
    shown: Sequence[str],
    names: Sequence[str],
    key: str,
    errors: Mapping[str, Any] | None = None,
    percent: bool = False,
) -> None:
    """Draw one group per task, of the systems that ran on it, centred on the task's tick."""
    width = 0.84 / max(len(names), 1)
    for name in names:
        places, heights, spread = [], [], []
        for place, task in enumerate(shown):
            present = [system for system in names if key in tasks[task].get(system, {})]
            if name in present:
                places.append(place + (present.index(name) - (len(present) - 1) / 2) * width)
                heights.append(tasks[task][name][key] * (100 if percent else 1))
                spread.append((errors or {}).get(task, {}).get(name) or 0.0)
        axes.bar(places, heights, width * 0.94, label=name, **_fill(name, names))
        if errors:
            axes.errorbar(places, heights, spread, fmt="none", ecolor="#333333", elinewidth=1)
        for x, height, error in zip(places, heights, spread, strict=True):
            if len(names) <= LABELLED:
                digits = 3 if not percent else 0 if height >= 10 or not height else 1
                axes.annotate(
                    f"{height:.{digits}f}",
                    (x, height + error),
                    xytext=(0, 2),
                    textcoords="offset points",
                    ha="center",
                    fontsize=7,
                )
    axes.set_xticks(range(len(shown)), list(shown))
    axes.margins(y=0.12)
    _tidy(axes)


def _fill(name: str, names: Sequence[str]) -> dict[str, Any]:
    """Give the usual systems the same colour in every plot, and others the colours left over."""
    order = [*SYSTEMS, *(other for other in names if other not in SYSTEMS)]
    index = order.index(name)
    hatch = "//" if index >= len(COLOURS) else None
    return {"color": COLOURS[index % len(COLOURS)], "hatch": hatch, "edgecolor": "white"}


def _series(rows: Sequence[Mapping[str, Any]], value: Any) -> tuple[list[float], list[float]]:
    points = [(row["epoch"] + 1, value(row)) for row in rows if value(row) is not None]
    return [x for x, _ in points], [y for _, y in points]


def _line(index: int) -> dict[str, Any]:
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": "o",
        "markersize": 3,
        "linewidth": 1.5,
    }


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)


def _users(figures: Mapping[str, Mapping[str, float]]) -> bool:
    return any(system["users"] for system in figures.values())


def _save(figure: Figure, path: str | Path) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=DPI)
    return path
