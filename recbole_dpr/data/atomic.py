"""Atomic files, RecBole's tables: checked before RecBole reads them, line by line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from recbole.utils import FeatureType

from recbole_dpr.errors import DPRError

KINDS = [kind.value for kind in FeatureType]


class AtomicFile:
    """A first line of columns, written ``name:type``, and a row on every other that is not blank.

    Parameters
    ----------
    path : str or Path
    config : RecBole Config
        Reads ``field_separator`` and ``encoding``.

    Attributes
    ----------
    columns : dict of str to str
        The type of every column, by its name.

    Raises
    ------
    DPRError
        If the file cannot be read, or its first line does not say what the columns are.
    """

    def __init__(self, path: str | Path, config: Any) -> None:
        self._path = path
        self._encoding = config["encoding"] or "utf-8"
        self._separator = config["field_separator"]
        self.columns: dict[str, str] = {}
        head = next(self._lines(), "").rstrip("\n")
        if head.startswith("\ufeff"):
            self._fail("the file begins with a byte order mark: set --encoding=utf-8-sig")
        if not head.strip():
            self._fail("there are no columns here, such as item_id:token")
        for cell in head.split(self._separator):
            name, _, kind = cell.partition(":")
            if not name or kind not in KINDS:
                self._fail(
                    f"{cell!r} is no column; write name:type, the type one of {', '.join(KINDS)}, and "
                    f"{self._separator!r} (field_separator) between columns"
                )
            if name in self.columns:
                self._fail(f"there are two columns {name!r}; take one out or rename it")
            self.columns[name] = kind

    def rows(self) -> Iterator[tuple[int, str]]:
        """Number and text of every line that is a row.

        Raises
        ------
        DPRError
            At a row that has not as many cells as there are columns.
        """
        for number, line in enumerate(self._lines(), start=1):
            if number > 1 and not line.isspace():
                # Counted, not cut: there may be millions of lines.
                cells = line.count(self._separator) + 1
                if cells != len(self.columns):
                    self._fail(f"{cells} cells under {len(self.columns)} columns", number)
                yield number, line

    def cells(self, column: str) -> Iterator[tuple[int, str]]:
        """Number and text of every cell of a column."""
        place = list(self.columns).index(column)
        for number, line in self.rows():
            yield number, line.rstrip("\n").split(self._separator)[place]

    def _lines(self) -> Iterator[str]:
        try:
            with open(self._path, encoding=self._encoding) as file:
                yield from file
        except OSError as error:
            raise DPRError(f"cannot read {self._path}: {error.strerror}") from error
        except (UnicodeError, LookupError) as error:
            raise DPRError(
                f"{self._path} is no text in {self._encoding}: set encoding to what it was written in, "
                "such as --encoding=latin-1"
            ) from error

    def _fail(self, message: str, number: int = 1) -> NoReturn:
        raise DPRError(f"{self._path}, line {number}: {message}")
