"""The plots of docs/results.md: one dot per system or variant, a panel for each task."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from recbole_dpr.evaluation.plots import COLOURS, DPI, WIDTH
from recbole_dpr.evaluation.systems import sees
from suites.figures import NDCG, TASKS, half_width, values_of
from suites.records import Record, Records

NARROWEST = 0.05  # half of a panel of ablations at least, as a share of the full model's figure
DOTS = "large: mean over the seeds; small: each seed; line: 95 % confidence interval, from three seeds up"
# Colour (of COLOURS) and marker of each series; more of them begin again.
STYLES = ((0, "o"), (2, "s"), (4, "^"), (6, "D"), (3, "v"), (5, "P"), (1, "X"))
GAP = 0.8  # between the first series and that of the next row, as a share of a row's height


def systems(dataset: str, models: Records, path: Path) -> Path:
    """NDCG@10 of every system on every task; a colour for each model."""
    names = list(
        dict.fromkeys(
            system
            for records in models.values()
            for record in records
            for system in record["tasks"]["positive"]
        )
    )
    series = {
        model: {
            task: {name: values_of(records, "tasks", task, name, NDCG) for name in names}
            for task in TASKS
        }
        for model, records in models.items()
    }
    labels = {name: f"{name}\n({sees(name) or '?'})" for name in names}
    title = f"{dataset}: what prompts do (unseen phrases, test set)"
    return _dots(series, labels, title, path)


def ablations(dataset: str, variants: Mapping[str, Sequence[Record]], path: Path) -> Path:
    """NDCG@10 of DPR without each of its parts, beside the full model, the first of `variants`."""
    full = next(iter(variants))
    series = {
        full: {
            task: {
                name: values_of(records, "tasks", task, "DPR", NDCG)
                for name, records in variants.items()
            }
            for task in TASKS
        }
    }
    labels = {name: name.removeprefix(full).lstrip("-") or "full" for name in variants}
    return _dots(series, labels, f"{dataset}, {full}: what each part brings", path, line=full)


def _dots(
    series: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]],
    labels: Mapping[str, str],
    title: str,
    path: Path,
    line: str | None = None,
) -> Path:
    """Draw series -> task -> row -> values: the mean, its confidence interval, each seed as a small dot."""
    row = 0.46 * max(1.0, len(series) / 4)
    figure = Figure(figsize=(WIDTH, 1.6 + row * len(labels)), layout="constrained")
    panels = figure.subplots(1, len(TASKS), sharey=True)
    for axes, task in zip(panels, TASKS, strict=True):
        for index, (name, tasks) in enumerate(series.items()):
            shift = (index - (len(series) - 1) / 2) * min(0.2, GAP / len(series))
            _series(axes, tasks[task], list(labels), shift, index, name)
        if line and (values := series[line][task][line]):
            mean = statistics.mean(values)
            axes.axvline(mean, color="#999999", linewidth=1, linestyle=":")
            left, right = axes.get_xlim()  # what differs by nothing should not look as if it did
            axes.set_xlim(min(left, mean * (1 - NARROWEST)), max(right, mean * (1 + NARROWEST)))
        axes.set_title(task, fontsize=10)
        axes.set_xlabel("NDCG@10")
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.set_yticks(range(len(labels)), list(labels.values()), fontsize=8)
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.grid(axis="x", color="#DDDDDD", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        for row in range(1, len(labels)):
            axes.axhline(row - 0.5, color="#EEEEEE", linewidth=0.6, zorder=0)
    if len(series) > 1:
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.suptitle(f"{title}\n{DOTS}", fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=DPI)
    return path


def _series(
    axes: Axes,
    rows: Mapping[str, Sequence[float]],
    order: Sequence[str],
    shift: float,
    index: int,
    label: str,
) -> None:
    colour, marker = STYLES[index % len(STYLES)]
    style: dict[str, Any] = {"color": COLOURS[colour], "marker": marker}
    places = {row: order.index(row) + shift for row, values in rows.items() if values}
    for row, place in places.items():
        values = rows[row]
        axes.plot(
            values, [place] * len(values), ".", color=style["color"], alpha=0.35, markersize=4
        )
        half = half_width(values)
        if half and len(values) > 2:  # of two seeds it would fill the panel
            mean = statistics.mean(values)
            axes.plot([mean - half, mean + half], [place] * 2, color=style["color"], linewidth=1)
    means = [statistics.mean(rows[row]) for row in places]
    axes.plot(means, list(places.values()), linestyle="none", markersize=5, label=label, **style)
