"""Mentions: where a text calls an attribute value by its name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from recbole_dpr.text.encoder import TextEncoder

WORD = re.compile(r"\w+")
# As in a search box: "comedy -horror".
MINUS = re.compile(r"(^|(?<=\w)\s+|(?<=\s))[-\N{MINUS SIGN}]\Z")
# What may stand beside names in a text that says no more than these.
BESIDE = re.compile(r"""([\s,;&/+.!"'“”]|\b(an?|the|and|or)\b)*""", re.IGNORECASE)
ARTICLES = ("a", "an")
NOBODY = -1
# They end like plurals of words that say something else: "something new" asks for no News.
NO_PLURALS = frozenset(("blues", "goods", "news", "odds", "shorts"))

Words = tuple[str, ...]


class Mentions:
    """Finds names in texts, the longest that stands anywhere: "hair styling tool", not "hair styling".

    To an encoder the names of a large catalogue look alike. Where a text spells one of them, there is
    no doubt who is spoken of.

    Parameters
    ----------
    called : sequence of sequence of str
        What each value is called; case, punctuation, a leading article and an ending of the plural do
        not count.
    read_as : mapping of str to str, optional
        Words that are read as others: {"romcom": "romantic comedy"}.
    """

    def __init__(
        self, called: Sequence[Sequence[str]], read_as: Mapping[str, str] | None = None
    ) -> None:
        self._read_as = {word.lower(): text for word, text in (read_as or {}).items()}
        longest_first = sorted(map(re.escape, self._read_as), key=len, reverse=True)
        found = rf"\b({'|'.join(longest_first)})\b" if self._read_as else r"(?!)"  # nothing
        self._rewritten = re.compile(found, re.IGNORECASE)
        self._owners: dict[Words, int] = {}
        spelled = [(words_of(name), value) for value, names in enumerate(called) for name in names]
        for words, value in spelled:
            # "C", "C++" and "C#" are all the word "c", which names none of them for sure.
            if self._owners.setdefault(words, value) != value:
                self._owners[words] = NOBODY
        for words, value in spelled:  # a name as it is written goes before another's plural
            for number in _numbers(words) if self._owners[words] == value else ():
                self._owners.setdefault(number, value)
        self._owners.pop((), None)
        self._longest = max(map(len, self._owners), default=0)

    def __repr__(self) -> str:
        return f"Mentions({self._owners}, {self._read_as})"

    def rewrite(self, text: str) -> str:
        """The text with what its words are read as in their place, and "no" for a minus before a name."""
        # What matches without case need not be the same in lower case: a dotted capital I is longer there.
        text = self._rewritten.sub(lambda m: self._read_as.get(m[0].lower(), m[0]), text)
        for begin, *_ in reversed(list(self.spans(text))):
            if minus := MINUS.search(text, 0, begin):
                no = ", no " if minus[0][0].isspace() else "no "
                text = text[: minus.start()] + no + text[begin:]
        return text

    def spans(self, text: str) -> Iterator[tuple[int, int, int]]:
        """Begin, end and value of each mention, from left to right; no two overlap."""
        # Places are those of the text, whose lower case may be longer.
        words = list(WORD.finditer(text))
        spelled = tuple(word.group().lower() for word in words)
        at = 0
        while at < len(words):
            for many in range(min(self._longest, len(words) - at), 0, -1):
                value = self._owners.get(spelled[at : at + many], NOBODY)
                if value != NOBODY:
                    yield words[at].start(), words[at + many - 1].end(), value
                    at += many - 1
                    break
            at += 1

    def alone(self, text: str) -> list[int]:
        """The values that a text names and says no more of ("Nike", "war dramas"); none if it does.

        A question, a minus sign or a sad face says more.
        """
        spans = list(self.spans(text))
        edges = [0, *(edge for begin, end, _ in spans for edge in (begin, end)), len(text)]
        beside = " ".join(text[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True))
        return [value for *_, value in spans] if BESIDE.fullmatch(beside) else []

    def owners(self, texts: Sequence[str], encoder: TextEncoder) -> Tensor:
        """The value in whose name each token stands, `NOBODY` for the others: long ``[n, longest]``.

        The tokens are those of `TextEncoder.token_states` for the same texts. An encoder that does not
        tell where its tokens stand leaves them to nobody.
        """
        cleaned, offsets = encoder.offsets(texts)
        owners = torch.full((len(texts), max(map(len, offsets), default=0)), NOBODY)
        for row, (text, places) in enumerate(zip(cleaned, offsets, strict=True)):
            for begin, end, value in self.spans(text):
                inside = [a < end and b > begin for a, b in places]
                owners[row, : len(places)][torch.tensor(inside)] = value
        return owners


def words_of(name: str) -> Words:
    """What counts of a name: names of the same words are told apart by nobody."""
    words = tuple(word.lower() for word in WORD.findall(name))
    return words[1:] if words[:1] in {(article,) for article in ARTICLES} else words


def _numbers(words: Words) -> Iterator[Words]:
    """The same in the plural and in the singular, as most English nouns form them."""
    if not words:
        return
    *others, last = words
    if last in NO_PLURALS:
        return
    for ending, other in (("y", "ies"), ("", "s"), ("", "es"), ("ies", "y"), ("s", "")):
        if last.endswith(ending) and len(last) - len(ending) > 1:
            yield *others, last.removesuffix(ending) + other
