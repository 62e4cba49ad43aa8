"""Run every backbone on ml-100k, record the figures, and write docs/backbones.md from the records.

    python benchmarks/backbones.py                             # all 31, cheapest first: about a day
    python benchmarks/backbones.py --backbones NARM STAMP
    python benchmarks/backbones.py --kinds plain recbole --backbones SASRec --lengths 10 50 200 --seeds 2020 2021 2022
    python benchmarks/backbones.py --report                    # only rebuild the page

Kinds of run, each one file results/backbones/<backbone>/<kind>-L<length>-seed<n>.json; what is recorded is
not run again, so that the script can be stopped and started at any time:

    speed    seconds of an epoch, ours and RecBole's in turn (`speed.py`), in processor time
    dpr      DPR over the backbone, short training, all tasks (`seeds.py`)
    plain    the backbone alone in our loop, as long as the defaults say
    recbole  the backbone alone in RecBole's own loop, until it stops early

Training of `dpr` is short: `SHORT` for all, and what `SMALLER` says for the models that read one item at a
time. GRU4RecKG and KSR get vectors of the knowledge graph that RecBole ships with ml-100k, trained here
(`knowledge_vectors`).
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.append(sys.path.pop(0))  # so that requests.py does not hide the library of that name

import numpy as np
import seeds
import speed
import torch
from recbole.utils import init_seed

from recbole_dpr.config import DPRConfig
from recbole_dpr.files import recbole_dir
from recbole_dpr.model.ways import WAYS, Vector
from recbole_dpr.training.averaging import copy_of_weights, put_weights

DATASET = "ml-100k"
RESULTS = seeds.RESULTS / "backbones"
PAGE = seeds.ROOT / "docs" / "backbones.md"
KINDS = ("speed", "dpr", "plain", "recbole")
LENGTH, SEED = 50, 2020
# Cheapest first.
BACKBONES = [
    "FPMC",
    "STAMP",
    "FOSSIL",
    "NPE",
    "HRM",
    "HGN",
    "SHAN",
    "TransRec",
    "GRU4Rec",
    "S3Rec",
    "GRU4RecF",
    "SASRec",
    "SASRecF",
    "GRU4RecKG",
    "FDSA",
    "SINE",
    "SRGNN",
    "NARM",
    "GRU4RecCPR",
    "RepeatNet",
    "BERT4Rec",
    "CORE",
    "LightSANs",
    "SASRecCPR",
    "NextItNet",
    "FEARec",
    "GCSAN",
    "KSR",
    "Caser",
    "DIN",
    "DIEN",
]
# Not causal: a fifth of the prefixes per epoch, in smaller batches than RecBole's 2048.
SHORT = {"stage1_prefixes": 20000, "train_batch_size": 256, "eval_batch_size": 256}
# Scoring the catalogue takes these models 1,682 passes.
SINGLE = {"MAX_ITEM_LIST_LENGTH": 10, "stage1_epochs": 5, "stage3_prefixes": 1000}
SMALLER: dict[str, dict[str, Any]] = {"DIN": SINGLE, "DIEN": SINGLE}
PATIENCE = 10  # RecBole's default of stopping_step

Record = dict[str, Any]


def options_for(backbone: str, folder: Path, length: int, seed: int) -> dict[str, Any]:
    """What every run of a backbone has in common."""
    options: dict[str, Any] = {"seed": seed, "show_progress": False, "state": "warning"}
    options |= {"checkpoint_dir": str(folder / "saved"), "MAX_ITEM_LIST_LENGTH": length}
    options["window_stride"] = max(1, length // 2)
    if backbone in ("GRU4RecKG", "KSR"):
        options["data_path"] = str(folder / "data")
        knowledge_vectors(folder / "data" / DATASET)
    return options


def knowledge_vectors(folder: Path, size: int = 64, epochs: int = 20) -> None:
    """Train vectors of ml-100k's knowledge graph by TransE (Bordes et al. 2013): head + relation = tail."""
    if (folder / f"{DATASET}.ent").is_file():
        return
    shutil.copytree(recbole_dir() / "dataset_example" / DATASET, folder, dirs_exist_ok=True)
    rows = (folder / f"{DATASET}.kg").read_text().splitlines()[1:]
    triples = np.array([row.split("\t") for row in rows])
    entities, ends = np.unique(triples[:, [0, 2]], return_inverse=True)
    relations, kinds = np.unique(triples[:, 1], return_inverse=True)
    heads, tails = (torch.from_numpy(x) for x in ends.reshape(-1, 2).T.copy())
    generator = torch.Generator().manual_seed(SEED)
    ent = torch.randn(len(entities), size, generator=generator).div(size**0.5).requires_grad_()
    rel = torch.randn(len(relations), size, generator=generator).div(size**0.5).requires_grad_()
    optimizer = torch.optim.Adam([ent, rel], lr=0.01)
    for _ in range(epochs):
        for part in torch.randperm(len(triples), generator=generator).split(4096):
            other = torch.randint(len(entities), (len(part),), generator=generator)
            moved = ent[heads[part]] + rel[torch.from_numpy(kinds)[part]]
            near, far = (moved - ent[x] for x in (tails[part], other))
            loss = (1 + near.norm(dim=1) - far.norm(dim=1)).relu().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    for suffix, column, names, vectors in (
        ("ent", "ent", entities, ent),
        ("rel", "rel", relations, rel),
    ):
        lines = [f"{column}_id:token\t{column}_emb:float_seq"]
        for name, vector in zip(names, vectors.tolist(), strict=True):
            lines.append(name + "\t" + " ".join(f"{x:.5f}" for x in vector))
        (folder / f"{DATASET}.{suffix}").write_text("\n".join(lines) + "\n")


