"""What an option is called, what type it has, and where its default lives.

The property files are the only source. A line such as

    stage1_epochs: 60      # (int or None, >= 0) Epochs at most; 0 skips the stage.

gives the name, the default, and in brackets the types and the range that a user's value is checked
against. RecBole's files are written the same way, without ranges. This module imports neither
RecBole nor torch: `--help` prints from it and should be quick.
"""

from __future__ import annotations

import ast
import logging
import math
import operator
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from recbole_dpr.errors import DPRError, did_you_mean
from recbole_dpr.files import YamlLoader, properties_dir, read_yaml, recbole_dir

# Flags of RecBole's run_recbole.py that are not options of its property files.
SCRIPT_FLAGS = ("nproc", "ip", "port", "world_size", "group_offset")

# RecBole's data set reads it, but none of its property files has it.
UNLISTED = ("encoding",)

# Ranges of the RecBole options whose wrong values would fail late or, worse, not at all.
RECBOLE_RANGES = {
    "epochs": (">= 0",),
    "learning_rate": ("> 0",),
    "stopping_step": (">= 0",),
    "train_batch_size": (">= 1",),
    "eval_batch_size": (">= 1",),
    "eval_step": (">= 0",),
    "weight_decay": (">= 0",),
    "worker": (">= 0",),
    "seed": (">= 0", "< 4294967296"),
    "MAX_ITEM_LIST_LENGTH": (">= 1",),
    "metric_decimal_place": (">= 0",),
}

WORDS = {
    "int": "an int (whole number)",
    "float": "a float (number)",
    "bool": "a bool (True or False)",
    "str": "a str (text)",
    "list": "a list, such as [a, b]",
    "dict": "a dict, such as {a: 1}",
    "None": "None",
}
COMPARISONS = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt}
COMMAND_LINE = "command line"
NOTHING = ("", "~", "none", "null")
DECLARATION = re.compile(r"([\w-]+):(?:[^#\n]*#\s*\(([^)]*)\)\s*(.*))?")


@dataclass(frozen=True)
class Option:
    """One option, as the property files declare it.

    Attributes
    ----------
    types
        Words of `WORDS`; empty when the files say nothing that could be checked.
    bounds
        Such as `">= 0"` or `"one of a/b"`; None as a value is exempt.
    help
        The rest of the comment.
    ours
        Declared in a file of this package, whose comments are exact. RecBole's are checked for
        numbers and truth values only.
    """

    name: str
    default: Any = None
    types: tuple[str, ...] = ()
    bounds: tuple[str, ...] = ()
    help: str = ""
    ours: bool = False

    @property
    def wanted(self) -> str:
        """The values that are right, in words."""
        if self.bounds and self.bounds[0].startswith("one of "):
            return self.bounds[0].replace("/", ", ")
        words = [WORDS[word] for word in self.types]
        if self.bounds:
            words[0] += " " + " and ".join(self.bounds)
        return " or ".join(words)

    def from_text(self, text: str) -> Any:
        """Read the text that a user typed, without evaluating it.

        An option that takes text keeps it letter by letter; one that takes something else as well
        is read as a Python or yaml literal where that gives such a value.
        """
        if set(self.types) <= {"str", "None"} and self.types:
            said = text.strip() or text  # a blank may be meant: RecBole's separators are
            return None if self._nullable and said.lower() in NOTHING else text
        value = literal(text)
        if "str" in self.types and not self._is_any(value, set(self.types) - {"str"}):
            return text
        return value

    def check(self, value: Any, source: str) -> Any:
        """Return `value` if it is of the right type and within range.

        Raises
        ------
        DPRError
            Naming the source (command line, config_dict or file), the option and what it takes.
        """
        strict = self.ours or set(self.types) <= {"int", "float", "bool", "None"}
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if "str" in self.types and number and not self._is_any(value, set(self.types) - {"str"}):
            value = str(value)  # `gpu_id: 0` in a yaml file
        right = not (strict and self.types) or self._is_any(value, set(self.types))
        if value is None and self._nullable:
            return None
        if not right or not all(_within(value, bound) for bound in self.bounds):
            raise DPRError(f"{source}: option {self.name!r} takes {self.wanted}, not {value!r}")
        return value

    @property
    def _nullable(self) -> bool:
        text_or_more = bool(set(self.types) & {"str", "list", "dict"})
        return self.default is None or "None" in self.types or (text_or_more and not self.ours)

    @staticmethod
    def _is_any(value: Any, types: set[str]) -> bool:
        kind = type(value).__name__ if value is not None else "None"
        return kind in types or (kind == "int" and "float" in types)


def _within(value: Any, bound: str) -> bool:
    if bound.startswith("one of "):
        return value in bound.removeprefix("one of ").split("/")
    sign, limit = bound.split()
    return COMPARISONS[sign](value, float(limit))  # False for nan, whatever the sign


