"""From a config and a catalogue to a model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from recbole_dpr.errors import DPRError
from recbole_dpr.model.dpr import DPR
from recbole_dpr.model.pretrained import (
    SHIPPED_STATES,
    find_reader,
    make_reader,
    reading_precision,
)
from recbole_dpr.model.score_dpr import ScoreDPR
from recbole_dpr.model.steering import Scores, steering_of
from recbole_dpr.readers import LEARNED, kind_of, learns_to_read, reader_kind, reader_names
from recbole_dpr.text import TextEncoder
from recbole_dpr.text.adapted import ENCODER, AdaptedEncoder, header
from recbole_dpr.text.bert import BertEncoder, is_plain_bert
from recbole_dpr.text.encoder import item_vectors
from recbole_dpr.text.mentions import Mentions


def make_encoder(config: Any, serving: bool = False) -> TextEncoder:
    """The text encoder of a run; where single prompts come in (`serving`), without a cache on disk."""
    cache_dir = None if serving else config["text_cache_dir"]
    last = bool(config["text_encoder"]) or learns_to_read(config)
    return _encoder(config, config["text_encoder"], cache_dir, None if last else SHIPPED_STATES)


def reading_encoder(config: Any, encoder: TextEncoder, name: str) -> TextEncoder:
    """The encoder of what a reader reads: `encoder`, unless the reader `name` comes with one of its own.

    Raises
    ------
    DPRError
        As `find_reader`.
    """
    if kind_of(name, config) in LEARNED:
        return encoder
    path, cache_dir = find_reader(name), config["text_cache_dir"] if encoder.keeps else None
    if header(path)[ENCODER]:
        options = _encoding(config, cache_dir, None)
        return AdaptedEncoder(path, **options | {"precision": reading_precision(config)})
    # The bundled one, which is that of the items, too, unless they have another.
    return _encoder(config, None, cache_dir, SHIPPED_STATES) if config["text_encoder"] else encoder


def _encoder(
    config: Any, name: str | None, cache_dir: str | None, states_layer: int | None
) -> TextEncoder:
    plain = config["text_precision"] == "float32" and is_plain_bert(name)
    kind = BertEncoder if plain else TextEncoder
    return kind(name, **_encoding(config, cache_dir, states_layer))


def _encoding(config: Any, cache_dir: str | None, states_layer: int | None) -> dict[str, Any]:
    """The arguments of a `TextEncoder` behind its name."""
    return {
        "batch_size": config["text_batch_size"],
        "device": config["device"],
        "cache_dir": cache_dir,
        "max_length": config["text_max_length"],
        "precision": config["text_precision"],
        "states_layer": states_layer,
        "states_length": config["prompt_max_length"],
    }


def aligns(config: Any) -> bool:
    """Whether stage 2 has trained, in this run or in its checkpoint, when stage 3 begins."""
    return config["stage2_epochs"] != 0 or bool(config["checkpoint"])


def check_switches(config: Any) -> None:
    """Refuse parts of DPR that would be left with nothing to act through, or to learn from.

    Raises
    ------
    DPRError
        Naming the option.
    """
    steering = steering_of(config.model_class)
    for option, value in (("semantic_part", False), ("joint", True)):
        if isinstance(steering, Scores) and config[option] == value:
            raise DPRError(
                f"{option}={value} needs a backbone with a user vector; {config['backbone']} has none "
                f"({steering.why}): leave {option} out"
            )
    if learns_to_read(config) and not config["joint"] and not aligns(config):
        raise DPRError(
            f"a {reader_kind(config)} reader learns in stage 2: leave stage2_epochs=0 out, or give a "
            "checkpoint"
        )


def build_dpr(
    config: Any,
    dataset: Any,
    called: list[list[str]],
    item_text: list[str] | None,
    encoder: TextEncoder,
    read_as: dict[str, str] | None = None,
) -> DPR:
    """A DPR model with fresh weights.

    Parameters
    ----------
    dataset : PromptDataset or Catalogue
    called : list of list of str ``[V]``
        What the attribute values are called, the readable name first.
    item_text : list of str ``[n_items]`` or None
        None leaves the encoded texts to the weights that will be loaded.
    encoder : TextEncoder
        Of the item texts, and of what the reader reads if that does not come with its own.
    read_as : dict of str to str, optional
        Words that are read as others, by a phrasebook.

    Raises
    ------
    DPRError
        As `check_switches`.
    """
    check_switches(config)
    if item_text is None:
        vectors: Tensor = torch.zeros(len(dataset), encoder.dim)
    else:
        vectors = item_vectors(encoder, item_text)
    first, *others = readers = reader_names(config)
    reading = {name: reading_encoder(config, encoder, name) for name in readers}
    readable = [name for name, *_ in called]
    names = {name: of.vectors(readable) for name, of in reading.items()}
    by_scores = isinstance(steering_of(config.model_class), Scores)
    model = (ScoreDPR if by_scores else DPR)(
        config, dataset, reading[first], vectors, names[first], Mentions(called, read_as)
    )
    model.other_readers = [
        (reading[name], make_reader(names[name], config, name).eval().to(config["device"]))
        for name in others
    ]
    return model.to(config["device"])
