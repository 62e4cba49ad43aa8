"""CheckedDataset: RecBole's SequentialDataset, which says what is wrong with the files that it is given."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from recbole.data.dataset import SequentialDataset
from recbole.utils import FeatureSource

from recbole_dpr.compat import process_group_of_one
from recbole_dpr.data.atomic import AtomicFile
from recbole_dpr.errors import DPRError, some_of

# Options that name columns of the .inter file, and the types that these must have there.
TYPES = {
    "USER_ID_FIELD": "token",
    "ITEM_ID_FIELD": "token",
    "TIME_FIELD": "float",
    "PROMPT_ID_FIELD": "token",
}
# Of the steps of all histories: where fewer go back in time (0.1 % of ml-100k), nobody need act on it.
BACKWARDS = 0.01
# Where fewer take no time (51 % of ml-100k, whose users rate films by the page), the order of most is known.
LEVEL = 0.9
# What pandas takes for an empty cell.
MISSING = frozenset(
    ("#N/A", "#NA", "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null")
)
QUOTES = "take away double quotes at the beginning of its cells"


class CheckedDataset(SequentialDataset):
    """RecBole's sequential data set, which does not read past what is missing, malformed or out of order.

    RecBole 1.2.1 raises what pandas raises, or fills gaps in silence; here a `DPRError` names the file and
    the column, and what is left out or cannot be told apart is logged with its count.
    """

    inter_feat: Any

    def _download(self) -> None:
        try:
            with process_group_of_one():
                super()._download()
        except OSError as error:
            raise DPRError(
                f"data set {self.dataset_name} is not in {self.dataset_path} and could not be "
                f"downloaded ({error}); put its atomic files there or set --data_path"
            ) from error

    def _load_data(self, token: str, dataset_path: str) -> None:
        if not os.path.exists(dataset_path):
            self._download()
        interactions, items = (Path(dataset_path) / f"{token}.{end}" for end in ("inter", "item"))
        if not interactions.is_file():
            raise DPRError(
                f"there is no file {interactions}; a data set needs its interactions there"
            )
        self._check_columns(interactions, TYPES)
        if items.is_file():
            self._check_columns(items, ["ITEM_ID_FIELD"])
            self._check_shared(interactions, items)
        super()._load_data(token, dataset_path)

    def _check_columns(self, path: Path, options: Iterable[str]) -> None:
        """Name the file and the column that is missing, where RecBole raises a bare KeyError."""
        types = AtomicFile(path, self.config).columns
        for option in options:
            name, wanted = self.config[option], TYPES[option]
            if name not in types and option != "PROMPT_ID_FIELD":
                raise DPRError(
                    f"{path} has no column {name!r} ({option}); it has {[*types]}: set "
                    f"--{option}=..., or rename the column"
                )
            if types.get(name, wanted) != wanted:
                raise DPRError(
                    f"{path}: {name}:{types[name]} ({option}) must be {name}:{wanted}"
                    + "; times are numbers that grow" * (option == "TIME_FIELD")
                )

    def _check_shared(self, interactions: Path, items: Path) -> None:
        """Refuse a column that is read from both files: RecBole lets the item's stand in for the interaction's."""
        of_items = self._read_columns(AtomicFile(items, self.config), FeatureSource.ITEM)
        of_both = [
            name
            for name in self._read_columns(
                AtomicFile(interactions, self.config), FeatureSource.INTERACTION
            )
            if name in of_items and name != self.config["ITEM_ID_FIELD"]
        ]
        if of_both:
            raise DPRError(
                f"{interactions} and {items.name} both have {some_of(of_both)}, of which only one would be read: rename "
                "one, or leave it out of load_col"
            )

    def _load_feat(self, filepath: str, source: Any) -> Any:
        """As RecBole's, which shifts the cells of a row that has one too many, and leaves missing ones empty.

        It also reads cells that begin with a double quote as quoted, over the ends of lines.
        """
        if self._get_load_and_unload_col(source)[0] == set():  # RecBole: load nothing
            return None
        file = AtomicFile(filepath, self.config)
        lines = sum(1 for _ in file.rows())
        if not lines:
            raise DPRError(f"{filepath} holds no rows, its columns alone")
        try:
            table = super()._load_feat(filepath, source)
        except pd.errors.ParserError as error:
            raise DPRError(f"{filepath} cannot be read ({error}): {QUOTES}") from error
        except ValueError as error:  # words in a column of numbers
            place = self._no_number(file, source) or f": {error}"
            raise DPRError(f"{filepath} cannot be read{place}") from error
        if table is not None and len(table) < lines:
            raise DPRError(f"{filepath}: {lines} lines became {len(table)} rows; {QUOTES}")
        if table is not None and source == FeatureSource.ITEM and self.iid_field in table:
            self._say_of_twins(filepath, table[self.iid_field])
            self._say_of_missing(filepath, file)
        return table

    def _read_columns(self, file: AtomicFile, source: Any) -> dict[str, str]:
        """The columns of a file that are read, with their types."""
        load, unload = self._get_load_and_unload_col(source)
        return {
            name: kind
            for name, kind in file.columns.items()
            if (load is None or name in load) and name not in (unload or ())
        }

    def _no_number(self, file: AtomicFile, source: Any) -> str:
        """The first cell that is no number in a column of numbers that is read."""
        for name, kind in self._read_columns(file, source).items():
            for number, cell in file.cells(name) if kind == "float" else ():
                if not _is_number(cell.strip()):
                    times = "; times are numbers that grow" * (name == self.time_field)
                    return f", line {number}: {name} holds {cell!r}, which is no number{times}"
        return ""

    def _say_of_missing(self, path: str, file: AtomicFile) -> None:
        for name in self.config["prompt_fields"]:
            if name in file.columns:
                cells = (cell.strip() for _, cell in file.cells(name))
                found = [cell for cell in cells if cell in MISSING]
                if found:
                    self.logger.warning(
                        f"{len(found)} cells of column {name!r} of {path} hold a word that stands for an empty cell "
                        f"(such as {found[0]!r}): these items have no value there; if it is one, write it otherwise"
                    )

    def _say_of_twins(self, path: str, items: pd.Series) -> None:
        again = items[items.duplicated()]
        if len(again):
            self.logger.warning(
                f"{len(again)} rows of {path} are of an item that an earlier row has (such as {again.iloc[0]!r}), "
                "and are not read"
            )

    def _load_inter_feat(self, token: str, dataset_path: str) -> None:
        """As RecBole's, which gives an interaction without a time the mean of all times."""
        super()._load_inter_feat(token, dataset_path)
        if self.time_field not in self.inter_feat:
            raise DPRError(
                f"histories need {self.time_field} (TIME_FIELD); take it out of unload_col"
            )
        without = int(self.inter_feat[self.time_field].isna().sum())
        if without:
            raise DPRError(
                f"{without} of {len(self.inter_feat)} interactions in {token}.inter have no "
                f"{self.time_field} (TIME_FIELD), and so no place in a history: fill it in or leave them out"
            )

    def _filter_nan_user_or_item(self) -> None:
        """As RecBole's, which takes out other rows where one lacks its user and a later one its item."""
        without = self.inter_feat[[self.uid_field, self.iid_field]].isna().any(axis=1)
        if without.any():
            path = Path(self.dataset_path) / f"{self.dataset_name}.inter"
            numbers = [number for number, _ in AtomicFile(path, self.config).rows()]
            lines = some_of([str(numbers[row]) for row in np.flatnonzero(without)])
            self.logger.warning(
                f"{int(without.sum())} interactions without a user or an item are left out (lines {lines} of "
                f"{path.name}; {', '.join(sorted(MISSING))} count as empty)"
            )
            self.inter_feat = self.inter_feat[~without].reset_index(drop=True)
        super()._filter_nan_user_or_item()

    def _filter_inter_by_user_or_item(self) -> None:
        before = self.inter_feat[[self.uid_field, self.iid_field]].copy()
        super()._filter_inter_by_user_or_item()
        if len(self.inter_feat) < len(before):
            user, item = before.loc[before.index.difference(self.inter_feat.index)[0]]
            self.logger.warning(
                f"{len(before) - len(self.inter_feat)} of {len(before)} interactions are left out, because their item (or "
                f"user) has no row in {self.dataset_name}.item (or .user), such as item {item!r} (user {user!r}); "
                "--filter_inter_by_user_or_item=False keeps them"
            )

    def _normalize(self) -> None:
        super()._normalize()
        self._say_of_ties()  # here, times are numbers as they are sorted, but in float64

    def _say_of_ties(self) -> None:
        """Say how often histories stand still, or go back in time, since RecBole sorts times in float32.

        `Interaction.sort` of RecBole 1.2.1 is stable: a file in the order of time stays in it.
        """
        users, times = (
            self.inter_feat[name].to_numpy() for name in (self.uid_field, self.time_field)
        )
        order = np.lexsort((times.astype(np.float32), users))
        together = np.diff(users[order]) == 0
        passed = np.diff(times[order])
        back = together & (passed < 0)
        level = (together & (passed == 0)).sum() / max(1, together.sum())
        if level >= LEVEL:
            self.logger.warning(
                f"{level:.0%} of the steps from one interaction of a user to the next take no time: what comes last, "
                f"and so what is tested, goes by the order of {self.dataset_name}.inter"
            )
        if back.any():
            many = back.sum() >= BACKWARDS * together.sum()
            say = self.logger.warning if many else self.logger.info
            say(
                f"{back.sum()} of {together.sum()} steps from one interaction of a user to the next go back "
                "in time: RecBole compares times in 32 bits, which unix times less than one or two minutes "
                "apart may share, and leaves these in the order of the file; for the true order, sort "
                f"{self.dataset_name}.inter by {self.time_field}"
            )


def _is_number(cell: str) -> bool:
    try:
        float(cell or 0)
    except ValueError:
        return cell in MISSING
    return True
