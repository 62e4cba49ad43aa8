"""The yaml file of a phrasebook: its grammar, and the checks on what somebody wrote there."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from logging import getLogger
from typing import Any, NoReturn

from recbole_dpr.errors import DPRError, did_you_mean, nearest
from recbole_dpr.text.mentions import words_of

PHRASES = ("train", "unseen", "hard")
OPTIONAL = "hard"  # a domain need not have phrases whose very words were never trained on
# What every pattern of a kind must hold. A neutral one may mention a value.
NEEDED: dict[str, set[str]] = {
    "positive": {"value"},
    "negative": {"value"},
    "compound": {"include", "exclude"},
    "neutral": set(),
}
FORMS = ("name", "alone", "one", "many")
CHANCES = ("joined", "small_talk", "synonym", "lower", "no_stop", "capital", "typo")
# {value} {values} {value movie} {a value} {a value movie}, and the same of include and exclude.
SLOT = re.compile(r"\{(an? )?(value|include|exclude)(?:(?(1)|(s))|( [^{}]+))?\}")


@dataclass(frozen=True)
class Name:
    """What a value is called, in the four forms that sentences need."""

    name: str  # before a noun: "a [comedy] movie"; a value's readable name; "" if there is none
    alone: str  # "no [comedy] tonight"
    one: str  # "[a comedy] would be nice"
    many: str  # "I love [comedies]"

    @property
    def forms(self) -> list[str]:
        """All of them, `name` first where there is one."""
        return [form for form in (self.name, self.alone, self.one, self.many) if form]


@dataclass(frozen=True)
class Slot:
    """A placeholder of a pattern."""

    side: str  # value, include or exclude
    article: bool
    plural: bool
    noun: str  # " movie"; "" when there is none

    def fill(self, names: Sequence[Name], conjunction: str) -> str:
        """Write one or several values in the form that the sentence asks for."""
        if self.noun and "" not in [name.name for name in names]:
            phrase = listed([name.name for name in names], conjunction) + self.noun
            return with_article(phrase) if self.article else phrase
        plural = self.plural or self.noun.endswith("s")
        form = "one" if self.article else "many" if plural else "alone"
        return listed([getattr(name, form) for name in names], conjunction)


class PhraseFile:
    """The sections of a file, with a message for whatever its writer may have got wrong."""

    def __init__(self, content: Any, source: str) -> None:
        self._source = source
        known = ("noun", "names", "read_as", "sampling", "held_out", *NEEDED)
        self._sections = self._mapping(content, "the file", known)

    def patterns(self) -> dict[tuple[str, str], list[str]]:
        """The patterns by (kind, phrases): no frame in two places, no held-out word in train."""
        found: dict[tuple[str, str], list[str]] = {}
        homes: dict[str, str] = {}
        held_out = self._list(self._sections.get("held_out"), "held_out")
        for word in held_out:
            self._check_text(word, "held_out")
        kept_out = search_for(held_out)
        for kind, needed in NEEDED.items():
            splits = self._mapping(self._sections.get(kind), kind, PHRASES)
            for phrases in PHRASES:
                where = f"{kind}.{phrases}"
                found[kind, phrases] = self._list(splits.get(phrases), where)
                if not found[kind, phrases] and phrases != OPTIONAL:
                    self._fail(f"{where} holds no pattern; write at least one")
                for pattern in found[kind, phrases]:
                    self._check_text(pattern, where)
                    entry = f"{where}, {pattern!r}"
                    self._check_slots(pattern, needed or {"value"}, needed, entry)
                    home = homes.setdefault(frame(pattern), where)
                    if home != where:
                        self._fail(f"{entry}: {home} has the same frame; keep one of them")
                    word = kept_out(pattern) if phrases == "train" else None
                    if word:
                        self._fail(f"{entry} holds '{word[0]}', which held_out keeps out of train")
        self._check_optional(found)
        return found

    def _check_optional(self, found: Mapping[tuple[str, str], list[str]]) -> None:
        """Who is asked in these phrases is asked all kinds of prompts."""
        lacking = [kind for kind in NEEDED if not found[kind, OPTIONAL]]
        if lacking and len(lacking) < len(NEEDED):
            self._fail(
                f"{lacking[0]}.{OPTIONAL} holds no pattern, where other kinds have some: write at least one, or "
                f"none of {OPTIONAL} at all"
            )

    def names(self, values: Sequence[str]) -> tuple[list[Name], dict[str, list[list[Name]]]]:
        """The readable name of each value, and its synonyms by split."""
        noun = {"one": "item", "many": "items"}
        noun |= self._texts(self._mapping(self._sections.get("noun"), "noun", noun), "noun")
        known = self._mapping(self._sections.get("names"), "names", None)
        for key in known:
            self._check_text(key, "names")
        self._warn_of_slips(known, values)
        if twice := [repr(value) for value, times in Counter(values).items() if times > 1]:
            raise DPRError(
                f"{some(twice)} stand{'s' * (len(twice) == 1)} in two of the prompt_fields, and a prompt could "
                "not tell which is meant: write it differently in one of them"
            )
        names: list[Name] = []
        synonyms: dict[str, list[list[Name]]] = {phrases: [] for phrases in PHRASES}
        owners: dict[str, str] = {}
        clashes: dict[tuple[str, str], str] = {}
        for value in values:
            where = f"names, {value!r}"
            entry = known.get(value, " ".join(value.replace("_", " ").lower().split()))
            others: Any = None
            if not isinstance(entry, str):
                entry = self._mapping(entry, where, (*FORMS, "synonyms"))
                others = entry.pop("synonyms", None)
            names.append(self._name(entry, noun, where))
            others = self._mapping(others, f"{where}, synonyms", PHRASES)
            for phrases in PHRASES:
                written = self._list(others.get(phrases), f"{where}, synonyms.{phrases}")
                synonyms[phrases].append([self._name(form, noun, where, True) for form in written])
            for name in (names[-1], *synonyms["train"][-1], *synonyms["unseen"][-1]):
                for called in name.forms:
                    owner = owners.setdefault(called.lower(), value)
                    if owner != value:
                        clashes.setdefault((value, owner), called)
        if clashes:
            alike = [
                f"{a!r} and {b!r} are both called {called!r}" for (a, b), called in clashes.items()
            ]
            raise DPRError(
                f"{some(alike)}: merge such values in the .item file, or give them different names in a "
                f"phrasebook of your own (this is {self._source})"
            )
        _warn_of_like_words(values, names)
        return names, synonyms

    def read_as(self) -> dict[str, str]:
        """Words that are read as others, in the singular and the plural, with a hyphen, a space or nothing between."""
        found = {}
        for word, entry in self._mapping(self._sections.get("read_as"), "read_as", None).items():
            where = f"read_as, {word!r}"
            self._check_text(word, "read_as")
            forms = self._texts(self._mapping(entry, where, ("one", "many")), where)
            for form in ("one", "many"):
                if form not in forms:
                    self._fail(f"{where} lacks {form!r}")
            plural = word[:-1] + "ies" if word.endswith("y") else word + "s"
            for written, form in ((word, "one"), (plural, "many")):
                for glue in ("-", " ", ""):
                    found[written.replace("-", glue)] = forms[form]
        return found

    def _warn_of_slips(self, named: Mapping[str, Any], values: Sequence[str]) -> None:
        """Say which names seem to be meant for values that have none; a file may know more than the data."""
        nameless = [value for value in values if value not in named]
        slips = [
            f"{key!r} (did you mean {value!r}?)"
            for key in sorted(named.keys() - {*values})
            if (value := nearest(key, nameless))
        ]
        if slips:
            getLogger().warning(
                f"phrasebook {self._source} names values that no item has: {some(slips)}"
            )

    def sampling(self) -> dict[str, dict[str, float]]:
        """The chances by split; what is not given is 0."""
        given = self._mapping(self._sections.get("sampling"), "sampling", PHRASES)
        chances = {}
        for phrases in PHRASES:
            where = f"sampling.{phrases}"
            found = self._mapping(given.get(phrases), where, CHANCES)
            for key, chance in found.items():
                if not isinstance(chance, (int, float)) or not 0 <= chance <= 1:
                    self._fail(f"{where}.{key} must be a number from 0 to 1, not {chance!r}")
            chances[phrases] = {key: float(found.get(key, 0)) for key in CHANCES}
        return chances

    def _name(self, entry: Any, noun: Mapping[str, str], where: str, synonym: bool = False) -> Name:
        forms = {"name": entry} if isinstance(entry, str) else self._mapping(entry, where, FORMS)
        forms = self._texts(forms, where)
        if synonym and {"alone", "one", "many"} <= set(forms):
            # "Something to laugh at" says it without any word that stands before a noun.
            return Name(**{"name": "", **forms})
        if "name" not in forms:
            self._fail(f"{where} lacks 'name'")
        name = forms["name"]
        one, many = f"{name} {noun['one']}", f"{name} {noun['many']}"
        return Name(**{"alone": name, "one": with_article(one), "many": many, **forms})

    def _check_slots(self, pattern: str, may: set[str], must: set[str], entry: str) -> None:
        held = {match[2] for match in SLOT.finditer(pattern)}
        if missing := must - held:
            self._fail(f"{entry} lacks its placeholder {{{min(missing)}}}")
        if re.search(r"[{}]", SLOT.sub("", pattern)) or held - may:
            known = " and ".join(f"{{{side}}}" for side in sorted(may))
            self._fail(f"{entry} has a placeholder that is not a form of {known}")

    def _mapping(self, given: Any, where: str, known: Collection[str] | None) -> dict[str, Any]:
        given = {} if given is None else given
        if not isinstance(given, Mapping):
            self._fail(f"{where} must hold 'key: value' pairs, not a {type(given).__name__}")
        for key in given:
            if known is not None and key not in known:
                self._fail(f"{where} has an unknown key {key!r}{did_you_mean(str(key), known)}")
        return dict(given)

    def _list(self, given: Any, where: str) -> list[Any]:
        if not isinstance(given, list | None):
            self._fail(f"{where} must be a list")
        return given or []

    def _texts(self, given: dict[str, Any], where: str) -> dict[str, str]:
        for key, text in given.items():
            self._check_text(text, f"{where}, {key}")
        return given

    def _check_text(self, given: Any, where: str) -> None:
        if not isinstance(given, str) or not given.strip():
            self._fail(f"{where}: {given!r} is no text; put it in quotes")

    def _fail(self, message: str) -> NoReturn:
        raise DPRError(f"phrasebook {self._source}: {message}")


def some(words: Sequence[str], most: int = 3) -> str:
    """Write "a, b, c and 7 more", for messages."""
    more = len(words) - most
    return ", ".join(words[:most]) + (f" and {more} more" if more > 0 else "")


def _warn_of_like_words(values: Sequence[str], names: Sequence[Name]) -> None:
    """Say which values no word tells apart: "Sci-Fi" and "Sci_Fi" are as one, "C" and "C++" are two."""
    by_words = defaultdict(list)
    for value, name in zip(values, names, strict=True):
        by_words[words_of(name.name)].append(repr(value))
    if alike := [" and ".join(same) for same in by_words.values() if len(same) > 1]:
        getLogger().warning(
            f"the names of {some(alike)} differ in punctuation alone, and so a prompt may be taken to mean either: "
            "merge them in the .item file if they are one, or give them different names in a phrasebook of your own"
        )


def frame(pattern: str) -> str:
    """Reduce a pattern to its wording: without case, punctuation and the form of its slots."""
    return " ".join(re.findall(r"[\w']+", SLOT.sub(r" \2 ", pattern).lower()))


def search_for(words: Collection[str]) -> Callable[[str], re.Match[str] | None]:
    """A search for the first of some words in a pattern, its slots aside; "fan" is in "fans", too."""
    found = re.compile("|".join(rf"\b{re.escape(word)}" for word in words) or "(?!)", re.IGNORECASE)
    return lambda pattern: found.search(SLOT.sub(r" \4 ", pattern))


def parse(pattern: str) -> tuple[str | Slot, ...]:
    """Cut a pattern into texts and slots."""
    pieces: list[str | Slot] = []
    end = 0
    for match in SLOT.finditer(pattern):
        pieces += [pattern[end : match.start()]] * (match.start() > end)
        article, side, plural, noun = match.groups()
        pieces.append(Slot(side, bool(article), bool(plural), noun or ""))
        end = match.end()
    return (*pieces, pattern[end:])


def with_article(phrase: str) -> str:
    return ("an " if phrase[0].lower() in "aeiou" else "a ") + phrase


def listed(words: Sequence[str], conjunction: str) -> str:
    """Write "a", "a or b", "a, b or c"."""
    if len(words) == 1:
        return words[0]
    return f"{', '.join(words[:-1])} {conjunction} {words[-1]}"
