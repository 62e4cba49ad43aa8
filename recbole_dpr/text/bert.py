"""A BERT in plain torch: the same states as transformers gives, ready in a fraction of the time.

Importing transformers takes two to four seconds, and its model always runs all layers; this one needs
torch, tokenizers and the file.
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from recbole_dpr.errors import DPRError
from recbole_dpr.text.encoder import TextEncoder
from recbole_dpr.text.hub import WAY_OUT, find_encoder

TOKENIZER, WEIGHTS = "tokenizer.json", "model.safetensors"
# What `BertEncoder` reads of config.json.
SIZES = (
    "hidden_size",
    "intermediate_size",
    "layer_norm_eps",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
)


def is_plain_bert(name: str | None) -> bool:
    """Whether `BertEncoder` can stand in for transformers with this encoder.

    Not for a damaged one: what is wrong with it is told by `TextEncoder`.
    """
    folder = find_encoder(name)
    try:
        return _is_plain_bert(folder)
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError):
        return False


def _is_plain_bert(folder: Path) -> bool:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    expected = {
        "model_type": "bert",
        "hidden_act": "gelu",
        "position_embedding_type": "absolute",
        "is_decoder": False,
    }
    right = all(config.get(key, value) == value for key, value in expected.items())
    right = right and all(key in config for key in SIZES)
    if not right or not all((folder / file).is_file() for file in (TOKENIZER, WEIGHTS)):
        return False
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        return "embeddings.word_embeddings.weight" in file.keys()  # noqa: SIM118


class BertEncoder(TextEncoder):
    """A `TextEncoder` whose model is a plain BERT; its parameters are those of `TextEncoder`.

    Token states differ from those of transformers by float rounding only. `token_states` runs no
    layer above `states_layer`.
    """

    @cached_property
    def _config(self) -> dict[str, Any]:
        return json.loads((self._folder / "config.json").read_text(encoding="utf-8"))

    @cached_property
    def _tokenizers(self) -> dict[int, Tokenizer]:
        """By the tokens that they read at most."""
        made = {}
        for limit in {self.max_length, self.states_length}:
            try:
                made[limit] = Tokenizer.from_file(str(self._folder / TOKENIZER))
            except Exception as error:  # tokenizers raises nothing narrower
                raise DPRError(
                    f"text encoder '{self.name}' cannot be loaded ({error}): {WAY_OUT}"
                ) from error
            made[limit].enable_truncation(min(limit, self._config["max_position_embeddings"]))
            made[limit].no_padding()
        return made

    def _tokenize(self, texts: list[str], limit: int) -> list[list[int]]:
        return [encoding.ids for encoding in self._tokenizers[limit].encode_batch(texts)]

    def _places(self, texts: list[str]) -> list[list[tuple[int, int]]]:
        tokenizer = self._tokenizers[self.states_length]
        return [encoding.offsets for encoding in tokenizer.encode_batch(texts)]

    @cached_property
    def _weights(self) -> dict[str, Tensor]:
        with safe_open(self._folder / WEIGHTS, framework="pt") as file:
            return {n: file.get_tensor(n).float().to(self.device) for n in file.keys()}  # noqa: SIM118

    @cached_property
    def layers(self) -> list[nn.TransformerEncoderLayer]:
        """Its transformer layers, from the lowest up, frozen."""
        n_layers = range(self._config["num_hidden_layers"])
        return [_layer(self._config, self._weights, f"encoder.layer.{i}.") for i in n_layers]

    @torch.inference_mode()
    def _forward(self, kind: str, tokens: list[list[int]]) -> list[Tensor]:
        ids = torch.zeros(len(tokens), max(map(len, tokens)), dtype=torch.long)
        for row, text in enumerate(tokens):
            ids[row, : len(text)] = torch.tensor(text)
        lengths = torch.tensor([len(text) for text in tokens])
        padding = torch.arange(ids.shape[1]) >= lengths[:, None]
        mask = padding.to(self.device) if bool(padding.any()) else None
        states = self._embed(ids.to(self.device))
        upto = self.states_layer if kind != "vectors" else None
        for layer in self.layers[:upto]:
            states = layer(states, src_key_padding_mask=mask)
        states = states.cpu()
        return [states[row, : len(text)] for row, text in enumerate(tokens)]

    def _embed(self, ids: Tensor) -> Tensor:
        """Sum of the word, place and segment embeddings, scaled: ``[B, T, dim]``."""
        weights = {
            name.removeprefix("embeddings."): weight
            for name, weight in self._weights.items()
            if name.startswith("embeddings.")
        }
        states = weights["word_embeddings.weight"][ids]
        states = states + weights["token_type_embeddings.weight"][0]
        states = states + weights["position_embeddings.weight"][: ids.shape[1]]
        scale, bias = weights["LayerNorm.weight"], weights["LayerNorm.bias"]
        return layer_norm(states, scale.shape, scale, bias, self._config["layer_norm_eps"])


def _layer(
    config: dict[str, Any], weights: dict[str, Tensor], prefix: str
) -> nn.TransformerEncoderLayer:
    """One layer, in evaluation mode, on the weights of the file."""
    with torch.device("meta"):  # no weights are drawn, which takes longer than reading them
        layer = nn.TransformerEncoderLayer(
            config["hidden_size"],
            config["num_attention_heads"],
            config["intermediate_size"],
            activation="gelu",
            layer_norm_eps=config["layer_norm_eps"],
            batch_first=True,
        )
    renamed = {
        "self_attn.out_proj": "attention.output.dense",
        "norm1": "attention.output.LayerNorm",
        "linear1": "intermediate.dense",
        "linear2": "output.dense",
        "norm2": "output.LayerNorm",
    }
    state = {}
    for part in ("weight", "bias"):
        inputs = [f"{prefix}attention.self.{name}.{part}" for name in ("query", "key", "value")]
        state[f"self_attn.in_proj_{part}"] = torch.cat([weights[name] for name in inputs])
        state |= {
            f"{ours}.{part}": weights[f"{prefix}{its}.{part}"] for ours, its in renamed.items()
        }
    layer.load_state_dict(state, assign=True)
    return layer.requires_grad_(False).eval()