def measure_speed(backbone: str, options: dict[str, Any]) -> Record:
    """Seconds of an epoch in both loops, and how the backbone is steered and trained."""
    speed.clock = time.process_time
    init_seed(options["seed"], True)
    ours = speed.OurSide(DPRConfig(backbone, DATASET, config_dict=options))
    theirs = speed.RecBoleSide(DPRConfig(backbone, DATASET, config_dict=options))
    record: Record = dict(speed.in_turn(ours, theirs, rounds=1, share=0.05))
    return record | {"causal": ours.backbone.causal, "why": ours.backbone.why}


def run_recbole(backbone: str, options: dict[str, Any], epochs: int) -> Record:
    """RecBole's own loop until early stopping; figures of the best epoch."""
    init_seed(options["seed"], True)
    side = speed.RecBoleSide(DPRConfig(backbone, DATASET, config_dict=options))
    torch.autograd.set_detect_anomaly(False)  # a check that changes no figure
    best, weights, since, history = -1.0, copy_of_weights(side.model), 0, []
    while since <= PATIENCE and len(history) < epochs:
        side.epoch()
        history.append(float(side.trainer.evaluate(side.valid, load_best_model=False)["ndcg@10"]))
        since = 0 if history[-1] > best else since + 1
        if not since:
            best, weights = history[-1], copy_of_weights(side.model)
    put_weights(side.model, weights)
    test = side.trainer.evaluate(side.test, load_best_model=False)
    return {"ndcg@10": float(test["ndcg@10"]), "valid": history, "limit": epochs}


def run(kind: str, backbone: str, length: int, seed: int, epochs: int) -> Record:
    """One run of one kind."""
    with tempfile.TemporaryDirectory() as folder:
        options = options_for(backbone, Path(folder), length, seed)
        if kind == "speed":
            return measure_speed(backbone, options)
        if kind == "recbole":
            return run_recbole(backbone, options, epochs)
        prefix = "DPR-" if kind == "dpr" else ""
        if kind == "dpr":
            options |= {**SHORT, **SMALLER.get(backbone, {})}
        record = seeds.run(f"{prefix}{backbone}", DATASET, seed, options)
        record["ndcg@10"] = record["tasks"]["standard"]["backbone"]["ndcg@10"]
        return record


def path_of(kind: str, backbone: str, length: int, seed: int) -> Path:
    return RESULTS / backbone / f"{kind}-L{length}-seed{seed}.json"


def recorded(kind: str, backbone: str, length: int = LENGTH) -> list[Record]:
    """The records of a kind, seeds ascending."""
    files = sorted((RESULTS / backbone).glob(f"{kind}-L{length}-seed*.json"))
    return [json.loads(file.read_text()) for file in files]


def mean(records: list[Record], *keys: str) -> str:
    """Mean of a figure over the seeds, or a dash where there is none."""
    values = []
    for record in records:
        for key in keys:
            record = record[key]
        values.append(record)
    return f"{statistics.mean(values):.3f}" if values else "-"


def row(backbone: str) -> list[str]:
    """One line of the table."""
    times, dpr, plain, recbole = (recorded(kind, backbone) for kind in KINDS)
    way = "user vector" if isinstance(WAYS[backbone], Vector) else "scores"
    causal = "-" if not times else "yes" if times[0]["causal"] else "no"
    seconds = [f"{times[0][name]:.1f}" if times else "-" for name in ("ours_s", "recbole_plain_s")]
    cells = [backbone, way, causal, *seconds, mean(recbole, "ndcg@10"), mean(plain, "ndcg@10")]
    cells.append(mean(dpr, "ndcg@10"))
    for task in ("positive", "negative"):
        cells += [mean(dpr, "tasks", task, s, "ndcg@10") for s in ("DPR", "filter", "post_filter")]
    cells.append(mean(dpr, "tasks", "positive", "DPR", "satisfied@10"))
    cells.append(mean(dpr, "tasks", "negative", "DPR", "violation@10"))
    return cells


