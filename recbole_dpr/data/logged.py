"""Logged prompts: what the users of a data set really asked, read from its file `<dataset>.prompt`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from torch import Tensor

from recbole_dpr.data.atomic import AtomicFile
from recbole_dpr.data.intent import Intent
from recbole_dpr.data.prompts import multi_hot
from recbole_dpr.errors import DPRError, did_you_mean

SUFFIX = "prompt"
ID, TEXT = "prompt_id:token", "prompt:token_seq"
SIDES = ("include:token_seq", "exclude:token_seq")


class PromptFile:
    """An atomic file of prompts: one row each, named by an id that the interactions refer to.

    ``prompt_id:token`` and ``prompt:token_seq`` (the text) must be there; ``include:token_seq`` and
    ``exclude:token_seq`` say what a prompt asks for, where that is known: one attribute value or
    several with spaces between them, both empty for a prompt that asks for nothing.

    Parameters
    ----------
    path : Path
    values : sequence of str
        The attribute values that may be asked for.
    config : RecBole Config
        Reads ``field_separator``, ``seq_separator`` and ``encoding``.

    Attributes
    ----------
    prompts : dict of str to (str, Intent or None)
        Text and intent by id; None is an intent that the file does not say.

    Raises
    ------
    DPRError
        For a file or a row that cannot be used: names the file and the line.
    """

    def __init__(self, path: Path, values: Sequence[str], config: Any) -> None:
        self._path, self._places = path, {value: i for i, value in enumerate(values)}
        self._between = config["seq_separator"]
        self.prompts: dict[str, tuple[str, Intent | None]] = {}
        file = AtomicFile(path, config)
        header = [f"{name}:{kind}" for name, kind in file.columns.items()]
        for column in (ID, TEXT):
            if column not in header:
                self._fail(1, f"there is no column {column!r}; the columns are {header}")
        if (SIDES[0] in header) != (SIDES[1] in header):
            self._fail(
                1,
                f"{SIDES[0]} and {SIDES[1]} come together or not at all; the columns are {header}",
            )
        for number, line in file.rows():
            cells = line.split(config["field_separator"])
            self._add(number, dict(zip(header, cells, strict=True)))

    def _add(self, number: int, row: dict[str, str]) -> None:
        token, text = row[ID].strip(), row[TEXT].strip()
        if not token or not text:
            self._fail(
                number, "the prompt has no id" if not token else f"prompt {token} has no text"
            )
        if token in self.prompts:
            self._fail(number, f"the id {token} was given to another prompt already")
        intent = None
        if SIDES[0] in row:
            include, exclude = (self._values(number, row[side]) for side in SIDES)
            if both := set(include) & set(exclude):
                value = list(self._places)[min(both)]
                self._fail(number, f"{value!r} is both wanted and unwanted")
            intent = Intent(include, exclude)
        self.prompts[token] = (text, intent)

    def _values(self, number: int, cell: str) -> tuple[int, ...]:
        found = []
        cell = cell.strip()
        # A value of a token column may hold the separator.
        for value in [cell] if cell in self._places else filter(None, cell.split(self._between)):
            if value not in self._places:
                hint = did_you_mean(cell, self._places) or did_you_mean(value, self._places)
                self._fail(number, f"no item has the value {value!r}{hint}")
            found.append(self._places[value])
        return tuple(found)  # an intent sorts them

    def _fail(self, number: int, message: str) -> NoReturn:
        raise DPRError(f"{self._path}, line {number}: {message}")


def known_intents(
    logged: Sequence[tuple[str, Intent | None]],
    read: Callable[[list[str]], tuple[Tensor, Tensor]] | None,
) -> list[tuple[str, Intent]]:
    """A data set's prompts; where the file says no intent, the one that is read.

    Parameters
    ----------
    read : callable or None
        As `DPR.read`; not needed where every intent is known.
    """
    open_ones = [text for text, intent in logged if intent is None]
    answers: Iterator[Intent] = iter(())
    if open_ones:
        assert read is not None
        answers = map(Intent.of, *read(open_ones))
    return [(text, next(answers) if intent is None else intent) for text, intent in logged]


@dataclass(frozen=True)
class LoggedIntents:
    """What the prompts of a data set ask for, by the numbers in `LOGGED_FIELD`.

    Parameters
    ----------
    include, exclude : BoolTensor ``[n, V]``
    """

    include: Tensor
    exclude: Tensor

    @classmethod
    def of(cls, logged: Sequence[tuple[str, Intent]], n_values: int) -> LoggedIntents:
        """From the prompts of a data set, every intent known."""
        sides = ([getattr(i, side) for _, i in logged] for side in ("include", "exclude"))
        return cls(*(multi_hot(side, n_values) for side in sides))
