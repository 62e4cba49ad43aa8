"""Train the reader that the package ships, and say how well it reads.

    python benchmarks/train_reader.py --out recbole_dpr/model/reader.safetensors

Prompts are made from training phrases alone: those of `movies`, with the many more of
benchmarks/reader_phrases.yaml, over the genres of MovieLens, and those of `generic` over the values of benchmarks/reader_values.yaml, of which every prompt sees
the ones that it speaks of among others drawn at random. The unseen and hard phrases are only measured. About
half an hour on two CPU cores; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from recbole_dpr.data.intent import Intent
from recbole_dpr.data.phrasebook import Phrasebook
from recbole_dpr.data.phrasefile import NEEDED, frame
from recbole_dpr.data.prompts import PromptTable, made_prompts, one_hot
from recbole_dpr.files import properties_dir, read_yaml
from recbole_dpr.model.pretrained import SHIPPED_STATES, SHIPPED_UPPER, SIZE, save_reader
from recbole_dpr.model.reader import ABSENT, PromptReader, copy_bert_layer
from recbole_dpr.text import TextEncoder
from recbole_dpr.training.averaging import RunningAverage

OF_FILMS = re.compile(r"film|movie|watch|cinema|screen|popcorn|actor|scene|see ", re.IGNORECASE)
AVERAGING = 0.998  # single steps misread now one frame, now another; their average does less
HERE = Path(__file__).resolve().parent
GENRES = [
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
]
SHOWN = 18  # values that a generic prompt is read for: its own, and others


@dataclass
class Book:
    """Prompts of one phrasebook: their states, and the intents over its values."""

    prompts: PromptTable
    names: Tensor
    states: Tensor
    mask: Tensor


def rich_phrasebook(name: str, values: list[str]) -> Phrasebook:
    """A shipped phrasebook with the phrases of reader_phrases.yaml added to its training phrases.

    The generic one takes those that speak of no film, and that it does not hold itself.
    """
    path = properties_dir() / "phrasebook" / f"{name}.yaml"
    content = read_yaml(path)
    own = {frame(x) for kind in NEEDED for split in content[kind].values() for x in split}
    held_out = [
        re.compile(rf"\b{re.escape(word)}", re.IGNORECASE) for word in content.get("held_out", [])
    ]
    for kind, patterns in read_yaml(HERE / "reader_phrases.yaml").items():
        for pattern in patterns:
            other_domain = name != "movies" and OF_FILMS.search(pattern)
            if not (
                other_domain or frame(pattern) in own or any(w.search(pattern) for w in held_out)
            ):
                content[kind]["train"].append(pattern)
    return Phrasebook(content, values, str(path))


def make_book(
    name: str, values: list[str], size: int, phrases: str, seed: int, encoder: TextEncoder
) -> Book:
    book = rich_phrasebook(name, values)
    rng = np.random.default_rng(seed)
    prompts = made_prompts(book, len(values), size, rng, phrases)
    states, mask = encoder.token_states(prompts.texts[1:])
    return Book(prompts, encoder.vectors(book.readable), states.half(), mask)


def half_cosine(done: float) -> float:
    """From 1 down to 0 as `done` goes from 0 to 1."""
    return 0.5 * (1 + float(np.cos(np.pi * min(1.0, done))))


def shown_values(intents: list[Intent], n_values: int, rng: np.random.Generator) -> list[int]:
    """Values to read a batch for: those that it speaks of, and as many others as make SHOWN."""
    own = {v for intent in intents for v in (*intent.include, *intent.exclude)}
    others = [v for v in rng.permutation(n_values).tolist() if v not in own]
    return [*sorted(own), *others[: max(0, SHOWN - len(own))]]


@torch.no_grad()
def exact(reader: PromptReader, book: Book) -> dict[str, dict[str, float]]:
    """Share of a book's prompts, by kind, read exactly right, and with a sign turned round."""
    reader.eval()
    reader.names = book.names
    said = torch.cat(
        [
            reader(states.float(), mask).argmax(-1)
            for states, mask in zip(book.states.split(256), book.mask.split(256), strict=True)
        ]
    )
    gold = book.prompts.include[1:].long() + 2 * book.prompts.exclude[1:].long()
    right = (said == gold).all(1)
    turned = ((said != gold) & (said != ABSENT) & (gold != ABSENT)).any(1)
    by_kind = defaultdict(list)
    for i, intent in enumerate(book.prompts.intents[1:]):
        by_kind[intent.kind].append(i)
    return {
        kind: {
            "exact": round(float(right[rows].float().mean()), 3),
            "turned": round(float(turned[rows].float().mean()), 3),
        }
        for kind, rows in sorted(by_kind.items())
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", required=True, help="file to write")
    parser.add_argument(
        "--prompts", type=int, default=20000, help="movie prompts; half as many generic"
    )
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--learning_rate", type=float, default=1e-3, help="of the new layers")
    parser.add_argument("--upper_learning_rate", type=float, default=1e-4)
    parser.add_argument("--seed", type=int, default=2020)
    parser.add_argument("--cache", default=None, help="folder for encoded texts")
    args = parser.parse_args()
    encoder = TextEncoder(cache_dir=args.cache, max_length=48, states_layer=SHIPPED_STATES)
    values = read_yaml(HERE / "reader_values.yaml")["values"]
    values = [str(value) for value in values]
    n = args.prompts
    books = [
        make_book("movies", GENRES, n, "train", args.seed, encoder),
        make_book("generic", values, n // 2, "train", args.seed + 1, encoder),
    ]
    measured = {
        "movies, unseen": make_book("movies", GENRES, 1500, "unseen", 7, encoder),
        "movies, hard": make_book("movies", GENRES, 1500, "hard", 8, encoder),
        "generic, unseen": make_book("generic", values, 1000, "unseen", 9, encoder),
    }
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    reader = PromptReader(books[0].names, SIZE, SHIPPED_UPPER)
    own_layers = encoder._loaded[1].encoder.layer[SHIPPED_STATES:]
    for source, target in zip(own_layers, reader.upper, strict=True):
        copy_bert_layer(source, target)
    new = [p for name, p in reader.named_parameters() if not name.startswith("upper.")]
    groups = [
        {"params": new, "peak": args.learning_rate},
        {"params": list(reader.upper.parameters()), "peak": args.upper_learning_rate},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    total = args.epochs * sum(len(book.states) // args.batch_size for book in books)
    step, started = 0, time.time()
    average = RunningAverage(reader, AVERAGING)
    for epoch in range(args.epochs):
        reader.train()
        batches = []
        for which, book in enumerate(books):
            length = book.mask.sum(1).numpy()
            order = rng.permutation(len(length))
            for chunk in np.array_split(order, max(1, len(order) // (16 * args.batch_size))):
                chunk = chunk[np.argsort(length[chunk])]  # similar lengths: little padding
                parts = np.array_split(chunk, max(1, len(chunk) // args.batch_size))
                batches += [(which, part) for part in parts]
        losses = []
        for at in rng.permutation(len(batches)):
            which, rows = batches[at]
            book = books[which]
            intents = [book.prompts.intents[row + 1] for row in rows]
            shown = list(range(len(book.names)))
            if which:
                shown = shown_values(intents, len(book.names), rng)
            reader.names = book.names[shown]
            include = one_hot([i.include for i in intents], len(book.names))[:, shown]
            exclude = one_hot([i.exclude for i in intents], len(book.names))[:, shown]
            longest = int(book.mask[rows].sum(1).max())
            states, mask = book.states[rows, :longest].float(), book.mask[rows, :longest]
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * min(1.0, (step + 1) / 100) * half_cosine(step / total)
            step += 1
            loss = reader.loss(reader(states, mask), include, exclude)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
            optimizer.step()
            average.update(step)
            losses.append(loss.item())
        seconds = time.time() - started
        with average.applied():
            figures = {name: exact(reader, book) for name, book in measured.items()}
            save_reader(reader, args.out)
        print(f"epoch {epoch} {seconds:.0f}s loss {np.mean(losses):.4f} {figures}", flush=True)
    print(json.dumps({"seconds": round(time.time() - started), "read": figures}))


if __name__ == "__main__":
    main()
