"""What a training says of its stages and epochs: in the log, to tensorboard and to Weights & Biases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recbole.utils import set_color

from recbole_dpr.training.stages import Stage

GAIN = 0.02  # of an epoch at the end of a stage, above which more of them may be better
PROMPTED = ("ndcg", "satisfied", "violation")  # shown of a prompted validation, where measured


@dataclass(frozen=True)
class EpochLog:
    """The three places that RecBole's trainer writes to.

    Parameters
    ----------
    logger, tensorboard, wandb
        As the trainer has them.
    k : int
        Of the figures of a prompted validation.
    """

    logger: Any
    tensorboard: Any
    wandb: Any
    k: int

    def begin(self, stage: Stage) -> None:
        """Say what a stage is about to train."""
        weights = sum(parameter.numel() for parameter in stage.parameters)
        self.logger.info(
            set_color(f"stage {stage.number}: {stage.title}", "pink")
            + f" ({weights:,} weights, {len(stage.loader)} steps an epoch, at most "
            f"{stage.options.epochs} epochs)"
        )

    def epoch(self, stage: Stage, row: Mapping[str, Any], metric: str, verbose: bool) -> None:
        """Report an epoch, a row of the trainer's ``history`` that was compared by `metric`."""
        valid = row["valid"]
        if verbose:
            prompted = (f"{name}@{self.k}" for name in PROMPTED if stage.prompted)
            shown = dict.fromkeys([metric, *prompted])
            figures = ", ".join(f"{name} {valid[name]:.4f}" for name in shown if name in valid)
            trained = row["train_seconds"]
            self.logger.info(
                set_color(f"stage {stage.number} epoch {row['epoch']}", "green")
                + f" [train {trained:.2f}s, loss {row['loss']:.4f}, valid {row['seconds'] - trained:.2f}s, "
                f"{figures}]{' best' if row['best'] else ''}"
            )
        tag = f"stage{stage.number}"
        self.tensorboard.add_scalar(f"{tag}/loss", row["loss"], row["epoch"])
        for name, value in valid.items():
            self.tensorboard.add_scalar(f"{tag}/valid/{name}", value, row["epoch"])
        self.wandb.log_metrics({"loss": row["loss"], **valid}, head=tag)

    def end(self, stage: Stage, rows: Sequence[Mapping[str, Any]]) -> None:
        """Say where the best of a stage's epochs is not among them, or is the last of all."""
        if not any(row["valid"] for row in rows):
            return  # nothing was compared
        best = [row.get("best") for row in rows]  # older runs that are gone on with do not say
        which = f"stage {stage.number} ({stage.title})"
        if not any(best):
            self.logger.info(f"{which} found nothing better than what it began with, which is kept")
        elif best[-1] and sum(map(bool, best)) > 1 and self._still_gains(stage, rows):
            self.logger.info(f"{which} was best in its last epoch: more of them may be better")

    @staticmethod
    def _still_gains(stage: Stage, rows: Sequence[Mapping[str, Any]]) -> bool:
        """At a rate that has fallen to nothing the last epoch is often the best, by little."""
        if stage.options.schedule == "constant":
            return True
        metric = stage.options.valid_metric.lower()
        *_, before, last = (row["valid"].get(metric, 0.0) for row in rows if row.get("best"))
        return abs(last - before) > GAIN * abs(before)
