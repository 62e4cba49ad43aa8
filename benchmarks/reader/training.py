"""The steps of a reader's training, which go on where it was cut off."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from reader.held_out import marks
from reader.sentences import Sentences
from reader.trainee import Trainee
from recbole_dpr.checkpoint import load_tensors, save_tensors
from recbole_dpr.data.intent import Intent
from recbole_dpr.errors import DPRError
from recbole_dpr.training.averaging import RunningAverage, copy_of_weights, put_weights
from recbole_dpr.training.resume import (
    optimizer_tensors,
    prefixed,
    random_state,
    restore_optimizer,
    restore_random_state,
    without_prefix,
)

WARMUP = 100
SORTED = 16  # batches whose sentences are sorted by length together: little padding
SHOWN = 18  # values that a generic prompt is read for: its own, and others
GENERIC = 1 / 3  # share of the steps that are not about films
FREE = ("out", "own", "device", "log_every", "measured")  # options that change no step


class Batches:
    """Batches of a domain's sentences, of like length each.

    Parameters
    ----------
    domain : Sentences
    size : int
        Sentences of a batch.
    """

    def __init__(self, domain: Sentences, size: int) -> None:
        self.names = domain.book.readable
        self._domain, self._size = domain, size
        self._drawn: list[list[tuple[str, Intent]]] = []

    def draw(self, rng: np.random.Generator) -> list[tuple[str, Intent]]:
        """The next batch."""
        if not self._drawn:
            said = [self._domain.draw(rng) for _ in range(SORTED * self._size)]
            said.sort(key=lambda sentence: len(sentence[0]))
            order = rng.permutation(SORTED) * self._size
            self._drawn = [said[at : at + self._size] for at in order]
        return self._drawn.pop(0)

    def state(self) -> list[list[Any]]:
        """What has been drawn and is still to come, in plain lists."""
        return [
            [(text, intent.include, intent.exclude) for text, intent in batch]
            for batch in self._drawn
        ]

    def restore(self, state: list[list[Any]]) -> None:
        """Undo what has been drawn since `state`."""
        self._drawn = [
            [(text, Intent(tuple(wanted), tuple(unwanted))) for text, wanted, unwanted in batch]
            for batch in state
        ]


class Training:
    """What the steps share: sentences to draw, the optimizer, the average of the weights.

    Parameters
    ----------
    trainee : Trainee
    domains : list of Sentences
        Films, then many domains.
    args : Namespace
        Of `train_reader.arguments`.

    Attributes
    ----------
    average : RunningAverage
    done : int
        Steps so far.
    seconds : float
        That earlier parts of the training took.
    """

    def __init__(self, trainee: Trainee, domains: list[Sentences], args: Namespace) -> None:
        self.trainee, self.args = trainee, args
        self.done, self.seconds = 0, 0.0
        self._rng = np.random.default_rng(args.seed)
        self._batches = [Batches(domain, args.batch_size) for domain in domains]
        layers = list(trainee.layers.parameters())
        known = {id(weight) for weight in layers}
        new = [weight for weight in trainee.reader.parameters() if id(weight) not in known]
        self._weights = [*new, *layers]
        groups = [
            {"params": new, "peak": args.learning_rate},
            {"params": layers, "peak": args.layers_learning_rate},
        ]
        self._optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
        self.average = RunningAverage(trainee, args.averaging)

    def step(self) -> float:
        """Learn from a batch; its loss."""
        self.done += 1
        domain = int(self._rng.random() < GENERIC)
        batches = self._batches[domain]
        texts, intents = zip(*batches.draw(self._rng), strict=True)
        shown = list(range(len(batches.names)))
        if domain:
            shown = shown_values(list(intents), len(batches.names), self._rng)
        self.trainee.train()
        for group in self._optimizer.param_groups:
            rising = min(1.0, self.done / WARMUP)
            falling = 0.5 * (1 + np.cos(np.pi * self.done / self.args.steps))
            group["lr"] = group["peak"] * rising * falling
        device = self.trainee.device
        halved = self.args.precision == "bfloat16"
        # Of sentences this short, plain attention takes less time on a CPU than the fused one.
        plain = sdpa_kernel(SDPBackend.MATH)
        with plain, torch.autocast(device.type, torch.bfloat16, enabled=halved):
            logits = self.trainee(texts, [batches.names[value] for value in shown])
        include, exclude = marks(list(intents), shown, len(batches.names))
        loss = self.trainee.reader.loss(logits.float(), include.to(device), exclude.to(device))
        self._optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._weights, 1.0)
        self._optimizer.step()
        self.average.update(self.done)
        return loss.item()

    def save(self, path: Path, seconds: float) -> None:
        """Write what `resume` goes on from."""
        tensors = {
            **prefixed("weights.", copy_of_weights(self.trainee)),
            **prefixed("average.", self.average.weights),
            **prefixed("optimizer.", optimizer_tensors(self._optimizer)),
            **prefixed("rng.", random_state()),
        }
        about = {
            "done": self.done,
            "drawn": [batches.state() for batches in self._batches],
            "rng": self._rng.bit_generator.state,
            "seconds": seconds,
            "options": self._options(),
        }
        save_tensors(path, tensors, about, "give the same command again")

    def resume(self, path: Path) -> None:
        """Go on after the steps that `save` was called behind, as if nothing had happened.

        Raises
        ------
        DPRError
            If those were steps of a training with other options, or as `load_tensors`.
        """
        tensors, about = load_tensors(path, "delete it to begin anew")
        own = self._options()
        other = [name for name in own if about["options"].get(name) != own[name]]
        if other:
            raise DPRError(
                f"{path} is of a training with another --{other[0]}, {about['options'].get(other[0])}: "
                "give that, or delete the file to begin anew"
            )
        put_weights(self.trainee, without_prefix("weights.", tensors))
        device = self.trainee.device
        average = without_prefix("average.", tensors)
        self.average.weights = {name: weight.to(device) for name, weight in average.items()}
        restore_optimizer(self._optimizer, without_prefix("optimizer.", tensors))
        restore_random_state(without_prefix("rng.", tensors))
        self._rng.bit_generator.state = about["rng"]
        for batches, drawn in zip(self._batches, about["drawn"], strict=True):
            batches.restore(drawn)
        self.done, self.seconds = about["done"], about["seconds"]

    def _options(self) -> dict[str, object]:
        return {name: value for name, value in vars(self.args).items() if name not in FREE}


def shown_values(intents: list[Intent], n_values: int, rng: np.random.Generator) -> list[int]:
    """Values to read a batch for: those that it speaks of, and as many others as make SHOWN."""
    own = {v for intent in intents for v in (*intent.include, *intent.exclude)}
    others = [v for v in rng.permutation(n_values).tolist() if v not in own]
    return [*sorted(own), *others[: max(0, SHOWN - len(own))]]
