"""Train the reader that the package ships, and say how well it reads.

    python benchmarks/train_reader.py --out recbole_dpr/model/reader.safetensors   # the shipped one

Every step reads sentences made afresh (benchmarks/reader/): two thirds about films and the genres of MovieLens,
one third about values of many domains, of which a prompt sees the ones that it speaks of among others drawn at random.
The unseen and hard phrases of the phrasebooks, and the idioms and implied wishes kept out, are only measured. Twenty
minutes on two CPU cores; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.append(sys.path.pop(0))  # so that requests.py does not hide the library of that name

from reader.sentences import Sentences, film_titles
from recbole_dpr.data.intent import Intent
from recbole_dpr.data.phrasebook import Phrasebook
from recbole_dpr.data.prompts import made_prompts, one_hot
from recbole_dpr.files import read_yaml
from recbole_dpr.model.pretrained import SHIPPED_STATES, SHIPPED_UPPER, SIZE, save_reader
from recbole_dpr.model.reader import ABSENT, PromptReader
from recbole_dpr.text.bert import BertEncoder
from recbole_dpr.training.averaging import RunningAverage

AVERAGING = 0.998  # single steps misread now one frame, now another; their average does less
WARMUP = 100
SORTED = 16  # batches whose sentences are sorted by length together: little padding
SHOWN = 18  # values that a generic prompt is read for: its own, and others
GENERIC = 1 / 3
HERE = Path(__file__).resolve().parent


@dataclass
class Measured:
    """Sentences that are only measured, encoded."""

    names: Tensor
    states: Tensor
    mask: Tensor
    intents: list[Intent]


def measured(said: list[tuple[str, Intent]], names: Tensor, encoder: BertEncoder) -> Measured:
    texts, intents = zip(*said, strict=True)
    states, mask = encoder.token_states(list(texts))
    return Measured(names, states.half(), mask, list(intents))


def from_phrasebook(book: Phrasebook, size: int, phrases: str, seed: int) -> list:
    table = made_prompts(book, len(book.readable), size, np.random.default_rng(seed), phrases)
    return list(zip(table.texts[1:], table.intents[1:], strict=True))


def shown_values(intents: list[Intent], n_values: int, rng: np.random.Generator) -> list[int]:
    """Values to read a batch for: those that it speaks of, and as many others as make SHOWN."""
    own = {v for intent in intents for v in (*intent.include, *intent.exclude)}
    others = [v for v in rng.permutation(n_values).tolist() if v not in own]
    return [*sorted(own), *others[: max(0, SHOWN - len(own))]]


@torch.no_grad()
def exact(reader: PromptReader, data: Measured) -> dict[str, dict[str, float]]:
    """Share of sentences, by kind, read exactly right, and with a sign turned round."""
    reader.eval()
    reader.names = data.names
    said = torch.cat(
        [
            reader(states.float(), mask).argmax(-1)
            for states, mask in zip(data.states.split(256), data.mask.split(256), strict=True)
        ]
    )
    include, exclude = marks(data.intents, list(range(len(data.names))), len(data.names))
    gold = include.long() + 2 * exclude.long()
    right = (said == gold).all(1)
    turned = ((said != gold) & (said != ABSENT) & (gold != ABSENT)).any(1)
    by_kind = defaultdict(list)
    for i, intent in enumerate(data.intents):
        by_kind[intent.kind].append(i)
    return {
        kind: {
            "exact": round(float(right[rows].float().mean()), 3),
            "turned": round(float(turned[rows].float().mean()), 3),
        }
        for kind, rows in sorted(by_kind.items())
    }


@torch.no_grad()
def interpolated(reader: PromptReader, own_layers: list, share: float) -> PromptReader:
    """A copy whose layers are this share of the way back to the encoder's own.

    These know words that no made sentence holds; trained layers forget them (Wortsman et al., 2022, arXiv 2109.01903).
    """
    copied = copy.deepcopy(reader)
    for own, layer in zip(own_layers, copied.upper, strict=True):
        for weight, kept in zip(layer.parameters(), own.parameters(), strict=True):
            weight.lerp_(kept, share)
    return copied


def marks(intents: list[Intent], shown: list[int], n_values: int) -> tuple[Tensor, Tensor]:
    """Include and exclude of the shown values, two bool ``[n, shown]``."""
    include = one_hot([intent.include for intent in intents], n_values)
    exclude = one_hot([intent.exclude for intent in intents], n_values)
    return include[:, shown], exclude[:, shown]


def batches(domain: Sentences, batch_size: int, rng: np.random.Generator):
    """Batches of sentences of like length, without end."""
    while True:
        said = [domain.draw(rng) for _ in range(SORTED * batch_size)]
        said.sort(key=lambda sentence: len(sentence[0]))
        for at in rng.permutation(SORTED):
            yield said[at * batch_size : (at + 1) * batch_size]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", required=True, help="file to write")
    parser.add_argument("--steps", type=int, default=1800)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--learning_rate", type=float, default=1e-3, help="of the new layers")
    parser.add_argument("--upper_learning_rate", type=float, default=1e-4)
    parser.add_argument(
        "--own",
        type=float,
        default=0.25,
        help="share of the encoder's own layers in those that are written (arXiv 2109.01903)",
    )
    parser.add_argument(
        "--precision",
        default="bfloat16",
        choices=["bfloat16", "float32"],
        help="of the products; bfloat16 is twice as fast where the processor multiplies it",
    )
    parser.add_argument("--seed", type=int, default=2020)
    parser.add_argument("--log_every", type=int, default=500, help="steps between measurements")
    args = parser.parse_args()
    encoder = BertEncoder(max_length=64, states_layer=SHIPPED_STATES)
    genres = list(read_yaml(HERE / "reader" / "implied.yaml"))
    values = [str(value) for value in read_yaml(HERE / "reader" / "values.yaml")["values"]]
    domains = [Sentences("movies", genres, film_titles()), Sentences("generic", values)]
    names = [encoder.vectors(domain.book.readable) for domain in domains]
    movies, generic = domains
    held_out = {
        "unseen": measured(from_phrasebook(movies.book, 800, "unseen", 7), names[0], encoder),
        "hard": measured(from_phrasebook(movies.book, 800, "hard", 8), names[0], encoder),
        "idioms": measured(from_phrasebook(movies.idioms, 1200, "unseen", 10), names[0], encoder),
        "implied": measured(movies.implied, names[0], encoder),
        "generic": measured(from_phrasebook(generic.book, 500, "unseen", 9), names[1], encoder),
    }
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    reader = PromptReader(names[0], SIZE, SHIPPED_UPPER)
    own_layers = encoder.layers[SHIPPED_STATES:]
    for source, target in zip(own_layers, reader.upper, strict=True):
        target.load_state_dict(source.state_dict())
    new = [p for name, p in reader.named_parameters() if not name.startswith("upper.")]
    groups = [
        {"params": new, "peak": args.learning_rate},
        {"params": list(reader.upper.parameters()), "peak": args.upper_learning_rate},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    average = RunningAverage(reader, AVERAGING)
    sources = [batches(domain, args.batch_size, rng) for domain in domains]
    losses: list[float] = []
    started = time.time()
    for step in range(1, args.steps + 1):
        which = int(rng.random() < GENERIC)
        texts, intents = zip(*next(sources[which]), strict=True)
        n_values = len(names[which])
        shown = shown_values(list(intents), n_values, rng) if which else list(range(n_values))
        states, mask = encoder.token_states(list(texts))
        reader.train()
        reader.names = names[which][shown]
        for group in optimizer.param_groups:
            rising = min(1.0, step / WARMUP)
            group["lr"] = group["peak"] * rising * 0.5 * (1 + np.cos(np.pi * step / args.steps))
        with torch.autocast("cpu", torch.bfloat16, enabled=args.precision == "bfloat16"):
            logits = reader(states, mask)
        loss = reader.loss(logits.float(), *marks(list(intents), shown, n_values))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        optimizer.step()
        average.update(step)
        losses.append(loss.item())
        if step % args.log_every == 0 or step == args.steps:
            with average.applied():
                written = interpolated(reader, own_layers, args.own)
            figures = {name: exact(written, data) for name, data in held_out.items()}
            save_reader(written, args.out)
            seconds, mean = time.time() - started, float(np.mean(losses[-args.log_every :]))
            print(f"step {step} {seconds:.0f}s loss {mean:.4f} {figures}", flush=True)
    print(json.dumps({"seconds": round(time.time() - started), "read": figures}))


if __name__ == "__main__":
    main()
