"""What the command lines of this package share: wrong calls are a `DPRError`, not an exit."""

from __future__ import annotations

import argparse
import textwrap
from typing import Any, NoReturn

from recbole_dpr.errors import DPRError


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise DPRError(f"{message}; see --help")


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps DPR-SASRec in one piece."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(text, width, break_on_hyphens=False)


class Once(argparse.Action):
    """A flag that is given twice is an error: argparse would keep the last."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        if getattr(namespace, self.dest) is not None:
            parser.error(f"--{self.dest} is given twice")
        setattr(namespace, self.dest, values)