def literal(text: str) -> Any:
    """Read a number, a truth value, None, a list or a dict; anything else is the text itself.

    Takes the place of RecBole's `eval` of command-line texts: nothing is ever run.
    """
    lowered = text.strip().lower()
    if lowered in ("true", "false", "none", "null", "~"):
        return {"true": True, "false": False}.get(lowered)
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        if text.lstrip()[:1] not in ("[", "{"):
            return text
        try:  # lists and dicts whose words carry no quotes: [Recall,NDCG], {none:1}
            value = yaml.load(re.sub(r":(?=\S)", ": ", text), Loader=YamlLoader)
        except (yaml.YAMLError, RecursionError, ValueError):
            return text
    if isinstance(value, tuple):
        return list(value)
    return value if isinstance(value, (str, int, float, list, dict)) else text


@cache
def read_options(path: Path) -> dict[str, Option]:
    """The options that one property file declares, with their defaults."""
    defaults = read_yaml(path)
    ours = properties_dir() in path.parents
    options = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        declared = DECLARATION.match(line)
        if not declared or declared[1] not in defaults:
            continue
        types, *bounds = (declared[2] or "").split(",")
        words = ["list" if w.startswith("list of ") else w for w in types.strip().split(" or ")]
        options[declared[1]] = Option(
            name=declared[1],
            default=defaults[declared[1]],
            types=tuple(words) if all(word in WORDS for word in words) else (),
            bounds=tuple(bound.strip() for bound in bounds if ours),
            help=declared[3] or "",
            ours=ours,
        )
    return options


def layered_options(files: Iterable[Path]) -> dict[str, Option]:
    """The options of several property files, weakest file first.

    A file that gives a new default without a comment keeps the declaration that it overrides.
    """
    options: dict[str, Option] = {}
    for file in files:
        if not file.is_file():
            continue
        for name, option in read_options(file).items():
            if name in options and not option.types:
                option = replace(options[name], default=option.default)
            bounds = option.bounds or RECBOLE_RANGES.get(name, ())
            options[name] = _settled(replace(option, bounds=bounds))
    return options


def _settled(option: Option) -> Option:
    """Go by the default where a comment of RecBole's is missing or says something else."""
    if option.default is None or Option._is_any(option.default, set(option.types)):
        return option
    implied: dict[type, tuple[str, ...]] = {bool: ("bool",), int: ("float",), float: ("float",)}
    implied[str] = ("str",)
    return replace(option, types=implied.get(type(option.default), ()))


@cache
def known_names() -> frozenset[str]:
    """Every option name of RecBole's property files and ours, and the flags of the run script."""
    names = {*SCRIPT_FLAGS, *UNLISTED}
    for folder in (recbole_dir() / "properties", properties_dir()):
        for file in folder.rglob("*.yaml"):
            # Lists of addresses and patterns: their keys are no options.
            if file.stem not in ("url", "kg_url") and file.parent.name != "phrasebook":
                names.update(
                    re.findall(r"^([\w-]+):", file.read_text(encoding="utf-8"), re.MULTILINE)
                )
    return frozenset(names)


def reject_unknown(names: Iterable[str], source: str, likely: Iterable[str]) -> None:
    """Raise a DPRError for the first name that no property file knows.

    Parameters
    ----------
    names
        The options that were given.
    source
        Where: "command line", "config_dict" or "config file <path>".
    likely
        Where to look for a suggestion first: the options of this run.
    """
    for name in names:
        if name not in known_names():
            hint = did_you_mean(name, likely) or did_you_mean(name, known_names())
            raise DPRError(f"{source}: unknown option {name!r}{hint}")


def read_command_line(arguments: Iterable[str]) -> dict[str, str]:
    """Split `--option=value` texts; the value may hold further `=`.

    Raises
    ------
    DPRError
        If an argument has another form, or an option is given twice with different values.
    """
    given: dict[str, str] = {}
    for argument in arguments:
        name, equals, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or not name or not equals:
            raise DPRError(f"{COMMAND_LINE}: {argument!r} is not of the form --option=value")
        if given.setdefault(name, value) != value:
            raise DPRError(f"{COMMAND_LINE}: option {name!r} is given twice")
    return given


def warn_unused(names: Iterable[str], source: str, model: str) -> None:
    """Say that a model does not read some options: right names, but of other RecBole models."""
    for name in sorted({*names} - {*SCRIPT_FLAGS, *UNLISTED}):
        logging.getLogger().warning(
            "%s: %s does not read option %r, which belongs to other RecBole models",
            source,
            model,
            name,
        )


def reported_k(topk: Collection[int]) -> int:
    """The k of the headline figures: 10 where option `topk` has it, else the largest."""
    return 10 if 10 in topk else max(topk)


def is_number(value: Any) -> bool:
    """True for a finite int or float, and not for a truth value."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
