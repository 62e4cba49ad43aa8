"""Ask a trained run what real people wrote, and say how well it follows.

    python benchmarks/requests.py RUN_DIR --requests requests-dev.tsv
    python benchmarks/requests.py RUN_DIR --requests requests-dev.tsv --out results/ml-1m/DPR-SASRec-requests/seed-2020.json

Every utterance is asked for the histories of the same 40 test users. Printed per kind of utterance, per value
and as the mean over the values, for the run and for its backbone, which hears nothing; the last line is
JSON: ``{KIND: {"satisfied@10", "violation@10", "overlap@10", "read_exactly", "utterances"}}``, and the
same of the backbone under "backbone". `--out` writes it to a file, with the run's model, data set and seed;
at a path like the above, `run.py --report` puts it into docs/results.md.

Satisfied@10 is the share of the top 10 that has a wanted value (where any is wanted) and no unwanted one,
Violation@10 the share that has an unwanted one, overlap@10 the share that the backbone alone recommends too.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor

sys.path.append(sys.path.pop(0))  # so that requests.py does not hide the library of that name

from asking import histories_of
from recbole_dpr import load
from recbole_dpr.arguments import exit_status
from recbole_dpr.data.intent import Intent
from recbole_dpr.data.prompts import multi_hot
from recbole_dpr.errors import DPRError
from recbole_dpr.files import read_run_options, write_json
from recbole_dpr.serving.recommender import Recommender
from suites.readers import readers_of

KINDS = ("positive", "negative", "compound", "implicit", "none")
FIGURES = ("satisfied@10", "violation@10", "overlap@10", "read_exactly")
HEADER = ("kind", "include", "exclude", "text")
K = 10

Figures = dict[str, float]


@dataclass(frozen=True)
class Request:
    """One utterance, and what a person who read it says it asks for."""

    kind: str
    intent: Intent
    text: str


def read_requests(path: str | Path, values: list[str]) -> list[Request]:
    """Read a tab-separated file with a header; several values of a cell stand between spaces, as in RecBole's token_seq.

    Raises
    ------
    DPRError
        If the file cannot be read, a column is missing or a row names a value that the run does
        not know: names the line.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DPRError(f"{path} cannot be read: {error}") from error
    places = {value: i for i, value in enumerate(values)}
    requests = []
    with io.StringIO(text) as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        missing = [name for name in HEADER if name not in (rows.fieldnames or ())]
        if missing:
            raise DPRError(f"{path} has no column {', '.join(missing)}")
        for number, row in enumerate(rows, start=2):
            sides = []
            for side in ("include", "exclude"):
                names = (row[side] or "").split()
                unknown = [name for name in names if name not in places]
                if unknown:
                    raise DPRError(f"{path}, line {number}: no value {unknown[0]!r} in this run")
                sides.append(tuple(places[name] for name in names))
            if row["kind"] not in KINDS:
                raise DPRError(f"{path}, line {number}: kind {row['kind']!r} is none of {KINDS}")
            requests.append(Request(row["kind"], Intent(*sides), row["text"]))
    return requests


def measure(
    recommender: Recommender, requests: list[Request], histories: list[list[str]]
) -> tuple[list[Figures], list[Figures]]:
    """Figures of every utterance, for the run and for its backbone."""
    attributes = recommender.catalogue.attributes
    places = {token: i for i, token in enumerate(recommender.catalogue.tokens)}

    def top(prompt: str | None) -> Tensor:
        lists = recommender.recommend(histories, [prompt] * len(histories), K)
        return torch.tensor([[places[token] for token, _ in items] for items in lists])

    unheard = top(None)
    heard, deaf = [], []
    for request in requests:
        include, exclude = (
            multi_hot([side], len(attributes))
            for side in (request.intent.include, request.intent.exclude)
        )
        allowed = attributes.allowed(include, exclude)[0]
        forbidden = attributes.forbidden(exclude)[0]
        read = recommender.read(request.text)
        said = Intent(
            *(tuple(map(attributes.values.index, read[side])) for side in ("include", "exclude"))
        )
        right = said == request.intent
        heard.append(_figures(top(request.text), unheard, allowed, forbidden, right))
        deaf.append(_figures(unheard, unheard, allowed, forbidden, request.intent == Intent()))
    return heard, deaf


