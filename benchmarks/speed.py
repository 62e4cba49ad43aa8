"""How fast an epoch of the backbone is, against RecBole's own loop, side by side in one process.

    python benchmarks/speed.py                       # SASRec on ml-100k, two to three minutes
    python benchmarks/speed.py --model=GRU4Rec --rounds=3
    python benchmarks/speed.py --until=0.060         # also the time to that validation NDCG@10

RecBole's side is its own data set, loader, trainer and model, with its own batch size, as a RecBole
user gets them. That includes autograd's anomaly detection, which importing RecBole's models turns on;
`recbole_plain_s` is the same without. Ours is stage 1, but for the running average, warm-up and schedule of a run. Both train the same class with the same
options, in turn, `--rounds` times: a whole epoch of ours, then `--share` of the batches of one of
RecBole's, from which its epoch is reckoned. Medians are reported. A model that is not causal trains on prefixes on both
sides, and `--share` of ours is timed, too.

`dataset_ratio` compares the memory that the tensors of the built training split take.

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

if __name__ == "__main__":  # requests.py must not hide the library of that name
    sys.path.append(sys.path.pop(0))

import numpy as np
import torch
from recbole.data import create_dataset, create_samplers
from recbole.data.dataloader import FullSortEvalDataLoader, TrainDataLoader
from recbole.trainer import Trainer
from recbole.utils import init_seed

from recbole_dpr.arguments import exit_status
from recbole_dpr.config import DPRConfig
from recbole_dpr.data.loading import load_data
from recbole_dpr.model.backbone import Backbone
from recbole_dpr.model.recbole_model import recbole_model
from recbole_dpr.training.setup import training_loader

Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "process": time.process_time}
RECBOLE_BATCH = 2048  # its default


def recbole_own(config: Any, dataset: Any) -> torch.nn.Module:
    """RecBole's model. S3Rec, which RecBole pre-trains first, is fine-tuned from fresh weights, as ours is."""
    model: torch.nn.Module = config.model_class(config, dataset)
    if config["train_stage"] != "pretrain":
        return model
    with tempfile.NamedTemporaryFile(suffix=".pth") as file:
        torch.save({"state_dict": model.state_dict()}, file.name)
        config["train_stage"], config["pre_model_path"] = "finetune", file.name
        fine_tuned: torch.nn.Module = config.model_class(config, dataset)
    return fine_tuned


class RecBoleSide:
    """RecBole's own classes, from the data set to the trainer."""

    def __init__(
        self, config: Any, clock: Clock = time.perf_counter, batch_size: int = RECBOLE_BATCH
    ) -> None:
        self.clock = clock
        config["train_batch_size"] = batch_size
        dataset = create_dataset(config)
        read = dataset.get_preload_weight
        # RecBole's KSR fails on the float64 in which it reads its vectors.
        dataset.get_preload_weight = lambda field: read(field).astype(np.float32)
        splits = dataset.build()
        self.train = splits[0]
        samplers = create_samplers(config, dataset, splits)
        self.loader = TrainDataLoader(config, splits[0], samplers[0], shuffle=True)
        self.valid, self.test = (
            FullSortEvalDataLoader(config, split, sampler)
            for split, sampler in zip(splits[1:], samplers[1:], strict=True)
        )
        self.model = recbole_own(config, splits[0]).to(config["device"])
        self.trainer = Trainer(config, self.model)
        self.trainer.eval_collector.data_collect(self.loader)

    def part_of_an_epoch(self, share: float) -> float:
        """Seconds of a whole epoch, reckoned from the first `share` of its batches."""
        part = list_like(self.loader, max(1, round(share * len(self.loader))))
        started = self.clock()
        self.trainer._train_epoch(part, 0)
        return (self.clock() - started) * len(self.loader) / len(part)

    def epoch(self) -> None:
        self.trainer._train_epoch(self.loader, 0)


class OurSide:
    """Stage 1: on windows, or on prefixes if the model is not causal."""

    def __init__(self, config: Any, clock: Clock = time.perf_counter) -> None:
        self.clock = clock
        data = load_data(config)
        self.train, self.valid = data.train, data.valid
        self.options = config.stage(1)
        self.model = recbole_model(config, data.train)
        self.loader = training_loader(config, data, self.model)
        self.trainer = Trainer(config, self.model)
        self.trainer.optimizer = self.trainer._build_optimizer(
            learning_rate=self.options.learning_rate
        )
        self.trainer.eval_collector.data_collect(self.loader)
        self.backbone = Backbone(self.model)
        self.loss = self.backbone.training_loss
        self.n_epochs = 0

    def epoch(self, share: float = 1.0) -> float:
        """Seconds of a whole epoch, reckoned from the first `share` of its batches."""
        self.loader.set_epoch(self.n_epochs)
        self.n_epochs += 1
        part = list_like(self.loader, max(1, round(share * len(self.loader))))
        started = self.clock()
        self.trainer._train_epoch(part, self.n_epochs, self.loss)
        return (self.clock() - started) * len(self.loader) / len(part)


