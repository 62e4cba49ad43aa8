"""The run folder's report.md, for a stranger, with its plots."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from recbole_dpr.evaluation.examples import Example, examples_page
from recbole_dpr.evaluation.plots import plot_router, plot_systems, plot_training
from recbole_dpr.evaluation.systems import described
from recbole_dpr.evaluation.tables import (
    cutoff,
    delta_auc_table,
    exact_table,
    figures_table,
    read_more,
    significance_table,
    sliced,
)
from recbole_dpr.files import write_text

INTRODUCTION = """\
`{model}` was trained on `{dataset}` (seed {seed}) and then asked to rank the whole catalogue for every
test user, who is represented by all interactions but the last (leave-one-out). The *target* is that
last item. A *positive* prompt asks for one attribute value of the target, a *negative* one rules out
a value that the user's history has and the target lacks, a *compound* one does both; the *standard*
task has no prompt. All systems answer the same prompts for the same users.

**Read this before comparing:** `filter`, `calibrated_filter` and `post_filter` are told the true
attributes of every item and exactly which values are meant. `DPR` (where the model is promptable) sees
nothing but the prompt's text, here in the phrasebook's `unseen` phrases, on which this run did not train. `backbone` ignores it.

{systems}

NDCG and Recall: higher is better. Satisfied: share of the top {k} that the prompt allows. Violation:
share of the top {k} that it rules out (lower is better). Ties rank at their average."""

EXCLUDED = """No system recommends what stands in a user's history (`exclude_history`): these figures do not compare with
those of runs in which it may be recommended again, as in RecBole."""


ERRORS = """\
After ± stands the standard error over the users of this one run; it does not include the spread between
seeds. All systems rank for the same users, so that a difference between two of them is more certain
than their two errors suggest."""

SEEN = "The same users and wishes, in the phrasebook's phrases for training and validation."

HARD = """The same users and wishes, in phrases of which not only the frame but mostly also the words of
wanting and not wanting are held out of training."""

READING = """Share of the prompts in which every value was read as it was meant: wanted, rejected, or not spoken of."""

LOGGED = """The test interactions that came with a prompt of the data set's own. Where its file does not say what
a prompt asks for, the filters, Satisfied@k and Violation@k go by what the model reads: they cannot tell whether it
read rightly, which NDCG@k does."""

SLICES = """\
On habit: the prompt's value has at least the median share of its user's history, and some; off habit: less."""

FILES = "All figures: [metrics.json](metrics.json). All settings: [config.yaml](config.yaml)."

SIGNIFICANCE = """\
NDCG of `DPR` minus that of each system over the same users (unseen phrases): paired t-test, two-sided; Holm's
correction is over the systems of a task. It tells of the users of this run, not of the spread between seeds."""

DELTA_AUC = """\
How much the chance that an item with the value stands above one without changes from the backbone's ranking,
when {users} users ask for the value (increase) or against it (decrease); mean over all values. Each value's own
figure is in metrics.json."""

LEFT_OUT = "Test users for whom a task has no valid prompt (say, a target without attributes):"


def write_report(
    run_dir: str | Path,
    metrics: Mapping[str, Any],
    *,
    command: str,
    training: Sequence[Mapping[str, Any]] = (),
    router: Mapping[str, Iterable[float]] | None = None,
    examples: Sequence[Example] = (),
    versions: Mapping[str, str] | None = None,
) -> Path:
    """Write ``report.md``, ``examples.md`` and ``plots/*.png`` into the run folder.

    Parameters
    ----------
    metrics : mapping
        The content of ``metrics.json`` (`evaluate_tasks`), with all ``seconds`` filled in.
    command : str
        What to type to get the same figures again.
    training : sequence of mappings
        The content of ``training.json``; nothing is drawn for an empty one.
    router : mapping of polarity to mean weight of each expert, optional
    examples : sequence of Example
    versions : mapping of package to version, optional

    Returns
    -------
    Path
        ``report.md``.
    """
    run_dir = Path(run_dir)
    k = cutoff(metrics)
    names = {name: metrics[name] for name in ("model", "dataset", "seed")}
    plots = {"What prompts do": plot_systems(metrics, run_dir / "plots" / "systems.png", k)}
    if training:
        plots["Training curves"] = plot_training(training, run_dir / "plots" / "training.png")
    if router:
        plots["Router weights"] = plot_router(router, run_dir / "plots" / "router.png")
    seen, hard, logged = (
        {name: f for name, f in metrics.get(part, {}).items() if name != "standard"}
        for part in ("tasks_seen_phrases", "tasks_hard_phrases", "tasks_logged")
    )
    parts = [
        f"# {names['model']} on {names['dataset']}",
        INTRODUCTION.format(k=k, systems=_described(metrics), **names),
        *([EXCLUDED] if metrics.get("exclude_history") else []),
        "## Result on unseen phrases",
        figures_table(metrics["tasks"], k, metrics["standard_error"]),
        ERRORS,
        _picture("What prompts do", plots),
    ]
    read = metrics.get("reading", {"exact": {}, "misread": []})
    if "tasks" in read["exact"]:
        parts += [
            "## Reading",
            READING,
            exact_table(read["exact"]),
            *read_more(read),
        ]
    if metrics.get("significance"):
        parts += ["## More than chance?", SIGNIFICANCE, significance_table(metrics["significance"])]
    if seen:
        parts += ["## Result on seen phrases", SEEN, figures_table(seen, k)]
    if hard:
        parts += ["## Result on hard phrases", HARD, figures_table(hard, k)]
    if logged:
        parts += ["## Result on logged prompts", LOGGED, figures_table(logged, k)]
        if exact := read["exact"].get("tasks_logged"):
            parts.append(f"Read exactly right: {exact['logged']:.1%}.")
    if metrics["slices"]:
        parts += ["## On habit and off habit (unseen phrases)", SLICES]
        parts += [figures_table(sliced(metrics["slices"]), k)]
    if "delta_auc" in metrics:
        measured = metrics["delta_auc"]
        parts += ["## Delta AUC", DELTA_AUC.format(**measured), delta_auc_table(measured)]
    if examples:
        steered = "DPR" in metrics["tasks"][examples[0].task]
        page = examples_page(names, examples, steered, read["misread"])
        write_text(run_dir / "examples.md", page)
        parts += ["## Examples", "[Real users, their prompts and their top 10](examples.md)."]
    parts += ["## Training"] if training or router else []
    parts += [_picture("Training curves", plots), _picture("Router weights", plots)]
    parts += ["## Left out", LEFT_OUT, _pairs(metrics["left_out"])]
    parts += ["## Seconds", _pairs(metrics["seconds"])]
    if versions:
        parts += ["## Versions", _pairs(versions)]
    parts += ["## The same again", f"```sh\n{command}\n```", FILES]
    path = run_dir / "report.md"
    write_text(path, "\n\n".join(part for part in parts if part) + "\n")
    return path


def _described(metrics: Mapping[str, Any]) -> str:
    return "\n".join(described({system for task in metrics["tasks"].values() for system in task}))


def _pairs(values: Mapping[str, Any]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in values.items())


def _picture(title: str, plots: Mapping[str, Path]) -> str:
    return f"![{title}](plots/{plots[title].name})" if title in plots else ""
