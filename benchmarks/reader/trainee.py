"""What benchmarks/train_reader.py trains: a reader, and layers of the text encoder below it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from recbole_dpr.errors import DPRError
from recbole_dpr.model.pretrained import SHIPPED_STATES, SIZE, save_reader
from recbole_dpr.model.reader import PromptReader
from recbole_dpr.text.adapted import hash_of_vectors
from recbole_dpr.text.bert import BertEncoder
from recbole_dpr.text.hub import WAY_OUT, find_encoder, load_pretrained
from recbole_dpr.training.averaging import copy_of_weights, put_weights

MAX_LENGTH = 64  # tokens of a sentence


class Trainee(nn.Module):
    """A reader, from texts and the names of values to what the texts say of these.

    Attributes
    ----------
    reader : PromptReader
    layers : nn.ModuleList
        Those of the text encoder that are trained along.
    device : torch.device
    """

    reader: PromptReader
    layers: nn.ModuleList
    device: torch.device

    def vectors(self, names: Sequence[str]) -> Tensor:
        """Encoded names of values: ``[V, D]``."""
        raise NotImplementedError

    def states(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """What the reader reads: states ``[B, T, D]`` and their mask."""
        raise NotImplementedError

    def cut_down(self) -> None:
        """Make the layers what `save` writes of them; without it, they are written as they are."""

    def save(self, path: Path) -> None:
        """Write what a run needs to read with it."""
        raise NotImplementedError

    def forward(self, texts: Sequence[str], names: Sequence[str]) -> Tensor:
        """Logits of absent, include, exclude: ``[B, V, 3]``."""
        self.reader.names = self.vectors(names)
        states, mask = self.states(texts)
        return self.reader(states, mask)

    def keep_own_layers(self) -> None:
        """Remember the layers as they are, for `interpolated`."""
        self._own = copy_of_weights(self.layers)

    @contextmanager
    def interpolated(self, share: float) -> Iterator[None]:
        """Inside, the layers are this share of the way back to the encoder's own.

        These know words that no made sentence holds; trained layers forget them (Wortsman et al., 2022, arXiv 2109.01903).
        """
        trained = copy_of_weights(self.layers)
        put_weights(self.layers, {n: w.lerp(self._own[n], share) for n, w in trained.items()})
        try:
            yield
        finally:
            put_weights(self.layers, trained)


class ShippedTrainee(Trainee):
    """The reader that the package ships: its own copy of the default encoder's layers, over the embeddings."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device
        self.encoder = BertEncoder(max_length=MAX_LENGTH, states_layer=SHIPPED_STATES)
        upper = self.encoder.layers[SHIPPED_STATES:]
        self.reader = PromptReader(torch.zeros(0, self.encoder.dim), SIZE, len(upper))
        for source, target in zip(upper, self.reader.upper, strict=True):
            target.load_state_dict(source.state_dict())
        self.layers = self.reader.upper
        self._known: dict[str, Tensor] = {}

    def vectors(self, names: Sequence[str]) -> Tensor:
        missing = [name for name in names if name not in self._known]
        if missing:
            with torch.autocast("cpu", enabled=False):  # as whoever reads with it will encode them
                self._known |= zip(missing, self.encoder.vectors(missing), strict=True)
        return torch.stack([self._known[name] for name in names]).to(self.device)

    def states(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        states, mask = self.encoder.token_states(list(texts))
        return states.to(self.device), mask.to(self.device)

    def save(self, path: Path) -> None:
        save_reader(self.reader, path)


class EncoderTrainee(Trainee):
    """A reader over a text encoder whose upper layers are trained in place.

    Parameters
    ----------
    name : str
        A folder or a Hugging Face name.
    n_layers : int, optional
        How many layers, from the uppermost down; two thirds of them without it.
    rank : int
        Of what is written of the change of each weight (as LoRA's, arXiv 2106.09685, but cut down after training).

    Raises
    ------
    DPRError
        If the encoder cannot be loaded, or has not so many layers.
    """

    def __init__(self, name: str, n_layers: int | None, rank: int, device: torch.device) -> None:
        super().__init__()
        # A folder is to be found from elsewhere, too.
        self.name = str(Path(name).resolve()) if Path(name).is_dir() else name
        self.rank, self.device = rank, device
        self.tokenizer, self.model = load_pretrained(
            "AutoModel", find_encoder(name), torch.float32, f"text encoder '{name}'", WAY_OUT
        )
        self.tokenizer.padding_side = "right"
        if self.tokenizer.pad_token is None:  # decoders
            self.tokenizer.pad_token = self.tokenizer.eos_token
        if self.model.config.is_encoder_decoder:
            self.model = self.model.get_encoder()
        depth = self.model.config.num_hidden_layers
        stacks = [
            module
            for module in self.model.modules()
            if isinstance(module, nn.ModuleList) and len(module) == depth
        ]
        if not stacks:
            raise DPRError(f"the {depth} layers of text encoder '{name}' are not to be found")
        n_layers = depth * 2 // 3 if n_layers is None else n_layers
        if not 0 <= n_layers <= depth:
            raise DPRError(
                f"text encoder '{name}' has {depth} layers, of which {n_layers} cannot be trained"
            )
        self.layers = stacks[0][depth - n_layers :]
        self.model.requires_grad_(False)
        self.layers.requires_grad_(True)
        size = self.model.config.hidden_size
        self.reader = PromptReader(torch.zeros(0, size), size * SIZE // 384, upper=0)

    def vectors(self, names: Sequence[str]) -> Tensor:
        states, mask = self.states(names)
        summed = (states.float() * mask[..., None]).sum(dim=1)
        return normalize(summed / mask.sum(dim=1, keepdim=True), dim=-1)

    def states(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        tokens = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=MAX_LENGTH, return_tensors="pt"
        ).to(self.device)
        ids, mask = tokens["input_ids"], tokens["attention_mask"]
        states = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        return states, mask.bool()

    def train(self, mode: bool = True) -> EncoderTrainee:
        """As `nn.Module.train`; dropout in the encoder's layers hurts (docs/experiments.md)."""
        super().train(mode)
        self.model.eval()
        return self

    @torch.no_grad()
    def cut_down(self) -> None:
        """Leave of each weight's change, since `keep_own_layers`, the nearest one of the rank, in half precision."""
        self._changes = {}
        for name, weight in self.layers.named_parameters():
            self._changes[name] = up, down = factors(weight - self._own[name], self.rank)
            change = up.half().float() @ down.half().float()
            weight.copy_(self._own[name] + change.reshape(weight.shape))

    def save(self, path: Path) -> None:
        """As `Trainee.save`, after `cut_down`."""
        inner = {id(weight): name for name, weight in self.layers.named_parameters()}
        names = {n: inner[id(w)] for n, w in self.model.named_parameters() if id(w) in inner}
        changes = {name: self._changes[own] for name, own in sorted(names.items())}
        before = hash_of_vectors(self._own[own] for _, own in sorted(names.items()))
        save_reader(self.reader, path, self.name, changes, before)


def factors(change: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Two factors whose product is, of the matrices of this rank, the nearest to a change: ``[m, rank]``, ``[rank, n]``.

    Of a vector they are itself and 1; of a weight of more dimensions, those behind the first count as one.
    """
    if change.dim() < 2:
        return change.reshape(-1, 1), change.new_ones(1, 1)
    left, scale, right = torch.linalg.svd(change.flatten(1), full_matrices=False)
    root = scale[:rank].sqrt()
    return left[:, :rank] * root, root[:, None] * right[:rank]
