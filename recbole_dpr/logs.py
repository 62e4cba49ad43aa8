"""A run's log: on the console as RecBole's, and in the run folder."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from logging.handlers import MemoryHandler
from pathlib import Path

import colorlog
from recbole.utils.logger import RemoveColorFilter, log_colors_config

DATE = "%d %b %H:%M"

LogTo = Callable[[Path, str | None], logging.Logger]


@contextmanager
def run_log() -> Iterator[LogTo]:
    """Log to the console, and to the run folder as soon as there is one, what is said inside.

    Yields a function to call with the run folder and RecBole's option ``state`` ("info", "debug", "warning",
    "error" or "critical"). It gives the root logger, whose file is ``<run folder>/<name of the run folder>.log``:
    RecBole's trainer names its tensorboard folder (``log_tensorboard/...``) after that file.

    What is said before is kept for it. Where it is never called, warnings go where they always do. The root
    logger lets information through meanwhile, to handlers of the caller's, too.
    """
    logger = logging.getLogger()
    level = logger.level
    keeper = MemoryHandler(sys.maxsize, flushLevel=sys.maxsize, flushOnClose=False)
    ours: list[logging.Handler] = []

    def log_to(run_dir: Path, state: str | None) -> logging.Logger:
        ours.extend(_handlers(run_dir))
        logger.setLevel(getattr(logging, (state or "info").upper(), logging.INFO))
        for handler in ours:
            handler.setLevel(logger.level)
            logger.addHandler(handler)
        logger.removeHandler(keeper)
        _repeat(keeper.buffer, ours)
        return logger

    logger.addHandler(keeper)
    logger.setLevel(min(level, logging.INFO))
    try:
        yield log_to
    finally:
        logger.removeHandler(keeper)
        # A handler that stood there before has heard them already.
        if not logger.handlers and logging.lastResort:
            _repeat(keeper.buffer, [logging.lastResort])
        for handler in ours:
            logger.removeHandler(handler)
            handler.close()
        logger.setLevel(level)


def _handlers(run_dir: Path) -> list[logging.Handler]:
    console = logging.StreamHandler()
    console.setFormatter(
        colorlog.ColoredFormatter(
            "%(log_color)s%(asctime)-15s %(levelname)s  %(message)s",
            DATE,
            log_colors=log_colors_config,
        )
    )
    file = logging.FileHandler(run_dir / f"{run_dir.name}.log", encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)-15s %(levelname)s  %(message)s", DATE))
    # The filter changes the record itself, so the file comes after the console.
    file.addFilter(RemoveColorFilter())
    return [console, file]


def _repeat(records: Sequence[logging.LogRecord], handlers: Sequence[logging.Handler]) -> None:
    for handler in handlers:
        for record in records:
            if record.levelno >= handler.level:
                handler.handle(record)
