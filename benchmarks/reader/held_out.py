"""Sentences that a reader in training is only measured on."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reader.sentences import Sentences
from reader.trainee import Trainee
from recbole_dpr.data.intent import Intent
from recbole_dpr.data.phrasebook import Phrasebook
from recbole_dpr.data.prompts import made_prompts, multi_hot
from recbole_dpr.model.reader import ABSENT

AT_ONCE = 128


@dataclass
class Measured:
    """Sentences that are only measured, and the names of the values that they are read for."""

    names: list[str]
    said: list[tuple[str, Intent]]


def held_out(movies: Sentences, generic: Sentences, size: int) -> dict[str, Measured]:
    """What neither domain draws, by what it is; `size` made prompts of each kind of phrases."""

    def made(domain: Sentences, book: Phrasebook, phrases: str, seed: int) -> Measured:
        table = made_prompts(book, len(book.readable), size, np.random.default_rng(seed), phrases)
        said = list(zip(table.texts[1:], table.intents[1:], strict=True))
        return Measured(domain.book.readable, said)

    return {
        "unseen": made(movies, movies.book, "unseen", 7),
        "hard": made(movies, movies.book, "hard", 8),
        "idioms": made(movies, movies.idioms, "unseen", 10),
        "implied": Measured(movies.book.readable, movies.implied),
        "uttered": Measured(movies.book.readable, movies.uttered),
        "generic": made(generic, generic.book, "unseen", 9),
    }


@torch.no_grad()
def exact(trainee: Trainee, data: Measured) -> dict[str, dict[str, float]]:
    """Share of sentences, by kind, read exactly right, and with a sign turned round."""
    trainee.eval()
    trainee.reader.names = trainee.vectors(data.names)
    ordered = sorted(data.said, key=lambda sentence: len(sentence[0]))
    texts, intents = ([sentence[i] for sentence in ordered] for i in (0, 1))
    said = torch.cat(
        [
            trainee.reader(*trainee.states(texts[at : at + AT_ONCE])).argmax(-1).cpu()
            for at in range(0, len(texts), AT_ONCE)
        ]
    )
    include, exclude = marks(intents, list(range(len(data.names))), len(data.names))
    gold = include.long() + 2 * exclude.long()
    right = (said == gold).all(1)
    turned = ((said != gold) & (said != ABSENT) & (gold != ABSENT)).any(1)
    by_kind = defaultdict(list)
    for i, intent in enumerate(intents):
        by_kind[intent.kind].append(i)
    return {
        kind: {
            "exact": round(float(right[rows].float().mean()), 3),
            "turned": round(float(turned[rows].float().mean()), 3),
        }
        for kind, rows in sorted(by_kind.items())
    }


def marks(intents: list[Intent], shown: list[int], n_values: int) -> tuple[Tensor, Tensor]:
    """Include and exclude of the shown values, two bool ``[n, shown]``."""
    include = multi_hot([intent.include for intent in intents], n_values)
    exclude = multi_hot([intent.exclude for intent in intents], n_values)
    return include[:, shown], exclude[:, shown]
