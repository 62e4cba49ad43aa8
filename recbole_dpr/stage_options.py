"""What a training stage goes by, and which of RecBole's options that leaves without effect."""

from __future__ import annotations

from dataclasses import dataclass
from logging import getLogger
from typing import Any

# What a stage goes by where its own option (`stage1_epochs`) is None.
FALLBACKS = {
    "epochs": "epochs",
    "learning_rate": "learning_rate",
    "patience": "stopping_step",
    "valid_metric": "valid_metric",
    "batch_size": "train_batch_size",
}

# Options of RecBole's that this package does without: their defaults, and what is done.
UNUSED = {
    "eval_step": (1, "every epoch is validated"),
    "metric_decimal_place": (4, "figures keep eight decimals"),
    "save_dataset": (False, "data sets are read anew"),
    "save_dataloaders": (False, "data sets are read anew"),
    "worker": (0, "batches are made in the main process"),
}


@dataclass(frozen=True)
class StageOptions:
    """What one training stage goes by, RecBole's fallbacks and limits applied."""

    epochs: int
    learning_rate: float
    patience: int
    valid_metric: str
    batch_size: int
    weight_decay: float
    schedule: str
    averaging: float
    prefixes: int | None

    @classmethod
    def of(cls, options: Any, number: int) -> StageOptions:
        """The options of stage 1, 2 or 3: the one place for their fallbacks and limits.

        None falls back to RecBole's option; RecBole's `epochs` limits every stage.
        """
        values = {}
        for name, fallback in FALLBACKS.items():
            own = options[f"stage{number}_{name}"]
            values[name] = options[fallback] if own is None else own
        values["epochs"] = min(values["epochs"], options["epochs"])
        for name in ("schedule", "averaging", "prefixes"):
            values[name] = options[f"stage{number}_{name}"]  # stage 2 sees no prefixes: None
        return cls(**values, weight_decay=options["weight_decay"])


def warn_overruled(given: dict[str, Any], final: dict[str, Any], promptable: bool) -> None:
    """Say where an option of RecBole's was given that does nothing, or that the stages have one of their own for."""
    for name, (default, instead) in UNUSED.items():
        if given.get(name, default) != default:
            getLogger().warning("%s=%s does nothing: %s", name, given[name], instead)
    for name, fallback in FALLBACKS.items():
        own = [f"stage{n}_{name}" for n in ((1, 2, 3) if promptable else (1,))]
        kept = [f"{option}={final[option]}" for option in own if final[option] is not None]
        # `epochs` limits every stage; given beside the stages' own, both are meant.
        if fallback == "epochs" or fallback not in given or given.keys() & {*own} or not kept:
            continue
        prefixes = ", except for batches of prefixes" if fallback == "train_batch_size" else ""
        getLogger().warning(
            "%s=%s is overruled by %s%s: set these",
            fallback,
            given[fallback],
            ", ".join(kept),
            prefixes,
        )
