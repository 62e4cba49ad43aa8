"""What the user gave, and where: config files, `config_dict`, command line."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from recbole_dpr.errors import DPRError
from recbole_dpr.files import plain, read_yaml
from recbole_dpr.options import (
    COMMAND_LINE,
    Option,
    literal,
    read_command_line,
    reject_unknown,
    warn_unused,
)

CONFIG_DICT = "config_dict"

# Options whose value is a path: a leading ~ is the user's home, also behind a `=`.
PATHS = ("data_path", "checkpoint_dir", "backbone_checkpoint", "checkpoint")

# Options that are given in part: what is left out keeps its default.
MERGED = ("eval_args", "task_mix")

# Lists of names; one name alone need not be a list.
NAME_LISTS = ("prompt_fields", "item_text_fields", "selected_features", "compare")


class Layers:
    """The user's layers, weakest first, as they were given.

    What a text means depends on the options of the model, and the model may itself stand in one of
    the layers; so the texts wait here until `checked` is told the options.
    """

    def __init__(self) -> None:
        self._layers: list[tuple[str, dict[str, Any]]] = []

    def add(self, source: str, options: Mapping[str, Any]) -> None:
        """Put a layer on top; `source` is how error messages call it."""
        if not isinstance(options, Mapping):
            raise DPRError(f"{source} takes a dict of options, not {options!r}")
        self._layers.append((source, copy.deepcopy(plain(dict(options)))))

    def add_files(self, files: str | Path | Iterable[str | Path] | None) -> None:
        """Put yaml files on top, the last one being the strongest."""
        for file in [files] if isinstance(files, (str, Path)) else files or ():
            self.add(f"config file {file}", read_yaml(file))

    def add_command_line(self, arguments: Iterable[str]) -> None:
        """Put `--option=value` texts on top."""
        self.add(COMMAND_LINE, read_command_line(arguments))

    def names(self, without: str) -> set[str]:
        """Options of all layers but one source."""
        return {name for source, options in self._layers if source != without for name in options}

    def raw(self) -> dict[str, Any]:
        """All layers in one, unchecked, texts as they are."""
        merged: dict[str, Any] = {}
        for _, options in self._layers:
            merged.update(options)
        return merged

    def checked(
        self,
        options: Mapping[str, Option],
        declared: Iterable[str],
        defaults: Mapping[str, Any],
        model: str,
    ) -> dict[str, Any]:
        """All layers in one: texts read, names, types and ranges checked.

        Parameters
        ----------
        options
            What the property files of this run declare.
        declared
            Further names, which the class of a user's own model declares.
        defaults
            The values below these layers.
        model
            The model's name, for messages.

        Raises
        ------
        DPRError
            Naming the source and the option.
        """
        known = {*options, *declared}
        merged: dict[str, Any] = {}
        for source, layer in self._layers:
            reject_unknown(layer.keys() - known, source, known)
            for name, value in layer.items():
                option = options.get(name)
                if isinstance(value, str) and source in (COMMAND_LINE, CONFIG_DICT):
                    value = option.from_text(value) if option else literal(value)
                if option and name not in ("model", "dataset"):  # these two may be classes
                    value = option.check(value, source)
                if name in MERGED:
                    value = {**merged.get(name, defaults[name]), **value}
                if name in NAME_LISTS and isinstance(value, str):
                    value = [value]
                if name in PATHS and value is not None:
                    value = os.path.expanduser(value)
                merged[name] = value
            warn_unused(layer.keys() - known, source, model)
        return merged
