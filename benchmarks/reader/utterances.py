"""Whole utterances, each with what it asks for; drawn as they are, or about other values."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recbole_dpr.data.intent import Intent
from recbole_dpr.data.phrasebook import Phrasebook
from recbole_dpr.data.phrasefile import Name
from recbole_dpr.text.mentions import Mentions

FOLDER = Path(__file__).resolve().parent / "utterances"
EXCHANGED = 0.4  # share of the utterances whose values give way to others
ARTICLE = re.compile(r"\b(an?)\s+\Z", re.IGNORECASE)
NOUN = re.compile(r"\s+(movie|film|flick|pic|show|stuff|one|item|thing)", re.IGNORECASE)


@dataclass(frozen=True)
class Called:
    """A place where an utterance calls a value by name, in one of the forms of `Name`."""

    value: int
    form: str
    text: str


@dataclass(frozen=True)
class Utterance:
    """A text, cut at the names of values."""

    pieces: tuple[str | Called, ...]
    intent: Intent

    @property
    def text(self) -> str:
        """As it was said."""
        return "".join(p if isinstance(p, str) else p.text for p in self.pieces)

    @property
    def spelled(self) -> list[int]:
        """The values that it calls by name, whether it asks for them or not."""
        return sorted({p.value for p in self.pieces if isinstance(p, Called)})

    @property
    def pattern(self) -> str:
        """The same as a pattern of a phrasebook."""
        return "".join(
            p if isinstance(p, str) else f"{{{self._side(p.value)}}}" for p in self.pieces
        )

    def _side(self, value: int) -> str:
        if self.intent.kind != "compound":
            return "value"
        return "exclude" if value in self.intent.exclude else "include"


class Utterances:
    """Utterances about the values of a phrasebook.

    Parameters
    ----------
    said : sequence of (str, Intent)
    book : Phrasebook
    """

    def __init__(self, said: Sequence[tuple[str, Intent]], book: Phrasebook) -> None:
        self._names = [book.names_of(value, "train") for value in range(len(book.readable))]
        mentions = Mentions([[form for name in own for form in name.forms] for own in self._names])
        self.all = [_cut(text, intent, self._names, mentions) for text, intent in said]

    def draw(self, rng: np.random.Generator) -> tuple[str, Intent]:
        """One of `all`, and what it asks for: as it was said, or about other values."""
        utterance = self.all[int(rng.integers(len(self.all)))]
        spelled, intent = utterance.spelled, utterance.intent
        if not spelled or rng.random() >= EXCHANGED:
            return utterance.text, intent
        there = {*spelled, *intent.include, *intent.exclude}
        others = [v for v in rng.permutation(len(self._names)).tolist() if v not in there]
        instead = dict(zip(spelled, others, strict=False))
        text = "".join(
            piece if isinstance(piece, str) else self._called(piece, instead, rng)
            for piece in utterance.pieces
        )
        sides = ((instead.get(v, v) for v in side) for side in (intent.include, intent.exclude))
        return text, Intent(*map(tuple, sides))

    def _called(self, place: Called, instead: dict[int, int], rng: np.random.Generator) -> str:
        if place.value not in instead:
            return place.text
        own, *others = self._names[instead[place.value]]
        with_form = [name for name in others if getattr(name, place.form)]
        name = own
        if with_form and rng.random() < 0.5:
            name = with_form[int(rng.integers(len(with_form)))]
        called = _bare(name, place.form)
        return called[0].upper() + called[1:] if place.text[0].isupper() else called


def _cut(
    text: str, intent: Intent, names: Sequence[Sequence[Name]], mentions: Mentions
) -> Utterance:
    pieces: list[str | Called] = []
    end = 0
    for begin, stop, value in mentions.spans(text):
        word = text[begin:stop]
        order = ("many", "alone", "name")
        if NOUN.match(text, stop):
            order = ("name", "alone", "many")
        elif ARTICLE.search(text[:begin]):
            order = ("one", "name", "alone")
        forms = [form for form in order if word.lower() in (_bare(n, form) for n in names[value])]
        form = forms[0] if forms else "alone"
        pieces += [text[end:begin], Called(value, form, word)]
        end = stop
    return Utterance((*pieces, text[end:]), intent)


def _bare(name: Name, form: str) -> str:
    """A name without its article."""
    called: str = getattr(name, form)
    return re.sub(r"^an? ", "", called) if form == "one" else called


def utterances(domain: str, values: Sequence[str]) -> list[tuple[str, Intent]]:
    """The utterances of a domain that speak of no other values than these, each with what it asks for."""
    place = {value: i for i, value in enumerate(values)}
    return [
        (text, Intent(*(tuple(place[value] for value in side) for side in sides)))
        for text, *sides in _utterance_file(domain)
        if place.keys() >= set().union(*sides)
    ]


def uttered_values(domain: str) -> list[str]:
    """All values that the utterances of a domain want or reject."""
    return sorted(set().union(*(side for _, *sides in _utterance_file(domain) for side in sides)))


def _utterance_file(domain: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """Text, wanted and rejected values of each line."""
    path = FOLDER / f"{domain}.tsv"
    for line in path.read_text(encoding="utf-8").splitlines():
        include, exclude, text = line.split("\t")
        yield text, include.split("|") if include else [], exclude.split("|") if exclude else []
