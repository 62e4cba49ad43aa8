"""Tables of what training takes."""

from __future__ import annotations

from suites.figures import (
    NDCG,
    NONE,
    cell,
    command,
    grouped,
    is_steered,
    mean_of,
    number,
    ratio,
    table,
)
from suites.records import Record, Records

STAGES = ("stage1", "stage2", "stage3", "evaluate")


def baselines_table(dataset: str, records: Records) -> list[str]:
    """Plain models in our loop and in RecBole's own."""
    names = [name for name, of_name in records.items() if of_name[0].get("validation")]
    names = [
        name for name in names if not name.endswith("-recbole") and not is_steered(records[name])
    ]
    rows = [_baseline(name, records) for name in names]
    if not rows:
        return []
    head = [
        "",
        "ours, NDCG@10",
        "RecBole's loop",
        "ours, s to its best",
        "RecBole's, s to its best",
    ]
    head += ["ours, s to RecBole's best", "x sooner"]
    note = (
        "The backbones alone on the standard task, in our loop and in RecBole's own: its data set, loader, trainer and early "
        "stopping, with batches of 256 (its default of 2048 takes it longer) and without the anomaly detection that importing "
        "RecBole turns on, which makes it about half as fast. Seconds of training and validation until the best validation "
        "NDCG@10; *x sooner*: RecBole's seconds to its best over ours to the same figure, on the seeds that both ran and ours "
        "reached it with (how many of how many, where not all; *never*: with none). Models and seeds that are not the main suite's come from `--suite backbones --long`. Plain runs have been trained "
        "on their own, so that they differ from the backbones of DPR above by what rounding makes of a training."
    )
    return [
        "### Baselines, standard task",
        "",
        command("main", dataset),
        "",
        note,
        "",
        *table(head, rows),
    ]


def _baseline(name: str, records: Records) -> list[str]:
    ours, theirs = records[name], records.get(f"{name}-recbole", [])
    pairs = [(a, b) for a in ours for b in theirs if a["seed"] == b["seed"] and b["validation"]]
    times = [(_seconds_to(a, _best(b)[1]), _best(b)[0]) for a, b in pairs]
    reached = [{"ours": a, "theirs": b} for a, b in times if a is not None]
    best = [{"s": _best(record)[0]} for record in ours]
    their_best = [{"s": _best(record)[0]} for record in theirs if record["validation"]]
    some = f" ({len(reached)} of {len(pairs)})" if len(reached) < len(pairs) else ""
    sooner = number(ratio(reached, ["theirs"], ["ours"]), 1) if reached or not pairs else "never"
    return [
        name,
        *(cell(of_loop, "tasks", "standard", "backbone", NDCG) for of_loop in (ours, theirs)),
        number(mean_of(best, "s")),
        number(mean_of(their_best, "s")),
        number(mean_of(reached, "ours")),
        sooner + some,
    ]


def _best(record: Record) -> tuple[float, float]:
    """Seconds to the best validation NDCG@10, and that figure."""
    seconds, score = max(record["validation"], key=lambda point: point[1])
    return seconds, score


def _seconds_to(record: Record, goal: float) -> float | None:
    return next((seconds for seconds, score in record["validation"] if score >= goal), None)


def speed_table(dataset: str, records: Records) -> list[str]:
    """An epoch of both loops."""
    rows = [
        [
            name.removesuffix("-speed"),
            number(mean_of(of_name, "ours_s"), 1),
            number(mean_of(of_name, "recbole_s"), 1),
            number(mean_of(of_name, "recbole_plain_s"), 1),
            number(mean_of(of_name, "epoch_ratio"), 1),
            number(mean_of(of_name, "epoch_ratio_plain"), 1),
            number(mean_of(of_name, "dataset_ratio"), 1),
            of_name[0].get("machine", NONE),
        ]
        for name, of_name in records.items()
        if name.endswith("-speed")
    ]
    if not rows:
        return []
    head = ["seconds an epoch", "ours", "RecBole", "RecBole, no anomaly detection", "x", "x"]
    head += ["memory of the data, x", "machine"]
    return ["### Speed", "", command("speed", dataset), "", *table(head, rows)]


def effort_table(records: Records) -> list[str]:
    """Seconds, memory, machines and versions."""
    head = ["", "seeds", *STAGES, "total", "an epoch of stage 1", "memory, MB", "GPU memory, MB"]
    rows = [
        [
            name,
            str(len(of_name)),
            *(number(mean_of(of_name, "seconds", stage)) for stage in STAGES),
            number(mean_of(of_name, "seconds", "total")),
            number(mean_of(of_name, "epoch_seconds", "stage1"), 2),
            number(mean_of(of_name, "memory_mb")),
            number(mean_of(of_name, "gpu_memory_mb")),
        ]
        for name, of_name in records.items()
    ]
    lines = [
        "### Seconds and memory",
        "",
        "Means over the seeds, some measured beside other work of the machine; memory is the peak of the process. A dash "
        "for a commit: the record is older than that it names one, or its training is.",
        "",
    ]
    lines += table(head, rows)
    told = (("Machine", "machine"), ("Versions", "versions"), ("Commit at its start", "commit"))
    for title, key in told:
        said = {n: "; ".join(sorted({_words(r.get(key)) for r in records[n]})) for n in records}
        for words, names in grouped(said, said.__getitem__).items():
            whose = "" if len(names) == len(said) else f" ({', '.join(names)})"
            lines.append(f"- {title}{whose}: {words}")
    return [*lines, ""]


def _words(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {number}" for name, number in value.items())
    return str(value or NONE)
