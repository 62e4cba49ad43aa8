"""Turn intents into prompts, with the patterns and names of one yaml file (docs/phrasebooks.md)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from numpy.random import Generator

from recbole_dpr.data.intent import Intent
from recbole_dpr.data.phrasefile import PHRASES, Name, PhraseFile, parse
from recbole_dpr.errors import DPRError, did_you_mean
from recbole_dpr.files import known_phrasebooks, properties_dir, read_yaml

T = TypeVar("T")


class Phrasebook:
    """Prompts for intents over a fixed list of values, in phrases for training and unseen ones.

    Parameters
    ----------
    content : mapping
        The yaml file's sections, explained in docs/phrasebooks.md.
    values : sequence of str
        Raw attribute values; an intent's indices point into this list. A value that the file does
        not name is called by its token, "_" as a space and in lower case.
    source : str
        The file's name, for messages.

    Attributes
    ----------
    called : list of list of str
        What each value may be called, its readable name first; unseen synonyms are not among it.
    readable : list of str
        The readable name of each value.
    read_as : dict of str to str
        Words that are read as others: {"romcom": "romantic comedy"}.
    sampling : dict
        By "train" and "unseen", the chance that a compound prompt is made of a positive and a
        negative one (`joined`); that a prompt stands beside a neutral sentence (`small_talk`),
        calls a value by a synonym (`synonym`), is in lower case (`lower`), loses its last mark
        (`no_stop`), starts with a capital (`capital`), has a typing error (`typo`).

    Raises
    ------
    DPRError
        For an entry that could not make a prompt, or that would show training what is unseen.
    """

    def __init__(self, content: Mapping[str, Any], values: Sequence[str], source: str) -> None:
        file = PhraseFile(content, source)
        self._patterns = file.patterns()
        self._templates = {
            key: [parse(pattern) for pattern in patterns]
            for key, patterns in self._patterns.items()
        }
        self._small_talk = {
            phrases: [text for text in self._patterns["neutral", phrases] if "{" not in text]
            for phrases in PHRASES
        }
        self._names, self._synonyms = file.names(values)
        self.called = [
            list(dict.fromkeys(form for name in (own, *synonyms) for form in name.forms))
            for own, synonyms in zip(self._names, self._synonyms["train"], strict=True)
        ]
        self.readable = [name.name for name in self._names]
        self.read_as = file.read_as()
        self.sampling = file.sampling()

    @classmethod
    def load(cls, name_or_path: str, values: Sequence[str]) -> Phrasebook:
        """Read a file of `properties/phrasebook/` by its name ("movies"), or any file by its path.

        Raises
        ------
        DPRError
            If there is no such file, or if it is no phrasebook: names file and entry.
        """
        folder = properties_dir() / "phrasebook"
        path = folder / f"{name_or_path}.yaml"
        if not path.is_file():
            path = Path(name_or_path).expanduser()
        if not path.is_file():
            known = known_phrasebooks()
            raise DPRError(
                f"phrasebook '{name_or_path}' is neither one of {', '.join(known)} nor the path of "
                f"a yaml file{did_you_mean(str(name_or_path), known)}"
            )
        return cls(read_yaml(path), values, str(path))

    def patterns(self, kind: str, phrases: str) -> list[str]:
        """Return the patterns of "positive", "negative", "compound" or "neutral", as written."""
        return list(self._patterns[self._key(kind, phrases)])

    def splits(self) -> list[str]:
        """The splits that hold phrases: "unseen", "train", and "hard" where the file has such."""
        return [p for p in ("unseen", "train", "hard") if self._patterns["positive", p]]

    def names_of(self, value: int, phrases: str) -> list[Name]:
        """What a value is called, its own name first, then its synonyms in these phrases."""
        return [self._names[value], *self._synonyms[phrases][value]]

    def prompt(self, intent: Intent, phrases: str, rng: Generator) -> str:
        """Say what an intent asks for, in "train" or "unseen" phrases, drawn with `rng`.

        Raises
        ------
        DPRError
            If the intent is empty, or holds an index that no value has.
        """
        if intent.kind == "neutral":
            raise DPRError("an empty intent has no prompt: call Phrasebook.neutral instead")
        key = self._key(intent.kind, phrases)
        chances = self.sampling[phrases]
        if intent.kind != "compound":
            parts = [self._fill(key, {"value": intent.include or intent.exclude}, rng)]
        elif rng.random() < chances["joined"]:
            wish = self._fill(("positive", phrases), {"value": intent.include}, rng)
            rejection = self._fill(("negative", phrases), {"value": intent.exclude}, rng)
            parts = _choose(([wish, rejection], [rejection, wish]), rng)
        else:
            sides = {"include": intent.include, "exclude": intent.exclude}
            parts = [self._fill(key, sides, rng)]
        if self._small_talk[phrases] and rng.random() < chances["small_talk"]:
            talk = _choose(self._small_talk[phrases], rng)
            parts = _choose(([talk, *parts], [*parts, talk]), rng)
        return roughen(_sentences(parts), chances, rng)

    def neutral(self, phrases: str, rng: Generator) -> str:
        """Say something that asks for nothing; it may mention any of the values."""
        value = _below(len(self._names), rng)
        text = self._fill(self._key("neutral", phrases), {"value": (value,)}, rng)
        return roughen(text, self.sampling[phrases], rng)

    def _fill(self, key: tuple[str, str], sides: dict[str, tuple[int, ...]], rng: Generator) -> str:
        kind, phrases = key
        template = _choose(self._templates[key], rng)
        filled = {}
        for side, values in sides.items():
            names = [self._name(value, phrases, rng) for value in values]
            conjunction = "or"
            if len(names) > 1:
                names = [names[i] for i in rng.permutation(len(names))]
                # Only wishes are listed with "and": "no horror and war" may mean not both at once.
                wanted = side == "include" or kind == "positive"
                conjunction = _choose(("and", "or"), rng) if wanted else "or"
            filled[side] = (names, conjunction)
        return "".join(
            [
                piece if isinstance(piece, str) else piece.fill(*filled[piece.side])
                for piece in template
            ]
        )

    def _name(self, value: int, phrases: str, rng: Generator) -> Name:
        if not 0 <= value < len(self._names):
            raise DPRError(f"no value has the index {value}: there are {len(self._names)}")
        synonyms = self._synonyms[phrases][value]
        if synonyms and rng.random() < self.sampling[phrases]["synonym"]:
            return _choose(synonyms, rng)
        return self._names[value]

    def _key(self, kind: str, phrases: str) -> tuple[str, str]:
        if (kind, phrases) not in self._patterns:
            raise DPRError(f"a phrasebook has no '{kind}' patterns for '{phrases}' phrases")
        return kind, phrases


def _below(size: int, rng: Generator) -> int:
    # Ten times faster than rng.integers for one number.
    return int(rng.random() * size)


def _choose(options: Sequence[T], rng: Generator) -> T:
    return options[int(rng.random() * len(options))]  # as `_below`, without a call


def _sentences(parts: Sequence[str]) -> str:
    """Put sentences behind each other, with a mark between them."""
    *others, last = parts
    return "".join(f"{part} " if part[-1] in ".!?" else f"{part}. " for part in others) + last


def roughen(text: str, chances: Mapping[str, float], rng: Generator) -> str:
    """Write as carelessly as people do."""
    lower = rng.random() < chances["lower"]
    no_stop = rng.random() < chances["no_stop"]
    capital = rng.random() < chances["capital"]
    typo = rng.random() < chances["typo"]
    if no_stop:
        text = text.rstrip(".!?") or text
    if capital:
        text = text[0].upper() + text[1:]
    if lower:
        text = text.lower()
    return _misspell(text, rng) if typo else text


def _misspell(text: str, rng: Generator) -> str:
    """Swap, drop or double a letter inside a word of five letters or more (so never in "not")."""
    words = list(re.finditer(r"[^\W\d_]{5,}", text))
    if not words:
        return text
    word = _choose(words, rng)
    at = word.start() + 1 + _below(len(word.group()) - 2, rng)
    before, letter, after = text[:at], text[at], text[at + 1 :]
    return before + _choose((after[:1] + letter + after[1:], after, letter + letter + after), rng)
