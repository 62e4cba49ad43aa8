"""RecBole's own loop to its early stop, going on where a killed one was."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import numpy as np

from recbole_dpr.checkpoint import load_tensors, load_weights, save_tensors
from recbole_dpr.training.averaging import put_weights, snapshot
from recbole_dpr.training.resume import (
    optimizer_tensors,
    prefixed,
    random_state,
    restore_optimizer,
    restore_random_state,
    without_prefix,
)

LOADER = "rng.loader"  # the order of the samples


def drawn_by_recbole() -> dict[str, Any]:
    """The generators of RecBole's masks and negatives, as JSON."""
    name, keys, *rest = np.random.get_state()
    return {"random": random.getstate(), "numpy": [name, keys.tolist(), *rest]}


def draw_on(states: dict[str, Any]) -> None:
    """Undo what they have drawn since `drawn_by_recbole`."""
    number, state, gauss = states["random"]
    random.setstate((number, tuple(state), gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))


class RecBoleLoop:
    """`Trainer.fit` of RecBole on one side of benchmarks/speed.py, saved after every epoch.

    Parameters
    ----------
    side : speed.RecBoleSide
    file : Path
        Where the progress is saved; a file that is there is gone on from, as if nothing had happened.
        RecBole's own checkpoints hold its `Config`, which torch no longer loads, and neither the best
        weights nor the curve.

    Attributes
    ----------
    points : list of [float, float]
        ``[seconds, validation score]`` after each epoch, validation included.
    """

    def __init__(self, side: Any, file: Path) -> None:
        self.side, self.file = side, file
        self.points: list[list[float]] = []
        self.best = snapshot(side.model)
        if file.is_file():
            self.go_on()
        self.started = time.perf_counter() - self.seconds

    @property
    def seconds(self) -> float:
        """Of all epochs so far."""
        return self.points[-1][0] if self.points else 0.0

    def fit(self) -> dict[str, float]:
        """Train, and return the test figures of the best epoch."""
        trainer = self.side.trainer
        trainer.fit(
            self.side.loader, self.side.valid, verbose=False, saved=False, callback_fn=self.note
        )
        put_weights(self.side.model, self.best)
        test = trainer.evaluate(self.side.test, load_best_model=False)
        return {name: float(x) for name, x in test.items()}

    def note(self, epoch: int, score: float) -> None:
        """What `Trainer.fit` calls after each validation."""
        if not self.points or score > max(seen for _, seen in self.points):
            self.best = snapshot(self.side.model)
        self.points.append([round(time.perf_counter() - self.started, 3), float(score)])
        print(f"epoch {epoch}: {self.seconds} s, validation {score:.4f}", flush=True)
        trainer = self.side.trainer
        tensors = {
            **prefixed("model.", self.side.model.state_dict()),
            **prefixed("best.", self.best),
            **prefixed("optimizer.", optimizer_tensors(trainer.optimizer)),
            **prefixed("rng.", random_state()),
            LOADER: self.side.loader.generator.get_state(),
        }
        about = {
            "epoch": epoch,
            "cur_step": trainer.cur_step,
            "best_valid_score": float(trainer.best_valid_score),
            "points": self.points,
            **drawn_by_recbole(),
        }
        save_tensors(self.file, tensors, about, "give the same command again")

    def go_on(self) -> None:
        """Take up a saved progress."""
        trainer = self.side.trainer
        tensors, about = load_tensors(self.file, "delete it to begin anew")
        load_weights(self.side.model, without_prefix("model.", tensors), self.file)
        restore_optimizer(trainer.optimizer, without_prefix("optimizer.", tensors))
        restore_random_state(without_prefix("rng.", tensors))
        draw_on(about)
        self.side.loader.generator.set_state(tensors[LOADER])
        trainer.start_epoch = about["epoch"] + 1
        trainer.cur_step = about["cur_step"]
        trainer.best_valid_score = about["best_valid_score"]
        self.best, self.points = without_prefix("best.", tensors), about["points"]
        print(f"goes on after epoch {about['epoch']}", flush=True)
