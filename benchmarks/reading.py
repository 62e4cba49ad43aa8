"""How many made prompts the reader reads exactly right, over the values of a data set.

    python benchmarks/reading.py --dataset=ml-100k
    python benchmarks/reading.py --dataset=amazon-beauty --data_path=data

Two tables: as prompts are read, and with nobody telling the reader whose name a token is in (`Mentions`).
Prompts want or reject one or two values drawn at random, both, or neither, in the phrases of the data set's phrasebook.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from typing import Any

sys.path.append(sys.path.pop(0))  # so that requests.py does not hide the library of that name

import numpy as np
import torch

from recbole_dpr.arguments import exit_status
from recbole_dpr.config import DPRConfig
from recbole_dpr.data.loading import load_data
from recbole_dpr.data.phrasebook import Phrasebook
from recbole_dpr.data.prompts import PromptTable, made_prompts
from recbole_dpr.model.build import build_dpr, make_encoder
from recbole_dpr.model.dpr import DPR
from recbole_dpr.options import read_command_line
from recbole_dpr.text.mentions import Mentions

PROMPTS = 600  # of each kind of phrases
SEED = 2026


def exact(model: DPR, prompts: PromptTable) -> dict[str, float]:
    """Share of the prompts of each kind whose intent is read exactly; precision and recall of all values."""
    include, exclude = model.read(prompts.texts[1:])
    wanted, rejected = prompts.include[1:], prompts.exclude[1:]
    right = (include == wanted).all(dim=1) & (exclude == rejected).all(dim=1)
    by_kind: dict[str, list[bool]] = defaultdict(list)
    for intent, is_right in zip(prompts.intents[1:], right.tolist(), strict=True):
        by_kind[intent.kind].append(is_right)
    hits = (include & wanted).sum() + (exclude & rejected).sum()
    figures = {kind: float(np.mean(row)) for kind, row in sorted(by_kind.items())}
    figures["precision"] = float(hits / (include.sum() + exclude.sum()).clamp(min=1))
    figures["recall"] = float(hits / (wanted.sum() + rejected.sum()))
    return {name: round(value, 3) for name, value in figures.items()}


def main() -> None:
    """Print both tables, and as the last line the figures as JSON."""
    options: dict[str, Any] = read_command_line(sys.argv[1:])
    config = DPRConfig("DPR-SASRec", None, None, {"text_cache_dir": None, **options})
    data = load_data(config)
    book = Phrasebook.load(config["phrasebook"], data.whole.attributes.values)
    torch.manual_seed(SEED)
    model = build_dpr(
        config, data.train, book.called, None, make_encoder(config), book.read_as
    ).eval()
    found: dict[str, dict[str, dict[str, float]]] = {}
    for title, mentions in (("as it reads", model.mentions), ("without mentions", Mentions([]))):
        model.mentions = mentions
        found[title] = {}
        print(f"\n{config['dataset']}, {len(data.whole.attributes)} values, {title}")
        for phrases in book.splits():
            rng = np.random.default_rng(SEED)
            prompts = made_prompts(book, len(data.whole.attributes), PROMPTS, rng, phrases)
            found[title][phrases] = exact(model, prompts)
            print(f"{phrases:8}", found[title][phrases])
    print(json.dumps(found))


if __name__ == "__main__":
    sys.exit(exit_status(main))
