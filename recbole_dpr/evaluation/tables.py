"""The figures as tables: markdown for the report, plain text for the console."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recbole_dpr.evaluation.systems import sees
from recbole_dpr.options import reported_k

LOW = 0.9  # share of prompts read exactly right below which it is said what may help
WAY_OUT = (
    "A larger reader beside the default one may read more (--reader=[shipped,large]; docs/prompts.md); a "
    "training's examples.md shows some that were misread, evaluate --json has them under reading."
)


def summary_table(metrics: Mapping[str, Any]) -> str:
    """Return the headline figures (unseen phrases, and a data set's own prompts) as plain text for the console."""
    logged = {n: f for n, f in metrics.get("tasks_logged", {}).items() if n != "standard"}
    tasks = {**metrics["tasks"], **logged}
    rows = _rows(tasks, cutoff(metrics), metrics.get("standard_error", {}))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for above, row in zip([rows[0], *rows], rows, strict=False):
        cells = [cell.ljust(width) for cell, width in zip(row[:3], widths, strict=False)]
        cells += [cell.rjust(width) for cell, width in zip(row[3:], widths[3:], strict=True)]
        between_tasks = "\n" if row[0] != above[0] else ""
        lines.append(between_tasks + "  ".join(cells).rstrip())
    read = metrics.get("reading", {"exact": {}})
    if "tasks" in read["exact"]:
        exact = {**read["exact"]["tasks"], **read["exact"].get("tasks_logged", {})}
        shares = ", ".join(f"{task} {share:.1%}" for task, share in exact.items())
        lines += ["", f"Read exactly right: {shares}", *read_more(read)]
    if "delta_auc" in metrics:
        up, down = metrics["delta_auc"]["increase"], metrics["delta_auc"]["decrease"]
        moved = (f"{name} {up[name]['mean']:+.3f} / {down[name]['mean']:+.3f}" for name in up)
        lines += ["", f"Delta AUC, increase / decrease: {', '.join(moved)}"]
    return "\n".join(lines)


def read_more(reading: Mapping[str, Any]) -> list[str]:
    """What may help, where few prompts of a task were read exactly right."""
    lines = [WAY_OUT] if min(reading["exact"]["tasks"].values()) < LOW else []
    if hard := reading.get("hard_values"):  # records of before do not have them
        lines.append(
            f"Most often misread: {', '.join(hard)}; another name may help, in a phrasebook of your own "
            "(docs/phrasebooks.md)."
        )
    return lines


def _rows(
    tasks: Mapping[str, Any], k: int, errors: Mapping[str, Any] | None = None
) -> list[list[str]]:
    """Return the header and one row per task and system, as text."""
    names = [f"{name}@{k}" for name in ("NDCG", "Recall", "Satisfied", "Violation")]
    rows = [["task", "system", "sees", names[0], "x filter", *names[1:], "users"]]
    for task, systems in tasks.items():
        reference = systems.get("filter", {}).get(f"ndcg@{k}")
        for system, figures in systems.items():
            row = [task, system, sees("backbone" if task == "standard" else system)]
            if figures["users"]:
                ndcg, recall, satisfied, violation = (figures[name.lower()] for name in names)
                error = (errors or {}).get(task, {}).get(system)
                row += [f"{ndcg:.4f}" + (f" ± {error:.4f}" if error is not None else "")]
                row += [f"{ndcg / reference:.3f}" if reference else "-", f"{recall:.4f}"]
                # Without a prompt there is nothing to satisfy or violate.
                shares = [f"{satisfied:.2%}", f"{violation:.2%}"]
                row += ["-", "-"] if task == "standard" else shares
            else:
                row += ["-"] * 5
            rows.append([*row, str(figures["users"])])
    return rows


def figures_table(tasks: Mapping[str, Any], k: int, errors: Mapping[str, Any] | None = None) -> str:
    """Return a markdown table of tasks (task -> system -> figures), NDCG with its `errors`."""
    return markdown(_rows(tasks, k, errors), words=3)


def significance_table(tasks: Mapping[str, Any]) -> str:
    """Return a markdown table of `paired` by task."""
    rows = [["task", "DPR against", "difference", "p", "p, Holm"]]
    for task, systems in tasks.items():
        for system, test in systems.items():
            numbers = [f"{test['difference']:+.4f}", f"{test['p']:.2g}", f"{test['p_holm']:.2g}"]
            rows.append([task, system, *numbers])
    return markdown(rows, words=2)


def exact_table(exact: Mapping[str, Mapping[str, float]]) -> str:
    """Return a markdown table of the shares read exactly right, a row for each kind of phrases."""
    names = {"tasks": "unseen", "tasks_seen_phrases": "for training", "tasks_hard_phrases": "hard"}
    kinds = list(exact["tasks"])
    rows = [["phrases", *kinds]]
    rows += [
        [names[part], *(f"{shares[kind]:.1%}" if kind in shares else "-" for kind in kinds)]
        for part, shares in exact.items()
        if part in names
    ]
    return markdown(rows, words=1)


def delta_auc_table(measured: Mapping[str, Any]) -> str:
    """Return a markdown table of the means of `delta_auc`, a row for each system."""
    up, down = measured["increase"], measured["decrease"]
    rows = [["system", "increase", "decrease"]]
    rows += [[name, f"{up[name]['mean']:+.3f}", f"{down[name]['mean']:+.3f}"] for name in up]
    return markdown(rows, words=1)


def markdown(rows: Sequence[Sequence[str]], words: int) -> str:
    """A table whose first row is the head and whose first `words` columns are no numbers."""
    head, *body = rows
    rule = ["---"] * words + ["---:"] * (len(head) - words)
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *body])


def sliced(slices: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures of the slices as tasks of their own ("positive, on habit")."""
    return {
        f"{task}, {label.replace('_', ' ')}": figures
        for task, parts in slices.items()
        for label, figures in parts.items()
    }


def cutoff(metrics: Mapping[str, Any]) -> int:
    """Return the k of the headline: 10 where it was measured, else the largest."""
    keys = {key for task in metrics["tasks"].values() for system in task.values() for key in system}
    cutoffs = {int(key.split("@")[1]) for key in keys if "@" in key}
    return reported_k(cutoffs or {10})
