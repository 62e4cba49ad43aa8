"""From a config to the loaders of a run."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from logging import getLogger
from typing import Any

import numpy as np
from recbole.data import create_samplers
from recbole.data.dataloader import FullSortEvalDataLoader, TrainDataLoader
from recbole.data.interaction import Interaction

from recbole_dpr.data.dataset import PromptDataset
from recbole_dpr.data.variants import dataset_class
from recbole_dpr.data.windows import small_enough
from recbole_dpr.errors import DPRError

# Of the training targets: where fewer were taken before, histories need not be recommended again.
REPEATS = 0.01
TRIES = 20  # to mask something in a batch of very short histories


class PrefixLoader:
    """RecBole's own batches, one sample per prefix, for models that are not causal.

    Lists are cut when a batch is made. `TrainDataLoader` makes it, with the negatives and the
    ``transform`` that the model asks for. Order, choice, negatives and masks depend on (seed, epoch) alone.

    Parameters
    ----------
    config : RecBole Config
        Reads ``train_batch_size`` (fewer where that is not `small_enough`), ``seed``,
        ``shuffle`` and what RecBole's loader reads.
    dataset : PromptDataset
        The training split.
    sampler : recbole Sampler or None
        Of negatives.
    limit : int or None
        Prefixes of an epoch at most, drawn anew for each.
    """

    def __init__(
        self, config: Any, dataset: PromptDataset, sampler: Any, limit: int | None = None
    ) -> None:
        self._batches = TrainDataLoader(config, dataset, sampler, shuffle=False)
        self.config, self.dataset, self.limit = config, dataset, limit
        self.shuffle = bool(config["shuffle"])
        self.set_epoch(0)
        self._step = small_enough(self._batches.step, len(self._rows))

    def set_epoch(self, epoch: int) -> None:
        """Draw the order of one epoch, and seed what RecBole draws in it."""
        seed = (self.config["seed"], epoch)
        rng = np.random.default_rng(seed)
        rows = rng.permutation(len(self.dataset))[: self.limit]
        self._rows = rows if self.shuffle else np.sort(rows)
        random.seed(str(seed))
        np.random.seed(rng.integers(2**32))

    def __len__(self) -> int:
        return math.ceil(len(self._rows) / self._step)

    def __iter__(self) -> Iterator[Interaction]:
        """A batch in which chance has masked nothing that counts is masked anew, and left out in the end.

        RecBole's loss would divide by zero: nothing counts that is masked at the first place.

        Raises
        ------
        DPRError
            If nothing is left.
        """
        left_out = 0
        for rows in np.split(self._rows, range(self._step, len(self._rows), self._step)):
            for _ in range(TRIES):
                batch = self._batches.collate_fn(rows)
                masked = batch.interaction.get(self.config["MASK_INDEX"])
                if masked is None or (masked > 0).any():
                    yield batch
                    break
            else:
                left_out += 1
        if left_out == len(self):
            raise DPRError(
                f"the histories of {self.dataset.dataset_name} are too short to be masked: {self.config['model']} needs "
                "users with five interactions, two of which are for validation and test, and a mask_ratio above 0"
            )


@dataclass(frozen=True)
class Splits:
    """A data set, split as RecBole's sequential defaults say (leave one out).

    Parameters
    ----------
    whole : PromptDataset
    train : PromptDataset
    valid, test : FullSortEvalDataLoader
    train_sampler : recbole Sampler or None
        Of negatives, for models that need them.
    """

    whole: PromptDataset
    train: PromptDataset
    valid: FullSortEvalDataLoader
    test: FullSortEvalDataLoader
    train_sampler: Any


def load_data(config: Any) -> Splits:
    """Read, filter and split the data set of a run.

    Raises
    ------
    DPRError
        If the files or columns are missing, or there is nothing to evaluate on.
    """
    try:
        dataset = dataset_class(config)(config)
        splits = dataset.build()
    except DPRError:
        raise
    # RecBole's words for options that do not go together, or leave nothing; its stumbling over columns that are not there.
    except (ValueError, NotImplementedError, KeyError, AttributeError) as error:
        stumbled = isinstance(error, (KeyError, AttributeError))
        reason = f"{type(error).__name__}: {error}" if stumbled else error
        raise DPRError(
            f"{config['dataset']} cannot be read as the options say: {reason}"
        ) from error
    if not len(splits[1]):
        raise DPRError(
            f"no user of {config['dataset']} has enough interactions for the validation split: "
            "leave-one-out needs four"
        )
    train_sampler, *_ = create_samplers(config, dataset, splits)
    for split in splits[1:]:
        split.whole_histories = config["exclude_history"]
    # Without samplers: the whole catalogue is ranked, nothing is drawn.
    valid, test = (FullSortEvalDataLoader(config, split, None) for split in splits[1:])
    return Splits(dataset, splits[0], valid, test, train_sampler)


def say_of_repeats(train: PromptDataset, exclude_history: bool) -> None:
    """Say where option `exclude_history` goes against what people in the training split do."""
    share = train.repeats()
    if exclude_history and share >= REPEATS:
        getLogger().warning(
            f"{share:.1%} of the training targets were taken before: with exclude_history=True such items "
            "are never recommended"
        )
    if not exclude_history and share < REPEATS:
        getLogger().info(
            "Hardly anybody takes an item twice: --exclude_history=True leaves out of the lists what stands in "
            "the history, which RecBole's protocol does not"
        )
