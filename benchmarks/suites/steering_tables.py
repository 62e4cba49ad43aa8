"""Tables of what prompts do."""

from __future__ import annotations

import math
from collections.abc import Sequence

from recbole_dpr.evaluation.systems import sees
from suites.figures import (
    NDCG,
    NONE,
    SATISFIED,
    TASKS,
    VIOLATION,
    cell,
    clearly_best,
    mean_of,
    number,
    p_text,
    percent,
    ratio,
    table,
    tested,
    values_of,
)
from suites.records import Record, Records
from suites.top_ranks import over_seeds

PHRASES = {"tasks_seen_phrases": "seen", "tasks_hard_phrases": "hard"}
# What an ablation takes away, and what it is compared with where that is not the full model.
ABLATIONS = {
    "no_fusion": "no fusion: the experts see the state and the prompt alone",
    "one_expert": "one expert, no mixture",
    "one_wide_expert": "one expert of as many weights as four",
    "no_stage2": "no stage 2 (alignment)",
    "no_stage3": "no stage 3 (promptable fine-tuning)",
    "joint": "all stages at once",
    "no_semantic": "no semantic part of the item and user vectors",
    "trained_reader": "a reader learned in stage 2, in place of the shipped one",
    "pooled": "that reader from the mean of the token states",
}
REFERENCES = {"pooled": "trained_reader"}


def _sample(records: Sequence[Record]) -> str:
    sizes = {record.get("options", {}).get("prompted_test_size") for record in records} - {None}
    return f" Prompted tasks: a sample of {max(sizes):,} users." if sizes else ""


def model_tables(name: str, records: Sequence[Record]) -> list[str]:
    """What every system of one model reached."""
    standard = cell(records, "tasks", "standard", "DPR", NDCG)
    lines = [f"### {name}", ""]
    lines += [
        f"{_seeds(records)}. Standard task (no prompt; equal to the backbone): {standard}.{_sample(records)}",
        "",
    ]
    head = ["", "sees"]
    head += ["positive NDCG@10 (x filter)", "Satisfied", "negative NDCG@10 (x filter)", "Violation"]
    head += ["compound NDCG@10 (x filter)", "Satisfied", "Violation"]
    systems = _systems(records)
    best = {task: clearly_best(records, task) for task in TASKS}
    rows = [
        [f"`{system}`", sees(system), *_steering(records, "tasks", system, best)]
        for system in systems
    ]
    lines += table(head, rows, words=2)
    if older := [record["seed"] for record in records if _knows_wishes_alone(record)]:
        seeds = ", ".join(map(str, older))
        all_of_them = len(older) == len(records)
        which = "these older records" if all_of_them else f"the older record of seed {seeds}"
        lines += [
            f"In {which} `calibrated_filter` takes account of what is wanted alone.",
            "",
        ]
    return [*lines, *_against(records, systems), *_other_phrases(records, systems, head)]


def _knows_wishes_alone(record: Record) -> bool:
    """Whether a record was made before `calibrated_filter` knew how rejections are drawn."""
    plain, calibrated = (
        values_of([record], "tasks", "negative", name, NDCG)
        for name in ("filter", "calibrated_filter")
    )
    return bool(plain) and plain == calibrated


def _other_phrases(
    records: Sequence[Record], systems: Sequence[str], head: Sequence[str]
) -> list[str]:
    """The same in other phrases, of the systems that read them."""
    rows = [
        [f"`{system}`", phrases, *_steering(records, part, system)]
        for system in systems
        for part, phrases in PHRASES.items()
        if _differs(records, part, system)
    ]
    if not rows:
        return []
    note = "In other phrases, where that changes anything. *Seen*: phrases for training; of those in `movies` and `generic` the shipped reader learned. *Hard*: mostly the words of wanting and not wanting, too, are held out of training."
    return [note, "", *table(["", "phrases", *head[2:]], rows, words=2)]


def _differs(records: Sequence[Record], part: str, system: str) -> bool:
    """Whether a system's figures are others with the phrases of `part`."""
    measured = values_of(records, part, "positive", system, NDCG)
    return bool(measured) and _steering(records, part, system) != _steering(
        records, "tasks", system
    )


def _systems(records: Sequence[Record]) -> list[str]:
    found = [record["tasks"]["positive"] for record in records if "tasks" in record]
    return list(dict.fromkeys(system for systems in found for system in systems))


def _steering(
    records: Sequence[Record], part: str, system: str, best: dict[str, set[str]] | None = None
) -> list[str]:
    """The seven cells of a system: NDCG and what of Satisfied and Violation a task can tell."""
    cells = []
    for task, shares in zip(
        TASKS, ((SATISFIED,), (VIOLATION,), (SATISFIED, VIOLATION)), strict=True
    ):
        text = cell(records, part, task, system, NDCG)
        if best and system in best[task]:
            text = f"**{text}**"
        times = ratio(records, (part, task, system, NDCG), (part, task, "filter", NDCG))
        cells.append(text if times is None else f"{text} ({times:.2f})")
        cells += [percent(records, part, task, system, share) for share in shares]
    return cells


def _against(records: Sequence[Record], systems: Sequence[str]) -> list[str]:
    """DPR's NDCG over that of every other system, and whether it is chance."""
    if "DPR" not in systems:
        return []
    tests = {task: tested(over_seeds(records, task), "DPR") for task in TASKS}
    rows = []
    for system in systems:
        if system == "DPR":
            continue
        cells = []
        for task in TASKS:
            times = ratio(records, ("tasks", task, "DPR", NDCG), ("tasks", task, system, NDCG))
            p = tests[task].get(system, {}).get("p_holm")
            cells.append(", ".join(filter(None, [_times(times), p_text(p)])))
        for label in ("on_habit", "off_habit"):
            at = ("slices", "positive", label)
            cells.append(_times(ratio(records, (*at, "DPR", NDCG), (*at, system, NDCG))))
        rows.append([f"`{system}`", *cells])
    head = ["NDCG@10 of `DPR` over", *TASKS, "positive, on habit", "positive, off habit"]
    note = "On habit: the wanted value has at least the median share of the user's history."
    return [*table(head, rows), note, ""]