class list_like:
    """The first batches of a loader."""

    def __init__(self, loader: Any, batches: int) -> None:
        self.loader, self.batches, self.shuffle = loader, batches, loader.shuffle

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Any:
        return itertools.islice(iter(self.loader), self.batches)


def tensor_bytes(dataset: Any) -> int:
    """Bytes of the tensors that a built split holds, shared ones once."""
    tensors = [
        *dataset.inter_feat.interaction.values(),
        *getattr(dataset, "history", {}).values(),
    ]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def seconds_until(side: Any, goal: float, limit: float) -> float | None:
    """Wall-clock seconds of training and validation until validation NDCG@10 reaches the goal."""
    started = time.perf_counter()
    while (spent := time.perf_counter() - started) < limit:
        side.epoch()
        reached = side.trainer.evaluate(side.valid, load_best_model=False)["ndcg@10"]
        spent = time.perf_counter() - started
        print(f"  {type(side).__name__} {spent:7.1f}s validation NDCG@10 {reached:.4f}", flush=True)
        if reached >= goal:
            return spent
    return None


def in_turn(ours: OurSide, theirs: RecBoleSide, rounds: int, share: float) -> dict[str, float]:
    """Median seconds of an epoch, both sides timed in turn; ours in part too, if it has no windows."""
    own_share = 1.0 if ours.backbone.causal else share
    times: dict[str, list[float]] = {"ours_s": [], "recbole_s": [], "recbole_plain_s": []}
    torch.autograd.set_detect_anomaly(False)
    # One batch to warm up: the first of a process pays for the memory that later ones use again.
    ours.epoch(0.0)
    theirs.part_of_an_epoch(0.0)
    for _ in range(rounds):
        times["ours_s"].append(ours.epoch(own_share))
        torch.autograd.set_detect_anomaly(True)  # as recbole.model...sine leaves it
        times["recbole_s"].append(theirs.part_of_an_epoch(share))
        torch.autograd.set_detect_anomaly(False)
        times["recbole_plain_s"].append(theirs.part_of_an_epoch(share))
        print({name: round(values[-1], 2) for name, values in times.items()}, flush=True)
    return {name: round(statistics.median(values), 3) for name, values in times.items()}


def measure(
    model: str,
    dataset: str,
    options: dict[str, Any],
    *,
    rounds: int = 3,
    share: float = 0.15,
    clock: str = "wall",
    until: float | None = None,
    limit: float = 3600,
    seed: int = 2020,
) -> dict[str, Any]:
    """Time both loops.

    Parameters
    ----------
    model, dataset : str
    options : dict
        Of both sides.
    rounds : int
    share : float
        Of RecBole's epoch, per round.
    clock : str
        "wall" or, where other programs run beside, "process": processor time of all threads.
    until : float, optional
        Validation NDCG@10 to reach.
    limit : float
        Seconds for `until`, each side.
    seed : int

    Returns
    -------
    dict
        What the last line of the script holds, and whether and why ours trains on windows.
    """
    init_seed(seed, True)
    ours = OurSide(DPRConfig(model, dataset, config_dict=options), CLOCKS[clock])
    theirs = RecBoleSide(DPRConfig(model, dataset, config_dict=options), CLOCKS[clock])
    median = in_turn(ours, theirs, rounds, share)
    result: dict[str, Any] = {
        "model": model,
        "dataset": dataset,
        "threads": torch.get_num_threads(),
        "epoch_ratio": round(median["recbole_s"] / median["ours_s"], 2),
        "epoch_ratio_plain": round(median["recbole_plain_s"] / median["ours_s"], 2),
        **median,
        "dataset_ratio": round(tensor_bytes(theirs.train) / tensor_bytes(ours.train), 2),
        "causal": ours.backbone.causal,
        "why": ours.backbone.why,
    }
    if until:
        init_seed(seed, True)
        result["until"] = until
        side: Any = OurSide(DPRConfig(model, dataset, config_dict=options))
        result["ours_until_s"] = seconds_until(side, until, limit)
        torch.autograd.set_detect_anomaly(True)
        # RecBole's loop at its own learning rate, which is what its figures are known for.
        side = RecBoleSide(DPRConfig(model, dataset, config_dict=options))
        result["recbole_until_s"] = seconds_until(side, until, limit)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--model", default="SASRec", help="plain RecBole model")
    parser.add_argument("--dataset", default="ml-100k")
    parser.add_argument("--data_path", default=None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--share", type=float, default=0.15, help="of RecBole's epoch per round")
    parser.add_argument("--until", type=float, default=None, help="validation NDCG@10 to reach")
    parser.add_argument("--limit", type=float, default=3600, help="seconds for --until, each side")
    parser.add_argument("--threads", type=int, default=None)
    args = vars(parser.parse_args())
    if threads := args.pop("threads"):
        torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {"checkpoint_dir": folder, "show_progress": False}
        if data_path := args.pop("data_path"):
            options["data_path"] = data_path
        print(json.dumps(measure(options=options, **args)))


if __name__ == "__main__":
    sys.exit(exit_status(main))