def page() -> str:
    """docs/backbones.md, from what is recorded."""
    done = [name for name in sorted(WAYS) if (RESULTS / name).is_dir()]
    beaten = [
        name
        for name in done
        for record in recorded("dpr", name)[:1]
        if record["tasks"]["positive"]["DPR"]["ndcg@10"]
        > record["tasks"]["positive"]["post_filter"]["ndcg@10"]
    ]
    measured = [name for name in done if recorded("dpr", name)]
    lines = [
        "# Backbones",
        "",
        "Written by `python benchmarks/backbones.py` from the records in `results/backbones/`. ml-100k, unseen phrases; a dash is"
        f" not measured yet. Steered so far: {len(measured)} of {len(WAYS)}; on positive prompts {len(beaten)} of them beat the"
        " `post_filter` of the backbone's top 100, which knows the true attributes.",
        "",
        "- **Steered by**: `user vector`: it is moved; `scores`: the semantic dot product is added to them. The table of all 31 and its"
        " reasons: `recbole_dpr/model/ways.py`.",
        "- **Causal**: found by a probe. Causal backbones train on windows, the others on one sample per prefix.",
        "- **Seconds an epoch**: processor time on one thread, RecBole's loop reckoned from 5 % of an epoch, without the anomaly"
        " detection that importing RecBole turns on; of ours on prefixes, too.",
        "- **Standard NDCG@10**: in RecBole's own loop, in ours with the same patience (`plain`), and of the backbone under DPR, whose"
        f" training here is short: {SHORT}; DIN and DIEN {SINGLE}.",
        "- **Positive, negative NDCG@10**: DPR / `filter` / `post_filter`.",
        "- GRU4RecKG and KSR: vectors trained on the graph that RecBole ships; films without an entity are left out.",
        "",
        "| | steered by | causal | s ours | s RecBole | RecBole | ours | under DPR | positive | negative | Satisfied@10 | Violation@10 |",
        "|---|---|---|---:|---:|---:|---:|---:|---|---|---:|---:|",
    ]
    for name in done:
        cells = row(name)
        cells[8:14] = [" / ".join(cells[8:11]), " / ".join(cells[11:14])]
        lines.append("| " + " | ".join(cells) + " |")
    behind = [name for name in measured if name not in beaten]
    if behind:
        lines += ["", "Not ahead of `post_filter` on positive prompts: " + ", ".join(behind) + "."]
    if reasons := [record["why"] for name in done for record in recorded("speed", name)[:1]]:
        lines += ["", "## Why", "", *(f"- {reason}." for reason in reasons)]
    return "\n".join([*lines, *lengths_table(done), ""])


def lengths_table(done: list[str]) -> list[str]:
    """Standard NDCG@10 by the longest history, where both loops were run."""
    lines = []
    for name in done:
        found = {int(f.name.split("-")[1][1:]) for f in (RESULTS / name).glob("recbole-*")}
        for length in sorted(found):
            plain, recbole = recorded("plain", name, length), recorded("recbole", name, length)
            if plain:
                figures = f"{mean(recbole, 'ndcg@10')} ({len(recbole)}) | {mean(plain, 'ndcg@10')} ({len(plain)})"
                lines.append(f"| {name} | {length} | {figures} |")
    if not lines:
        return []
    head = ["", "## Longest history", "", "Standard NDCG@10, test; seeds in brackets.", ""]
    return [*head, "| | longest history | RecBole's loop | ours |", "|---|---:|---:|---:|", *lines]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--backbones", nargs="+", default=BACKBONES)
    parser.add_argument("--kinds", nargs="+", default=["speed", "dpr"], choices=KINDS)
    parser.add_argument("--lengths", nargs="+", type=int, default=[LENGTH])
    parser.add_argument("--seeds", nargs="+", type=int, default=[SEED])
    parser.add_argument("--epochs", type=int, default=100, help="of RecBole's loop at most")
    parser.add_argument("--report", action="store_true", help="only rebuild the page")
    args = parser.parse_args()
    runs = [
        (kind, backbone, length, seed)
        for backbone in args.backbones
        for length in args.lengths
        for seed in args.seeds
        for kind in args.kinds
    ]
    for kind, backbone, length, seed in [] if args.report else runs:
        path = path_of(kind, backbone, length, seed)
        if path.is_file():
            continue
        started = time.perf_counter()
        try:
            record = run(kind, backbone, length, seed, args.epochs)
        except Exception as error:  # the others go on; nothing is recorded, so that it runs again
            print(
                f"{backbone} {kind}: {type(error).__name__}: {error}", file=sys.stderr, flush=True
            )
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record, indent=1) + "\n")
        PAGE.write_text(page())
        seconds = time.perf_counter() - started
        print(f"{backbone} {kind}: {seconds:.0f} s", file=sys.stderr, flush=True)
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
