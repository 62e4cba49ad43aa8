"""Search for good options with RecBole's own `HyperTuning`."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable, Sequence
from logging import getLogger
from pathlib import Path
from typing import Any

import yaml

from recbole_dpr import compat
from recbole_dpr.errors import DPRError, did_you_mean
from recbole_dpr.files import YamlLoader, replacing
from recbole_dpr.options import is_number, reject_unknown

# How many numbers each kind of range takes; a choice takes any list.
RANGES = {"uniform": 2, "quniform": 3, "loguniform": 2}
KINDS = ("choice", *RANGES)


def read_space(path: str | Path) -> dict[str, dict[str, list[Any]]]:
    """Read RecBole's file of ranges: lines such as ``stage3_learning_rate choice [0.001,0.003]``.

    RecBole passes the choices to ``eval`` and leaves out lines that it does not understand; here
    they are plain yaml, and such a line is an error.

    Returns
    -------
    dict
        ``{kind: {option: values}}``, as `HyperTuning` takes it for ``params_dict``.

    Raises
    ------
    DPRError
        Naming the file and the line.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DPRError(f"cannot read the ranges {path} ({error})") from error
    space: dict[str, dict[str, list[Any]]] = {}
    seen: set[str] = set()
    for number, line in enumerate(lines, start=1):
        words = line.split("#")[0].split(maxsplit=2)
        if not words:
            continue
        where = f"{path}, line {number}"
        if len(words) < 3:
            raise DPRError(f"{where}: write <option> <kind> <values>, not {line.strip()!r}")
        name, kind, text = words
        if kind not in KINDS:
            raise DPRError(f"{where}: unknown kind {kind!r}{did_you_mean(kind, KINDS)}; {KINDS}")
        if name in seen:
            raise DPRError(f"{where}: {name!r} is given twice")
        seen.add(name)
        space.setdefault(kind, {})[name] = _values(kind, text, where)
    if not space:
        raise DPRError(f"{path} names no option to search over")
    for searched in space.values():
        reject_unknown(searched, str(path), ())
    return space


def _values(kind: str, text: str, where: str) -> list[Any]:
    try:
        values = yaml.load(text if text.startswith("[") else f"[{text}]", Loader=YamlLoader)
    except yaml.YAMLError:
        values = None
    if not isinstance(values, list) or not values:
        raise DPRError(f"{where}: {kind} takes a list of values, not {text!r}")
    if kind in RANGES:
        if len(values) != RANGES[kind] or not all(is_number(value) for value in values):
            raise DPRError(f"{where}: {kind} takes {RANGES[kind]} numbers, not {text!r}")
        if values[0] > values[1]:
            raise DPRError(f"{where}: {values[0]} is above {values[1]}")
    return values


def tune(
    objective: Callable[..., dict[str, Any]],
    params_file: str | Path,
    config_files: Sequence[str] | None = None,
    algo: str = "exhaustive",
    max_evals: int = 100,
    early_stop: int = 10,
    output_file: str | Path | None = None,
) -> Any:
    """Run the search; returns RecBole's `HyperTuning` with ``best_params`` and ``params2result``.

    A run that cannot be made (a `hidden_size` that the heads do not divide) counts as failed, and the search
    goes on.

    Parameters
    ----------
    objective : callable
        `recbole_dpr.objective_function`, or one that calls it.
    algo : str
        "exhaustive" (choices only), "random" or "bayes".
    max_evals, early_stop : int
        Runs at most, and runs without a better one before it ends; "exhaustive" tries all.
    output_file : str or Path, optional
        Where RecBole's list of results goes, written anew after every run.

    Raises
    ------
    DPRError
        If hyperopt is not there, ranges are to be searched exhaustively, the file cannot be written, or no
        run could be made.
    """
    space = read_space(params_file)
    compat.bridge_numpy()
    try:
        import hyperopt
    except ImportError:
        raise DPRError("HyperTuning needs hyperopt: pip install 'recbole_dpr[hyper]'") from None
    from recbole.trainer import HyperTuning

    search: Any = algo
    if algo == "exhaustive":
        ranges = [name for kind in RANGES for name in space.get(kind, {})]
        if ranges:
            raise DPRError(
                f"algo=exhaustive tries choices one by one, but {', '.join(ranges)} has endless "
                "values; take --algo=random or --algo=bayes"
            )
        lengths = {name: len(values) for name, values in space["choice"].items()}
        max_evals = early_stop = math.prod(lengths.values())
        search = every_combination(lengths)

    class Tuning(HyperTuning):  # its base is there only where hyperopt is
        def trial(self, params: dict[str, Any]) -> dict[str, Any]:
            # What hyperopt calls quantised are floats; 2.0 is no number of epochs.
            whole = {n: int(params[n]) for n in space.get("quniform", ()) if params[n] % 1 == 0}
            try:
                outcome = super().trial({**params, **whole})
            except DPRError as error:
                getLogger().warning("a run that cannot be made counts as failed: %s", error)
                # Worse than any, and a number: hyperopt compares later runs with it.
                return {"loss": sys.float_info.max, "status": hyperopt.STATUS_FAIL}
            self.export_result(output_file)
            return outcome

        def export_result(self, output_file: str | Path | None = None) -> None:
            if output_file is None:
                return
            try:
                with replacing(output_file) as temporary:
                    super().export_result(temporary)
            except OSError as error:
                raise DPRError(f"cannot write {output_file}: {error.strerror}") from error

    tuning = Tuning(
        objective,
        params_dict=space,
        fixed_config_file_list=list(config_files or []) or None,
        algo=search,
        max_evals=max_evals,
        early_stop=early_stop,
    )
    tuning.export_result(output_file)  # better a failure now than after the first run
    try:
        tuning.run()
    except hyperopt.exceptions.AllTrialsFailed:
        raise DPRError("no run of the search could be made; the warnings say why") from None
    return tuning


def every_combination(lengths: dict[str, int]) -> Callable[..., list[Any]]:
    """A hyperopt algorithm that tries all choices in turn.

    In place of `recbole.trainer.hyper_tuning.exhaustive_search` (1.2.1), which draws until nothing is
    new, with a generator that hyperopt has not taken since 0.2.6.

    Parameters
    ----------
    lengths : dict
        How many values each option has.
    """
    names = list(lengths)
    combinations = list(itertools.product(*(range(lengths[name]) for name in names)))

    def suggest(new_ids: list[int], domain: Any, trials: Any, seed: int) -> list[Any]:
        from hyperopt.base import miscs_update_idxs_vals

        documents: list[Any] = []
        for new_id, chosen in zip(new_ids, combinations[len(trials.trials) :], strict=False):
            misc = {"tid": new_id, "cmd": domain.cmd, "workdir": domain.workdir}
            values = {name: [value] for name, value in zip(names, chosen, strict=True)}
            miscs_update_idxs_vals([misc], {name: [new_id] for name in names}, values)
            documents += trials.new_trial_docs([new_id], [None], [domain.new_result()], [misc])
        return documents

    return suggest
