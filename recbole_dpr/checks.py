"""Options that contradict each other or the protocol: refused before anything is written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from recbole_dpr.errors import DPRError, did_you_mean
from recbole_dpr.files import properties_dir, read_yaml
from recbole_dpr.options import is_number
from recbole_dpr.readers import reader_kind

# Figures of a ranking that this package adds to RecBole's.
OWN_METRICS = ("satisfied", "violation")

# Systems that option `compare` adds. Those of the second line carry a number: rerank_20.
COMPARED = ("additive", "semantic")
COMPARED_AT_K = ("rerank", "post_filter")

# RecBole takes its options of this kind as they come, and stumbles over them.
MAPPINGS = {
    "clip_grad_norm": "{max_norm: 1.0}",
    "load_col": "{inter: [user_id, item_id, timestamp]}, or None for all columns",
    "preload_weight": "{entity_id: entity_embedding}",
    "seq_len": "{genre: 5}",
    "threshold": "{rating: 3}",
    "unload_col": "{item: [release_year]}",
    "unused_col": "{inter: [rating]}",
    "val_interval": "{timestamp: '[5000,inf)'}, the interval in quotes",
}


def check_options(options: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Check the layered options of a run, before RecBole completes them.

    Parameters
    ----------
    options
        All layers.
    defaults
        The layers of the property files alone.

    Raises
    ------
    DPRError
        Naming the options by their exact names.
    """
    for name in ("nproc", "world_size"):
        if is_number(options.get(name)) and options[name] > 1:
            raise DPRError(
                f"{name}={options[name]}: training in more than one process is not supported yet; "
                f"leave {name} out"
            )
    for name, example in MAPPINGS.items():
        value = options.get(name)
        if value is not None and not isinstance(value, Mapping):
            raise DPRError(f"{name} takes {example}, not {value!r}")
    if options.get("log_wandb") and find_spec("wandb") is None:
        raise DPRError("log_wandb=True needs the package wandb: pip install wandb")
    sampling = options.get("train_neg_sample_args")
    if isinstance(sampling, Mapping) and sampling.get("dynamic"):
        raise DPRError(
            "train_neg_sample_args: negative items are not drawn by the model here; leave dynamic out"
        )
    for name in ("prompt_fields", "item_text_fields"):
        if not all(isinstance(entry, str) for entry in options[name]):
            raise DPRError(f"{name} takes names of columns, not {options[name]!r}")
        if len({*options[name]}) < len(options[name]):
            raise DPRError(f"{name}={options[name]} names a column twice; name it once")
    if options["promptable"] and options.get("loss_type") != defaults.get("loss_type"):
        raise DPRError(
            f"loss_type={options['loss_type']} is not for DPR, whose loss is a cross entropy over "
            "the whole catalogue; leave loss_type out"
        )
    if options["exclude_history"] and not options["promptable"]:
        raise DPRError(
            f"exclude_history is for DPR: {options['backbone']} alone ranks as in RecBole; leave it out, or "
            f"take the backbone of DPR-{options['backbone']}"
        )
    given = [name for name in ("backbone_checkpoint", "checkpoint", "resume") if options[name]]
    if len(given) > 1:
        raise DPRError(f"{' and '.join(given)} contradict each other; give one of them")
    nothing = options["stage1_epochs"] == 0 and not options["checkpoint"]
    if options["promptable"] and options["joint"] and nothing:
        raise DPRError("joint=True trains in stage 1 alone: leave stage1_epochs=0 out")
    reader_kind(options)
    for name in options["compare"]:
        compared_system(name)
    _check_protocol(options)
    _check_task_mix(options["task_mix"])
    _check_metrics(options)


def compared_system(name: Any) -> tuple[str, int]:
    """Take apart a name of option `compare`: ``("rerank", 20)`` of "rerank_20", or 0.

    Raises
    ------
    DPRError
        If there is no such system.
    """
    if name in COMPARED:
        return name, 0
    parts = re.fullmatch(rf"({'|'.join(COMPARED_AT_K)})_([1-9][0-9]*)", str(name))
    if not parts:
        examples = [*COMPARED, *(f"{family}_20" for family in COMPARED_AT_K)]
        raise DPRError(
            f"compare has no system {name!r}{did_you_mean(str(name), examples)}; it takes names such as "
            f"{', '.join(examples)}, with any number"
        )
    return parts[1], int(parts[2])


def _check_protocol(options: Mapping[str, Any]) -> None:
    protocol = read_yaml(properties_dir() / "overall.yaml")["eval_args"]
    for name, value in options["eval_args"].items():
        if name not in protocol:
            raise DPRError(f"eval_args has no entry {name!r}{did_you_mean(name, protocol)}")
        fixed = protocol[name]
        if value not in (fixed, {"valid": fixed, "test": fixed}):
            raise DPRError(
                f"eval_args: {name} must be {fixed!r}, not {value!r}: the figures of the steering "
                "tasks are defined for that protocol only"
            )
    if options["benchmark_filename"]:
        raise DPRError(
            "benchmark_filename is not supported: the steering tasks need the histories of one data set, "
            "split here; leave it out"
        )
    if not options["repeatable"]:
        raise DPRError("repeatable must be True for sequential models")


def _check_task_mix(mix: Mapping[str, Any]) -> None:
    kinds = read_yaml(properties_dir() / "model" / "DPR.yaml")["task_mix"]
    for kind, share in mix.items():
        if kind not in kinds:
            raise DPRError(
                f"task_mix has no kind {kind!r}{did_you_mean(kind, kinds)}; "
                f"its kinds are {', '.join(kinds)}"
            )
        if not is_number(share) or share < 0:
            raise DPRError(f"task_mix: {kind} takes a number >= 0, not {share!r}")
    if not sum(mix.values()):
        raise DPRError("task_mix must have a share above 0")


def _check_metrics(options: Mapping[str, Any]) -> None:
    metrics, topk = options["metrics"], options["topk"]
    metrics = [metrics] if isinstance(metrics, str) else metrics
    topk = topk if isinstance(topk, list) else [topk]
    if not metrics:
        raise DPRError("metrics must name at least one metric, such as NDCG")
    for metric in metrics:
        if not isinstance(metric, str) or metric.lower() not in KNOWN:
            raise DPRError(
                f"unknown metric {metric!r} in metrics{did_you_mean(str(metric), NAMES)}; "
                f"known are {', '.join(NAMES)}"
            )
    if not topk or not all(type(k) is int and k >= 1 for k in topk):
        raise DPRError(f"topk takes whole numbers >= 1, not {options['topk']!r}")
    right = {metric.lower() for metric in metrics}
    for name in ("valid_metric", *(f"stage{n}_valid_metric" for n in (1, 2, 3))):
        value = options[name]
        if value is None:
            continue
        parts = re.fullmatch(r"([A-Za-z]+)@([0-9]+)", value)
        # Our own mean nothing without a prompt.
        prompted = name in ("stage2_valid_metric", "stage3_valid_metric")
        allowed = {*right, *OWN_METRICS} if prompted else right
        if not parts or parts[1].lower() not in allowed or int(parts[2]) not in topk:
            example = f"{metrics[0]}@{topk[0]}"
            raise DPRError(
                f"{name} takes one of metrics at one of topk, such as {example}, not {value!r}: set it, or let "
                "metrics and topk have it"
            )


# RecBole 1.2.1 fails over its other metrics of rankings, and those of ratings and clicks do not rank.
NAMES = ("Recall", "MRR", "NDCG", "Hit", "Precision", "MAP", "ShannonEntropy")
KNOWN = {name.lower() for name in NAMES}
