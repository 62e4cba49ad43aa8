"""From a config to the loaders of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recbole.data import create_samplers
from recbole.data.dataloader import FullSortEvalDataLoader, TrainDataLoader

from recbole_dpr.data.dataset import PromptDataset
from recbole_dpr.errors import DPRError


class PrefixLoader(TrainDataLoader):
    """RecBole's own training loader: one sample per prefix, for models that are not causal.

    Lists are cut when a batch is made, and the order depends on (seed, epoch) alone.
    """

    def set_epoch(self, epoch: int) -> None:
        """Seed the order of one epoch."""
        self.generator.manual_seed(self.config["seed"] + epoch)


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
    dataset = PromptDataset(config)
    splits = dataset.build()
    for name, split in zip(("validation", "test"), splits[1:], strict=True):
        if not len(split):
            raise DPRError(
                f"no user of {config['dataset']} has enough interactions for the {name} split: "
                "leave-one-out needs four"
            )
    samplers = create_samplers(config, dataset, splits)
    valid, test = (
        FullSortEvalDataLoader(config, split, sampler)
        for split, sampler in zip(splits[1:], samplers[1:], strict=True)
    )
    return Splits(dataset, splits[0], valid, test, samplers[0])
