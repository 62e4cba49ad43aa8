"""A run's log: on the console as RecBole's, and in the run folder."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import MemoryHandler
from pathlib import Path

import colorlog
from recbole.utils.logger import RemoveColorFilter, log_colors_config

DATE = "%d %b %H:%M"
OF_A_RUN = "recbole_dpr run"


def log_to(run_dir: Path, state: str | None) -> logging.Logger:
    """Log to the console and to ``<run folder>/<name of the run folder>.log``.

    To be called inside `held`. RecBole's trainer names its tensorboard folder (``log_tensorboard/...``) after
    that file.

    Parameters
    ----------
    run_dir : Path
    state : str or None
        RecBole's option: "info", "debug", "warning", "error" or "critical".
    """
    level = getattr(logging, (state or "info").upper(), logging.INFO)
    logger = logging.getLogger()
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
    handlers: tuple[logging.Handler, ...] = (console, file)
    for handler in handlers:
        handler.setLevel(level)
        handler.set_name(OF_A_RUN)
        logger.addHandler(handler)
    logger.setLevel(level)
    return logger


@contextmanager
def held() -> Iterator[None]:
    """Keep what is logged inside for the log that `log_to` begins there: a run has its folder after its data.

    Where that does not come to be, warnings go where they always do. The root logger lets information through
    meanwhile, to handlers of the caller's, too. Handlers of an earlier run in the same process are closed.
    """
    logger = logging.getLogger()
    for earlier in _of_a_run():
        logger.removeHandler(earlier)
        earlier.close()
    keeper = MemoryHandler(sys.maxsize, flushLevel=sys.maxsize, flushOnClose=False)
    level = logger.level
    logger.addHandler(keeper)
    logger.setLevel(min(level, logging.INFO))
    try:
        yield
    except BaseException:
        logger.setLevel(level)
        raise
    finally:
        logger.removeHandler(keeper)
        # A handler that stood there before has heard them already.
        others = [] if logger.handlers else [logging.lastResort]
        for handler in _of_a_run() or others:
            for record in keeper.buffer:
                if handler is not None and record.levelno >= handler.level:
                    handler.handle(record)


def _of_a_run() -> list[logging.Handler]:
    return [h for h in logging.getLogger().handlers if h.get_name() == OF_A_RUN]
