"""A run's log: on the console as RecBole's, and in the run folder."""

from __future__ import annotations

import logging
from pathlib import Path

import colorlog
from recbole.utils.logger import RemoveColorFilter, log_colors_config

DATE = "%d %b %H:%M"
OF_A_RUN = "recbole_dpr run"


def log_to(run_dir: Path, state: str | None) -> logging.Logger:
    """Log to the console and to ``<run folder>/<name of the run folder>.log``.

    RecBole's trainer names its tensorboard folder (``log_tensorboard/...``) after that file. Handlers
    of an earlier run in the same process are closed.

    Parameters
    ----------
    run_dir : Path
    state : str or None
        RecBole's option: "info", "debug", "warning", "error" or "critical".
    """
    level = getattr(logging, (state or "info").upper(), logging.INFO)
    logger = logging.getLogger()
    for handler in list(logger.handlers):
        if handler.get_name() == OF_A_RUN:
            logger.removeHandler(handler)
            handler.close()
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