def _figures(
    top: Tensor, unheard: Tensor, allowed: Tensor, forbidden: Tensor, read: bool
) -> Figures:
    same = (top[:, :, None] == unheard[:, None]).any(dim=2)
    shares = (x.float().mean().item() for x in (allowed[top], forbidden[top], same))
    return dict(zip(FIGURES, (*shares, float(read)), strict=True))


def means(figures: list[Figures]) -> Figures:
    """The mean of each figure, and how many utterances they are of."""
    rounded = {name: round(mean(f[name] for f in figures), 4) for name in FIGURES}
    return {**rounded, "utterances": len(figures)}


def grouped(
    requests: list[Request], figures: list[Figures], values: list[str]
) -> tuple[dict, dict]:
    """The means by kind, and by value that an utterance speaks of."""
    kinds, spoken_of = defaultdict(list), defaultdict(list)
    for request, figure in zip(requests, figures, strict=True):
        kinds[request.kind].append(figure)
        for value in (*request.intent.include, *request.intent.exclude):
            spoken_of[values[value]].append(figure)
    return (
        {kind: means(kinds[kind]) for kind in KINDS if kind in kinds},
        {value: means(rows) for value, rows in sorted(spoken_of.items())},
    )


def table(rows: dict[str, Figures], deaf: dict[str, Figures], head: str) -> str:
    """A table of text: each figure, and the backbone's in brackets."""
    names = [name for name in FIGURES if name != "read_exactly"]
    lines = [
        f"{head:<14}{'n':>5}" + "".join(f"{name:>20}" for name in names) + f"{'read exactly':>14}"
    ]
    for row, figures in rows.items():
        cells = [f"{figures[name]:.3f} ({deaf[row][name]:.3f})" for name in names]
        count = f"{figures['utterances']:>5}" if "utterances" in figures else " " * 5
        lines.append(
            f"{row:<14}{count}"
            + "".join(f"{cell:>20}" for cell in cells)
            + f"{figures['read_exactly']:>14.3f}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("run_dir", metavar="RUN_DIR")
    parser.add_argument("--requests", required=True, metavar="FILE")
    parser.add_argument("--users", type=int, default=40, help="histories that each is asked for")
    parser.add_argument("--seed", type=int, default=2026, help="which users")
    parser.add_argument(
        "--reader", nargs="+", help="in place of the run's own: shipped, large, or files"
    )
    parser.add_argument("--out", metavar="FILE", help="also write the last line there")
    args = parser.parse_args()
    recommender = load(args.run_dir, reader=args.reader)
    values = recommender.catalogue.attributes.values
    requests = read_requests(args.requests, values)
    histories = histories_of(args.run_dir, args.users, args.seed)
    heard, deaf = measure(recommender, requests, histories)
    kinds, by_value = grouped(requests, heard, values)
    deaf_kinds, deaf_by_value = grouped(requests, deaf, values)
    print(table(kinds, deaf_kinds, "kind"), end="\n\n")
    for rows in (by_value, deaf_by_value):
        each = list(rows.values())
        rows["mean of values"] = {name: mean(f[name] for f in each) for name in FIGURES}
    print(table(by_value, deaf_by_value, "value"), end="\n\n")
    print("In brackets: the backbone alone, which does not hear the prompt.")
    result = {**kinds, "backbone": deaf_kinds}
    print(json.dumps(result))
    if args.out:
        options = read_run_options(args.run_dir)
        about = {name: options[name] for name in ("model", "dataset", "seed")}
        if reader := args.reader or options.get("reader"):
            about["reader"] = reader
        about["readers"] = readers_of({**options, **about})
        write_json(args.out, {**about, "kind": "requests", **result})


if __name__ == "__main__":
    sys.exit(exit_status(main))
