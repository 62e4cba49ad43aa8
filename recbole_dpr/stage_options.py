"""What a training stage goes by, and which options are left without effect."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from logging import getLogger
from typing import Any

from recbole_dpr.checks import compared_system
from recbole_dpr.errors import DPRError
from recbole_dpr.readers import learns_to_read

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
    "loss_decimal_place": (4, "losses are logged with four decimals"),
    "save_dataset": (False, "data sets are read anew"),
    "save_dataloaders": (False, "data sets are read anew"),
}

# Options of batches of one kind alone.
WINDOWS = ("window_stride", "stage1_batch_size")
PREFIXES = ("stage1_prefixes", "stage3_prefixes")

JOINT = (
    "stage2_batch_size",
    "stage3_valid_metric",
    "stage3_prefixes",
)  # all it takes of these stages


def _reranks(options: Any) -> bool:
    return any(compared_system(name)[0] == "rerank" for name in options["compare"])


# Options of DPR that others can leave without effect: when they have one, and why not.
DEPENDENT: dict[str, tuple[Callable[[Any], bool], str]] = {
    "rerank_model": (_reranks, "compare names no rerank_<k>"),
    "rerank_batch_size": (_reranks, "compare names no rerank_<k>"),
    "reader_learning_rate": (learns_to_read, "a reader that comes trained learns nothing more"),
    "reader_prompts": (learns_to_read, "a reader that comes trained learns nothing more"),
    "reader_precision": (
        lambda options: not learns_to_read(options),
        "a reader that learns here reads in float32",
    ),
    "fusion_heads": (lambda options: options["fusion"], "there is no fusion"),
}


# What systems of texts go by that the measurement of a run compares.
OF_TEXTS = (
    *("item_text_fields", "text_encoder"),
    *("text_batch_size", "text_max_length", "text_precision"),
)

# What the measurement of a finished run goes by; everything else it was trained with.
MEASURED = (
    *("model", "dataset", "data_path", "encoding", "checkpoint_dir", "show_progress", "state"),
    *("stage1_valid_metric", "stage2_valid_metric", "stage3_valid_metric"),
    *("reproducibility", "use_gpu", "gpu_id", "torch_threads", "worker", "eval_batch_size"),
    *("metrics", "topk", "valid_metric", "title_field", "text_cache_dir"),
    *("reader", "reader_precision", *OF_TEXTS),
    *("phrasebook", "task_seed", "prompted_valid_size", "prompted_test_size", "strength"),
    *("exclude_history", "post_filter_k", "compare", "rerank_model", "rerank_batch_size"),
    "delta_auc_users",
)


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
    """Say where an option was given that does nothing, or that the stages have one of their own for."""
    for name, (default, instead) in UNUSED.items():
        if given.get(name, default) != default:
            _warn_idle(name, given, instead)
    for name in given if promptable else ():
        counts, why = DEPENDENT.get(name, (None, ""))
        if counts is not None and not counts(final):
            _warn_idle(name, given, why)
        elif final["joint"] and name.startswith(("stage2_", "stage3_")) and name not in JOINT:
            _warn_idle(name, given, "joint trains by the options of stage 1")
    for name, fallback in FALLBACKS.items():
        own = [f"stage{n}_{name}" for n in ((1, 2, 3) if promptable else (1,))]
        kept = [f"{option}={final[option]}" for option in own if final[option] is not None]
        # `epochs` limits every stage; given beside the stages' own, both are meant.
        if fallback == "epochs" and fallback in given:
            cut = [
                f"{option}={given[option]}"
                for option in own
                if (given.get(option) or 0) > given["epochs"]
            ]
            if cut:
                getLogger().warning(
                    "epochs=%s limits every stage, also %s", given["epochs"], ", ".join(cut)
                )
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


def refuse_trained(given: Iterable[str], now: Mapping[str, Any], run: Any) -> None:
    """Raise a DPRError for an option that is given for the measurement of a run and only a training could hear.

    Parameters
    ----------
    given
        Names of options.
    now : mapping
        Their values, as a run folder holds them.
    run
        The options of the run.
    """
    for name in given:
        if name in now and name not in MEASURED and now[name] != run[name]:
            raise DPRError(
                f"{name}={now[name]}: a finished run is measured as it was trained, with {run[name]}; "
                f"leave {name} out"
            )


def warn_unmeasured(given: Mapping[str, Any], compare: Iterable[str]) -> None:
    """Say which options were given for the measurement of a run that only systems made of texts would hear."""
    if all(compared_system(name)[0] == "post_filter" for name in compare):
        for name in OF_TEXTS:
            if name in given:
                _warn_idle(
                    name,
                    given,
                    "DPR has the encoder of its run, and compare names no system of texts",
                )


def warn_unheard(given: dict[str, Any], causal: bool, has_positions: bool) -> None:
    """Say which options were given that the backbone's kind leaves without effect."""
    idle = dict.fromkeys(PREFIXES, "a causal model trains on windows")
    if not causal:
        idle = dict.fromkeys(WINDOWS, "this model trains on prefixes, train_batch_size at once")
    if not has_positions:
        idle["position_range"] = "this model has no position vectors"
    for name, why in idle.items():
        if given.get(name) is not None:
            _warn_idle(name, given, why)


def _warn_idle(name: str, given: Any, why: str) -> None:
    getLogger().warning("%s=%s does nothing: %s", name, given[name], why)
