"""Sentences whose intent is known, as many as the training of the shipped reader asks for.

Whole utterances (`utterances/`), and sentences made of the training phrases of `properties/phrasebook/`, of the many more
in `phrases.yaml` and `idioms.yaml`, and, for films, of the other words that people have for a genre (`names.yaml`) and of
wishes that name none (`implied.yaml`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from reader.utterances import Utterances, utterances
from recbole_dpr.data.intent import Intent
from recbole_dpr.data.phrasebook import Phrasebook, roughen
from recbole_dpr.data.phrasefile import NEEDED, frame, search_for
from recbole_dpr.files import properties_dir, read_yaml

T = TypeVar("T")

HERE = Path(__file__).resolve().parent
OF_FILMS = re.compile(
    r"film|movie|watch|cinema|screen|popcorn|actor|actress|scene|see |title\}", re.IGNORECASE
)
TITLE = "⟨title⟩"  # stands for {title} until a film's title takes its place
PARTS = (0.66, 0.26, 0.08)  # chances of one, two, three things said in one prompt
KINDS = {"positive": 0.33, "negative": 0.33, "compound": 0.2, "neutral": 0.14}
LATER = {"positive": 0.28, "negative": 0.28, "neutral": 0.44}  # of what is said after the first
COUNTS = (0.82, 0.13, 0.05)  # chances of one, two, three values on a side
MEASURED = ("unseen", "hard")  # phrases of a book that are only asked, never trained on
PHRASES_OFTEN = 3  # to one idiom: real prompts are chattier than those
IMPLIED = 0.2  # share of positive and negative parts that name no genre
ROUGH = {
    "joined": 0.15,
    "small_talk": 0.1,
    "lower": 0.3,
    "no_stop": 0.3,
    "capital": 0.3,
    "typo": 0.08,
}
HESITATES = 0.1
FILLERS = ("um", "uh", "like", "you know", "well", "I mean", "hmm", "so", "er", "I guess")


class Sentences:
    """Draws prompts over the values of one domain, with their intents.

    Parameters
    ----------
    name : str
        "movies" or "generic". The generic one takes phrases that speak of no film.
    values : list of str
    titles : list of str
        Film titles; they ask for nothing.
    share : float
        Of the things said that are whole utterances.
    implied_out, idioms_out, uttered_out : float
        Shares of the implied wishes, of the idioms and of the utterances that are never drawn, to measure.

    Attributes
    ----------
    book : Phrasebook
        Its "train" phrases are those that are drawn from.
    idioms : Phrasebook
        Its "unseen" phrases are the idioms that are not.
    utterances : Utterances
        Those that are drawn.
    implied, uttered : list of (str, Intent)
        The implied wishes and the utterances that are not.
    """

    def __init__(
        self,
        name: str,
        values: list[str],
        titles: Sequence[str] = (),
        share: float = 0.0,
        implied_out: float = 0.1,
        idioms_out: float = 0.05,
        uttered_out: float = 0.05,
    ) -> None:
        of_films = name == "movies"
        path = properties_dir() / "phrasebook" / f"{name}.yaml"
        content, frames = read_yaml(path), _Frames()
        split = np.random.default_rng(0)  # what is kept out, the same in every domain
        own = {kind: [p for p in content[kind]["train"] if frames.take(p)] for kind in NEEDED}
        phrases, _ = _drawn_from("phrases", of_films, frames, split, 0.0)
        idioms, kept_out = _drawn_from("idioms", of_films, frames, split, idioms_out)
        for kind in NEEDED:
            often = [phrase for phrase in phrases[kind] for _ in range(PHRASES_OFTEN)]
            content[kind]["train"] = [*own[kind], *often, *idioms[kind]]
        content["sampling"]["train"] = {**ROUGH, "synonym": 0.5 if of_films else 0.0}
        if of_films:
            _add_names(content["names"])
        self.book = Phrasebook(content, values, str(path))
        unseen = {
            kind: {"train": content[kind]["train"], "unseen": kept_out[kind]} for kind in NEEDED
        }
        self.idioms = Phrasebook({**content, **unseen}, values, str(path))
        self._titles = list(titles)
        self._n_values = len(values)
        self._implied: dict[str, list[tuple[int, str]]] = {}
        self.implied: list[tuple[str, Intent]] = []
        for side, said in _implied(values if of_films else []).items():
            self._implied[side], left = _parted(said, implied_out, split)
            for value, text in left:
                intent = Intent((value,), ()) if side == "positive" else Intent((), (value,))
                self.implied.append((self._titled(text, split), intent))
        self._share = share
        self.utterances = Utterances(utterances(name, values), self.book)
        may_train = [said for said in self.utterances.all if frames.take(said.pattern)]
        self.utterances.all, left_out = _parted(may_train, uttered_out, split)
        self.uttered = [(said.text, said.intent) for said in left_out]

    def draw(self, rng: np.random.Generator) -> tuple[str, Intent]:
        """One prompt, and what it asks for."""
        values = rng.permutation(self._n_values).tolist()
        include: list[int] = []
        exclude: list[int] = []
        parts = []
        for part in range(1 + int(rng.choice(3, p=PARTS))):
            if self._share and rng.random() < self._share:
                text, wanted, unwanted = self._uttered(values, rng)
            else:
                kinds = LATER if part else KINDS
                kind = str(rng.choice(list(kinds), p=list(kinds.values())))
                text, wanted, unwanted = self._part(kind, values, rng)
            parts.append(text)
            include += wanted
            exclude += unwanted
        if len(parts) > 1:
            parts = [parts[i] for i in rng.permutation(len(parts))]
        text = self._titled(" ".join(_ended(part, rng) for part in parts), rng)
        if rng.random() < HESITATES:
            text = hesitate(text, rng)
        return text, Intent(tuple(sorted(include)), tuple(sorted(exclude)))

    def _part(
        self, kind: str, values: list[int], rng: np.random.Generator
    ) -> tuple[str, list[int], list[int]]:
        """Say one thing, of values that are taken off the list: the text, wanted, unwanted."""
        if kind == "neutral":
            return self.book.neutral("train", rng), [], []
        if self._implied.get(kind) and rng.random() < IMPLIED:
            value, text = self._implied[kind][int(rng.integers(len(self._implied[kind])))]
            if value in values:
                values.remove(value)
                return (text, [value], []) if kind == "positive" else (text, [], [value])
        counts = 1 + rng.choice(3, size=2, p=COUNTS)
        wanted = [values.pop() for _ in range(counts[0] if kind != "negative" else 0)]
        unwanted = [values.pop() for _ in range(counts[1] if kind != "positive" else 0)]
        return (
            self.book.prompt(Intent(tuple(wanted), tuple(unwanted)), "train", rng),
            wanted,
            unwanted,
        )

    def _uttered(
        self, values: list[int], rng: np.random.Generator
    ) -> tuple[str, list[int], list[int]]:
        """An utterance of values that are taken off the list: the text, wanted, unwanted."""
        while True:
            text, intent = self.utterances.draw(rng)
            wanted, unwanted = list(intent.include), list(intent.exclude)
            if {*wanted, *unwanted} <= {*values}:
                for value in (*wanted, *unwanted):
                    values.remove(value)
                return roughen(text, ROUGH, rng), wanted, unwanted

    def _titled(self, text: str, rng: np.random.Generator) -> str:
        while TITLE in text:
            text = text.replace(TITLE, self._titles[int(rng.integers(len(self._titles)))], 1)
        return text


def _parted(said: Sequence[T], out: float, split: np.random.Generator) -> tuple[list[T], list[T]]:
    """What is drawn, and a share `out` that is kept out of it."""
    is_out = split.random(len(said)) < out
    drawn = [x for x, left in zip(said, is_out, strict=True) if not left]
    return drawn, [x for x, left in zip(said, is_out, strict=True) if left]


def _drawn_from(
    source: str, of_films: bool, frames: _Frames, split: np.random.Generator, out: float
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """The phrases of a file that may be trained on, by kind, and a share `out` of them that is kept out."""
    kept: dict[str, list[str]] = {}
    kept_out: dict[str, list[str]] = {}
    for kind, patterns in read_yaml(HERE / f"{source}.yaml").items():
        kept[kind], kept_out[kind] = [], []
        # Drawn before anything is left out: every domain keeps out the same ones.
        is_out = split.random(len(patterns)) < out
        for pattern, left in zip(patterns, is_out, strict=True):
            if frames.take(pattern) and (of_films or not OF_FILMS.search(pattern)):
                (kept_out if left else kept)[kind].append(pattern.replace("{title}", TITLE))
    return kept, kept_out


def _add_names(names: dict[str, Any]) -> None:
    """Add the other words that people have for a genre to its synonyms for training."""
    for value, synonyms in read_yaml(HERE / "names.yaml").items():
        train = names[value].setdefault("synonyms", {}).setdefault("train", [])
        train += synonyms


def _implied(genres: list[str]) -> dict[str, list[tuple[int, str]]]:
    """Wishes that name no genre, and the genre that each is for or against, by side; none without genres."""
    found: dict[str, list[tuple[int, str]]] = {"positive": [], "negative": []}
    for value, sides in read_yaml(HERE / "implied.yaml").items() if genres else ():
        for side, said in sides.items():
            found[side] += [(genres.index(value), text.replace("{title}", TITLE)) for text in said]
    return found


class _Frames:
    """The frames that no further phrase may be trained on: those of phrases before it, and of all that measures.

    No frame that a phrasebook keeps for measuring, and none of the words that it holds out, may be trained on,
    whichever the book: a reader that has met a phrase among the values of many domains knows it among films, too.
    """

    def __init__(self) -> None:
        books = [
            read_yaml(path) for path in sorted((properties_dir() / "phrasebook").glob("*.yaml"))
        ]
        apart = [
            book[kind].get(split, []) for book in books for kind in NEEDED for split in MEASURED
        ]
        self._taken = {frame(pattern) for patterns in apart for pattern in patterns}
        words = {word for book in books for word in book.get("held_out", [])}
        named = [name for book in books for name in book.get("names", {}).values()]
        groups = [name["synonyms"] for name in named if "synonyms" in name]
        words |= {synonym["name"] for group in groups for synonym in group["unseen"]}
        self._held_out = search_for(sorted(words))

    def take(self, pattern: str) -> bool:
        """Take a phrase's frame; whether the phrase may be trained on."""
        new = frame(pattern) not in self._taken
        self._taken.add(frame(pattern))
        return new and not self._held_out(pattern)


def film_titles() -> list[str]:
    """The titles of MovieLens-100K, which RecBole carries, with and without their years."""
    path = files("recbole") / "dataset_example" / "ml-100k" / "ml-100k.item"
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    return [title for _, title, year, *_ in rows for title in (title, f"{title} ({year})")]


def hesitate(text: str, rng: np.random.Generator) -> str:
    """Put a filler or two between the words, as speech has them."""
    words = text.split(" ")
    for _ in range(1 + int(rng.integers(2))):
        words.insert(int(rng.integers(len(words))), FILLERS[int(rng.integers(len(FILLERS)))])
    return " ".join(words)


def _ended(part: str, rng: np.random.Generator) -> str:
    marked = part[-1] in ".!?," or rng.random() < 0.25
    return part if marked else part + "."
