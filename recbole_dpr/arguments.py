"""What the command lines of this package share: flags, and how a command ends."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Callable
from typing import Any, NoReturn

from recbole_dpr.errors import DPRError


class Parser(argparse.ArgumentParser):
    """A wrong call is a `DPRError`, not an exit."""

    def error(self, message: str) -> NoReturn:
        raise DPRError(f"{message}; see --help")


def exit_status(command: Callable[[], int | None]) -> int:
    """Run a command; returns its exit status.

    That is what `command` returns (None is 0), 2 after a `DPRError`, whose message goes to standard
    error, and 130 after Ctrl-C, as shells have it.
    """
    try:
        return command() or 0
    except DPRError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


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
