"""DPR: a sequential recommender that a sentence can steer, in its own retrieval space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import SequentialRecommender
from torch import Tensor, nn

from recbole_dpr.data.alignment import AlignmentBatch
from recbole_dpr.data.attributes import Attributes
from recbole_dpr.data.prompts import target_intents
from recbole_dpr.data.windows import TARGET_LIST
from recbole_dpr.model.backbone import Backbone, check_causal
from recbole_dpr.model.experts import IntentEmbedding, MixtureOfExperts
from recbole_dpr.model.fusion import Fusion
from recbole_dpr.model.losses import catalogue_cross_entropy
from recbole_dpr.model.pretrained import make_reader, reader_kind
from recbole_dpr.model.reader import read_intents
from recbole_dpr.model.semantic import SemanticSpace
from recbole_dpr.text import TextEncoder

READ_AT_ONCE = 256  # prompts that the reader sees in one go


class DPR(SequentialRecommender):
    """Decoupled Promptable Sequential Recommendation (arXiv 2602.18929) over a RecBole backbone.

    A prompt is *read* (which values it wants, which it rejects), then it *steers*::

        user vector = [state + shift ; semantic]      item vector = [embedding ; semantic item]

    Fusion attends over the history with the prompt in mind; the experts turn state, prompt and
    attended history into the shift and the semantic part. One dot product ranks the catalogue. A
    prompt that asks for nothing, or none, leaves the backbone's scores as they are, bit for bit.

    Parameters
    ----------
    config : DPRConfig
    dataset : PromptDataset or Catalogue
        Gives ``attributes`` and ``num(field)``.
    backbone : type
        RecBole model class of the backbone.
    encoder : TextEncoder
    item_text : Tensor ``[n_items, D]``
        Encoded item texts.
    names : Tensor ``[V, D]``
        Encoded readable names of the attribute values.
    """

    def __init__(
        self,
        config: Any,
        dataset: Any,
        backbone: type[SequentialRecommender],
        encoder: TextEncoder,
        item_text: Tensor,
        names: Tensor,
    ) -> None:
        super().__init__(config, dataset)
        self.prompt_field = config["PROMPT_ID_FIELD"]
        self.task_mix = config["task_mix"]
        self.attributes: Attributes = dataset.attributes
        self.encoder = encoder
        self.backbone = Backbone(backbone(config, dataset))
        check_causal(self.backbone, self.n_items, self.max_seq_length)
        n_values, state_size = len(self.attributes), self.backbone.size
        semantic_size, prompt_size = config["semantic_size"], config["prompt_size"]
        dropout = config["prompt_dropout"]
        self.reader = make_reader(names, reader_kind(config))
        self.semantic = SemanticSpace(item_text, n_values, semantic_size)
        self.prompt = IntentEmbedding(n_values, prompt_size)
        self.dropout = nn.Dropout(dropout)
        self.fusion = Fusion(
            state_size,
            semantic_size,
            prompt_size,
            self.n_items,
            self.max_seq_length,
            config["fusion_heads"],
            dropout,
        )
        self.experts = MixtureOfExperts(
            2 * state_size + prompt_size,
            prompt_size,
            config["expert_size"],
            state_size + semantic_size,
            config["n_experts"],
            dropout,
        )
        self._texts: list[str] = []
        self.set_prompts([""])
        self._frozen = False

    # Prompts

    def set_prompts(self, texts: Sequence[str]) -> None:
        """Read the texts that the prompt ids of the coming interactions stand for; id 0 is none."""
        texts = list(texts)
        fixed = not any(weight.requires_grad for weight in self.reader.parameters())
        if not (fixed and texts == self._texts):
            self._texts, self._intents = texts, self.read(texts)

    @torch.no_grad()
    def read(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """What texts ask for: include and exclude, two float ``[n, V]`` of zeros and ones.

        A blank text asks for nothing.
        """
        was_training = self.reader.training
        self.reader.eval()
        intents = torch.zeros(2, len(texts), len(self.attributes), device=self.device)
        asked = torch.tensor([bool(text.strip()) for text in texts], dtype=torch.bool)
        if asked.any():
            states, mask = self.encoder.token_states(list(texts))
            for rows in asked.nonzero()[:, 0].split(READ_AT_ONCE):
                longest = int(mask[rows].sum(dim=1).max())
                logits = self.reader(
                    states[rows, :longest].to(self.device), mask[rows, :longest].to(self.device)
                )
                intents[:, rows] = torch.stack(read_intents(logits))
        self.reader.train(was_training)
        return intents[0], intents[1]

    def read_prompts(self, prompt_ids: Tensor) -> tuple[Tensor, Tensor]:
        """What the prompts of these ids ask for, two ``[n, V]``; nothing for id 0."""
        include, exclude = self._intents
        return include[prompt_ids], exclude[prompt_ids]

    def router_weights(self, prompt_ids: Tensor) -> Tensor:
        """The router's weights for prompts by id, ``[n, n_experts]``."""
        return self.experts.router(self.prompt(*self.read_prompts(prompt_ids)))

    # Steering

    def steer(
        self, states: Tensor, items: Tensor, where: Tensor, include: Tensor, exclude: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Shift and semantic part of the user vector at n positions.

        Parameters
        ----------
        states : Tensor ``[B, L, d]``
        items : LongTensor ``[B, L]``
        where : BoolTensor ``[B, L]``
            The n positions that have a prompt.
        include, exclude : Tensor ``[n, V]``

        Returns
        -------
        shift ``[n, d]``, semantic ``[n, s]``
        """
        asked = self.prompt(include, exclude)
        prompts = asked.new_zeros(*where.shape, asked.shape[1])
        prompts[where] = asked
        attended = self.fusion(states, items, self.semantic.items()[items], prompts)
        moved = self.experts(torch.cat([states[where], asked, attended[where]], dim=1), asked)
        shift, semantic = moved.split([states.shape[-1], moved.shape[1] - states.shape[-1]], dim=1)
        return shift, self.dropout(semantic + self.semantic(include, exclude))

    def item_vectors(self) -> Tensor:
        """What the user vectors are multiplied with, ``[n_items, d + s]``."""
        return torch.cat([self.backbone.item_vectors(), self.semantic.items()], dim=1)

    def backbone_scores(self, interaction: Interaction) -> Tensor:
        """The backbone's own scores, the prompt ignored: ``[B, n_items]``."""
        return self.backbone.scores(interaction)

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """Scores of the whole catalogue, ``[B, n_items]``, with each interaction's prompt if any."""
        if self.prompt_field not in interaction:
            return self.backbone_scores(interaction)
        include, exclude = self.read_prompts(interaction[self.prompt_field])
        return self.steered_scores(interaction, include, exclude)

    def steered_scores(self, interaction: Interaction, include: Tensor, exclude: Tensor) -> Tensor:
        """Scores ``[B, n_items]`` under intents ``[B, V]``.

        Written as the sum of three products, so that rows with an empty intent keep the backbone's
        scores bit for bit: one longer product would round differently.
        """
        scores = self.backbone_scores(interaction)
        rows = (include.any(dim=1) | exclude.any(dim=1)).nonzero()[:, 0]
        if len(rows):
            items = interaction[self.ITEM_SEQ][rows]
            last = interaction[self.ITEM_SEQ_LEN][rows] - 1
            where = torch.arange(items.shape[1], device=items.device) == last[:, None]
            shift, semantic = self.steer(
                self.backbone.states(items), items, where, include[rows], exclude[rows]
            )
            moved = shift @ self.backbone.item_vectors().T + semantic @ self.semantic.items().T
            scores = scores.index_add(0, rows, moved)
        return scores

    def predict(self, interaction: Interaction) -> Tensor:
        """Score of each interaction's own item, ``[B]``."""
        item = interaction[self.ITEM_ID][:, None]
        return self.full_sort_predict(interaction).gather(1, item)[:, 0]

    # Losses of the three stages

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """Stage 1: next-item cross entropy of the backbone over a batch of windows."""
        return self.backbone.window_loss(interaction)

    def alignment_loss(self, batch: AlignmentBatch) -> Tensor | tuple[Tensor, Tensor]:
        """Stage 2: align item texts, and prompts where the reader is trained too, with the values."""
        matrix = self.attributes.matrix.to(self.device)
        semantic = self.semantic.alignment_loss(batch.items, matrix[batch.items])
        if batch.prompts is None:
            return semantic
        states, mask, include, exclude = batch.prompts
        return semantic, self.reader.loss(self.reader(states, mask), include, exclude)

    def prompted_loss(self, interaction: Interaction, states: Tensor) -> Tensor:
        """Stage 3: cross entropy of the steered scores at every target, each with an intent drawn.

        ``states [B, L, d]`` are those of the frozen backbone.
        """
        items, targets = interaction[self.ITEM_SEQ], interaction[TARGET_LIST]
        where, include, exclude = target_intents(self.attributes, items, targets, self.task_mix)
        shift, semantic = self.steer(states, items, where, include, exclude)
        users = torch.cat([states[where] + shift, semantic], dim=1)
        vectors = torch.cat([self.backbone.item_vectors().detach(), self.semantic.items()], dim=1)
        return catalogue_cross_entropy(users, vectors, targets[where])

    def freeze_backbone(self) -> None:
        """Keep the backbone as stage 1 left it: no gradients, no dropout."""
        self._frozen = True
        self.backbone.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> DPR:
        """As `nn.Module.train`; a frozen backbone stays in evaluation mode."""
        super().train(mode)
        if self._frozen:
            self.backbone.eval()
        return self
