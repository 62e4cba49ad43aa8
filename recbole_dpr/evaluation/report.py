"""The run folder's pages: report.md for a stranger, examples.md, and the table for the console."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from recbole_dpr.data.intent import in_words
from recbole_dpr.evaluation.batches import prompted_batch, score_prompted
from recbole_dpr.evaluation.plots import plot_router, plot_systems, plot_training
from recbole_dpr.evaluation.systems import described, filter_
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
from recbole_dpr.metrics import average_rank, top_items

if TYPE_CHECKING:
    from recbole_dpr.data.dataset import PromptDataset
    from recbole_dpr.data.prompts import PromptTable
    from recbole_dpr.data.tasks import PromptedTask

EXAMPLE_SEED = 2602  # of the draw of examples; never the training seed
HISTORY = 10  # titles of the history that an example shows

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

MISREAD = """## Misread

Some of the test's prompts, in unseen phrases or of the data set's own, that were not read as they were meant."""

LOGGED = """The test interactions that came with a prompt of the data set's own. Where its file does not say what
a prompt asks for, the filters, Satisfied@k and Violation@k go by what the model reads: they cannot tell whether it
read rightly, which NDCG@k does."""

SLICES = """\
On habit: the prompt's value has at least the median share of its user's history; off habit: less."""

FILES = "All figures: [metrics.json](metrics.json). All settings: [config.yaml](config.yaml)."

EXAMPLES = """\
Test users drawn by a fixed seed before any score was known; none was picked. ✓ marks the items that
satisfy the prompt by their true attributes, which a promptable model is not told."""

SIGNIFICANCE = """\
NDCG of `DPR` minus that of each system over the same users (unseen phrases): paired t-test, two-sided; Holm's
correction is over the systems of a task. It tells of the users of this run, not of the spread between seeds."""

DELTA_AUC = """\
How much the chance that an item with the value stands above one without changes from the backbone's ranking,
when {users} users ask for the value (increase) or against it (decrease); mean over all values. Each value's own
figure is in metrics.json."""

LEFT_OUT = "Test users for whom a task has no valid prompt (say, a target without attributes):"


@dataclass(frozen=True)
class Example:
    """One real user with one prompt, and the top k before and after it.

    A line of `before` and `after` is "title (values)", with a ✓ in front where the item's true
    attributes satisfy the prompt.
    """

    task: str
    user: str
    prompt: str
    history: list[str]
    target: str
    rank_before: float
    rank_after: float
    before: list[str]
    after: list[str]


@torch.no_grad()
def collect_examples(
    model: Any,
    tasks: Sequence[PromptedTask],
    config: Any,
    dataset: PromptDataset,
    prompts: PromptTable,
    *,
    per_task: int = 2,
    k: int = 10,
) -> list[Example]:
    """Draw `per_task` users of each prompted task and rank for them without and with the prompt.

    The users come from a fixed seed (`EXAMPLE_SEED`), before any score is known, so none is picked
    for looking good. A plain model has no prompted scores: its "after" is the `filter`. The
    parameters are those of `evaluate_tasks`; only tasks of unseen phrases count.
    """

    def lines(top: Tensor, scores: Tensor, allowed: list[bool]) -> list[str]:
        shown = top[scores[top] > -torch.inf].tolist()  # there may be fewer to recommend
        return [_line(dataset, item, allowed[item]) for item in shown]

    model.eval()
    rng = np.random.default_rng(EXAMPLE_SEED)
    examples = []
    for task in tasks:
        if task.phrases != "unseen" or not len(task.rows):
            continue
        drawn = torch.from_numpy(rng.permutation(len(task.rows))[:per_task])
        ids = task.prompt_ids[drawn]
        interaction = dataset.with_prompts(task.rows[drawn], ids)[np.arange(len(drawn))]
        batch = prompted_batch(model, interaction, config, dataset, prompts)
        promptable = hasattr(model, "backbone_scores")
        after = score_prompted(model, batch.interaction) if promptable else filter_(batch)
        items = interaction[dataset.iid_field].to(after.device)
        rank_before, rank_after = average_rank(batch.backbone, items), average_rank(after, items)
        shown = min(k, after.shape[1] - 1)  # not all catalogues have ten items
        top_before, top_after = top_items(batch.backbone, shown), top_items(after, shown)
        users = interaction[dataset.uid_field].tolist()
        histories = interaction[config["ITEM_ID_FIELD"] + config["LIST_SUFFIX"]].tolist()
        lengths = interaction[config["ITEM_LIST_LENGTH_FIELD"]].tolist()
        for i, prompt_id in enumerate(ids.tolist()):
            history = histories[i][: lengths[i]][-HISTORY:]
            allowed = batch.allowed[i].tolist()
            examples.append(
                Example(
                    task=task.name,
                    user=str(dataset.id2token(dataset.uid_field, users[i])),
                    prompt=prompts.texts[prompt_id],
                    history=[dataset.titles[item] for item in history],
                    target=dataset.titles[int(items[i])],
                    rank_before=float(rank_before[i]),
                    rank_after=float(rank_after[i]),
                    before=lines(top_before[i], batch.backbone[i], allowed),
                    after=lines(top_after[i], after[i], allowed),
                )
            )
    return examples


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
        page = _examples_page(names, examples, "DPR" in metrics["tasks"][examples[0].task])
        page += _misread(read["misread"])
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


def _line(dataset: PromptDataset, item: int, satisfies: bool) -> str:
    attributes = dataset.attributes
    values = [attributes.values[v] for v in attributes.matrix[item].nonzero().flatten().tolist()]
    return f"{'✓ ' * satisfies}{dataset.titles[item]}" + f" ({', '.join(values)})" * bool(values)


def _examples_page(names: Mapping[str, Any], examples: Sequence[Example], steered: bool) -> str:
    after = "with the prompt" if steered else "filtered"
    parts = [f"# Examples: {names['model']} on {names['dataset']}", EXAMPLES]
    for example in examples:
        parts.append(f'## User {_cell(example.user)}, {example.task}: "{_cell(example.prompt)}"')
        parts.append("History, newest last: " + "; ".join(map(_cell, example.history)) + ".")
        parts.append(
            f"Taken next in truth: {_cell(example.target)}, at rank {example.rank_before:g} without "
            f"and {example.rank_after:g} {after}."
        )
        table = [f"| | without the prompt | {after} |", "|---:|---|---|"]
        pairs = zip_longest(example.before, example.after, fillvalue="")
        for place, pair in enumerate(pairs, start=1):
            table.append(f"| {place} | {' | '.join(map(_cell, pair))} |")
        parts.append("\n".join(table))
    return "\n\n".join(parts) + "\n"


def _misread(misread: Sequence[Mapping[str, Any]]) -> str:
    if not misread:
        return ""
    rows = [
        f"| {row['task']} | {_cell(row['prompt'])} | {_asked(row['meant'])} | {_asked(row['read'])} |"
        for row in misread
    ]
    return "\n".join(
        ["", MISREAD, "", "| task | prompt | meant | read |", "|---|---|---|---|", *rows, ""]
    )


def _asked(intent: Mapping[str, Sequence[str]]) -> str:
    return _cell(in_words(intent) or "nothing")


def _cell(text: str) -> str:
    """Return text that cannot break a markdown table or heading."""
    return " ".join(text.split()).replace("|", "\\|")