def _times(value: float | None) -> str:
    if value is None:
        return NONE
    return f"{value:.2f} x" if math.isfinite(value) else "∞"


def delta_auc_table(models: Records) -> list[str]:
    """Mean change of the AUC of a value's items, by system and model."""
    measured = {
        name: of_name
        for name, of_name in models.items()
        if values_of(of_name, "delta_auc", "users")
    }
    if not measured:
        return []
    systems = dict.fromkeys(
        system
        for records in measured.values()
        for record in records
        for system in record.get("delta_auc", {}).get("increase", {})
    )
    rows = [
        [f"`{system}`"]
        + [
            cell(records, "delta_auc", way, system, "mean", digits=3)
            for records in measured.values()
            for way in ("increase", "decrease")
        ]
        for system in systems
        if system != "backbone"
    ]
    head = [""] + [f"{name}, {way}" for name in measured for way in ("increase", "decrease")]
    users = number(mean_of(next(iter(measured.values())), "delta_auc", "users"))
    note = (
        f"Every value is asked for (increase) and against (decrease) for the same {users} users. How much the chance changes that an item with "
        "the value stands above one without, from the backbone's ranking; mean over users and values (after SteerEval, arXiv 2601.21105)."
    )
    return ["### Delta AUC", "", note, "", *table(head, rows)]


def ablation_table(full: str, records: Records, names: Sequence[str]) -> list[str]:
    """What DPR reaches without each of its parts."""
    head = ["", "seeds", "positive NDCG@10", "to full", "Satisfied", "negative NDCG@10", "to full"]
    head += ["Violation", "compound NDCG@10", "to full"]
    suffixes = {name: name.removeprefix(full).lstrip("-") for name in (full, *names)}
    references = {
        name: f"{full}-{REFERENCES[suffix]}" if suffix in REFERENCES else full
        for name, suffix in suffixes.items()
    }
    rows = []
    for name, suffix in suffixes.items():
        label = f"{ABLATIONS.get(suffix, suffix)} (`{suffix}`)" if suffix else "full"
        if suffix in REFERENCES:
            label += f", against `{REFERENCES[suffix]}`"
        # Holm's family: all that are compared with the same reference.
        family = [n for n in names if references[n] == references[name]]
        cells = {task: cell(records[name], "tasks", task, "DPR", NDCG) for task in TASKS}
        change = {task: _change(name, references[name], family, records, task) for task in TASKS}
        rows.append(
            [
                label,
                str(len(records[name])),
                cells["positive"],
                change["positive"],
                percent(records[name], "tasks", "positive", "DPR", SATISFIED),
                cells["negative"],
                change["negative"],
                percent(records[name], "tasks", "negative", "DPR", VIOLATION),
                cells["compound"],
                change["compound"],
            ]
        )
    note = "p: corrected over the rows with the same reference, the full model unless a row says otherwise."
    return [note, "", *table(head, rows)]


def _change(name: str, reference: str, family: Sequence[str], records: Records, task: str) -> str:
    """The NDCG of a variant against its reference on the same seeds, in percent, and p."""
    if name == reference or reference not in records:
        return NONE
    seeds = {r["seed"] for r in records[name]} & {r["seed"] for r in records[reference]}
    common = {n: [r for r in records[n] if r["seed"] in seeds] for n in (reference, *family)}
    means = [mean_of(common[n], "tasks", task, "DPR", NDCG) for n in (name, reference)]
    if None in means:
        return NONE
    ranks = {n: over_seeds(of_name, task).get("DPR") for n, of_name in common.items()}
    p = tested(
        {n: r for n, r in ranks.items() if r is not None and len(r) == len(seeds)}, reference
    )
    text = f"{100 * (means[0] / means[1] - 1):+.1f} %"  # type: ignore[operator]
    return ", ".join(filter(None, [text, p_text(p.get(name, {}).get("p_holm"))]))


def requests_tables(records: Records) -> list[str]:
    """What real people wrote: records of benchmarks/requests.py."""
    asked = {name: r for name, r in records.items() if name.endswith("-requests")}
    lines: list[str] = []
    for name, of_name in asked.items():
        kinds = [kind for kind, part in of_name[0].items() if "utterances" in _dict(part)]
        rows = []
        for kind in kinds:
            shares = [
                f"{percent(of_name, kind, figure)} ({percent(of_name, 'backbone', kind, figure)})"
                for figure in (SATISFIED, VIOLATION)
            ]
            rest = [percent(of_name, kind, figure) for figure in ("overlap@10", "read_exactly")]
            rows.append([kind, number(mean_of(of_name, kind, "utterances")), *shares, *rest])
        head = [
            name.removesuffix("-requests"),
            "utterances",
            "Satisfied",
            "Violation",
            "as unasked",
        ]
        lines += [f"{_seeds(of_name)}.", "", *table([*head, "read exactly"], rows)]
    if not lines:
        return []
    note = (
        "What people wrote to other people, asked for the histories of test users; in brackets the backbone, which does not hear it. *As unasked*: share of the top ten that is recommended without the prompt, too. "
        "`python benchmarks/requests.py RUN_DIR --requests FILE --out results/...`"
    )
    return ["### Real utterances", "", note, "", *lines]


def _dict(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _seeds(records: Sequence[Record]) -> str:
    seeds = [str(record["seed"]) for record in records]
    return f"Seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}"
