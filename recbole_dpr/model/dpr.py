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
from recbole_dpr.data.dataset import SEEN_LIST
from recbole_dpr.data.draws import target_intents
from recbole_dpr.data.logged import LoggedIntents
from recbole_dpr.data.windows import LOGGED_LIST, TARGET_LIST, before
from recbole_dpr.model.backbone import Backbone
from recbole_dpr.model.experts import IntentEmbedding, MixtureOfExperts
from recbole_dpr.model.fusion import Fusion, NoFusion
from recbole_dpr.model.losses import catalogue_cross_entropy
from recbole_dpr.model.pretrained import make_reader
from recbole_dpr.model.reader import PromptReader
from recbole_dpr.model.reading import read_texts
from recbole_dpr.model.recbole_model import recbole_model
from recbole_dpr.model.semantic import SemanticSpace, enough_for
from recbole_dpr.model.stamp import Kept, stamp
from recbole_dpr.model.steered import Steered
from recbole_dpr.readers import reader_names
from recbole_dpr.text import TextEncoder
from recbole_dpr.text.mentions import Mentions


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
    encoder : TextEncoder
        Gives the token states that the reader reads.
    item_text : Tensor ``[n_items, D]``
        Encoded item texts.
    names : Tensor ``[V, D]``
        Readable names of the attribute values, encoded by ``encoder``.
    mentions : Mentions
        Finds their names in a text.
    """

    def __init__(
        self,
        config: Any,
        dataset: Any,
        encoder: TextEncoder,
        item_text: Tensor,
        names: Tensor,
        mentions: Mentions,
    ) -> None:
        super().__init__(config, dataset)
        self.prompt_field = config["PROMPT_ID_FIELD"]
        self.task_mix = config["task_mix"]
        self.strength: float = config["strength"]
        self.attributes: Attributes = dataset.attributes
        self.encoder = encoder
        self.mentions = mentions
        self.exclude_history: bool = config["exclude_history"]
        self.backbone = Backbone(recbole_model(config, dataset))
        n_values = len(self.attributes)
        semantic_size = config["semantic_size"] or enough_for(n_values)
        prompt_size, state_size = config["prompt_size"], self.backbone.size or semantic_size
        dropout = config["prompt_dropout"]
        part = semantic_size if config["semantic_part"] else 0
        self.reader = make_reader(names, config, reader_names(config)[0])
        self.semantic = SemanticSpace(item_text, n_values, semantic_size, part)
        self.prompt = IntentEmbedding(n_values, prompt_size)
        self.dropout = nn.Dropout(dropout)
        self.fusion: Fusion | NoFusion = NoFusion()
        if config["fusion"]:
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
            state_size + prompt_size + self.fusion.size,
            prompt_size,
            config["expert_size"],
            self.backbone.size + part,
            config["n_experts"],
            dropout,
        )
        # Readers that decide together with it, each with the encoder that it reads; never trained, nor saved.
        self.other_readers: list[tuple[TextEncoder, PromptReader]] = []
        self.logged: LoggedIntents | None = None
        self._steered: Kept[Steered] = Kept()
        self._heard: Kept[tuple[Tensor, Tensor]] = Kept()
        self.set_prompts([""])
        self._frozen = False

    # Prompts

    def set_prompts(self, texts: Sequence[str]) -> None:
        """Read the texts that the prompt ids of the coming interactions stand for; id 0 is none."""
        texts = list(texts)
        # A reader that has learned since reads anew.
        made_of = texts, stamp(self.reader.parameters())
        self._intents = self._heard.get(made_of, lambda: self.read(texts))

    def read(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """What texts ask for: include and exclude, two bool ``[n, V]``.

        A blank text asks for nothing.
        """
        readers = [(self.encoder, self.reader), *self.other_readers]
        include, exclude = read_texts(texts, readers, self.mentions)
        return include.to(self.device), exclude.to(self.device)

    def read_prompts(self, prompt_ids: Tensor) -> tuple[Tensor, Tensor]:
        """What the prompts of these ids ask for, two bool ``[n, V]``; nothing for id 0."""
        include, exclude = self._intents
        return include[prompt_ids], exclude[prompt_ids]

    def router_weights(self, include: Tensor, exclude: Tensor) -> Tensor:
        """The router's weights for intents ``[n, V]``: ``[n, n_experts]``."""
        return self.experts.router(self.prompt(include, exclude))

    # Steering

    def states(self, items: Tensor, users: Tensor | None = None) -> Tensor:
        """What the fusion knows of a history: the backbone's states, ``[B, L, d]``."""
        return self.backbone.states(items, users)

    def scores_and_states(self, interaction: Interaction) -> tuple[Tensor, Tensor]:
        """The backbone's own scores, ``[B, n_items]``, and `states`."""
        return self.backbone.scores_and_states(interaction)

    def steer(
        self, states: Tensor, items: Tensor, where: Tensor, include: Tensor, exclude: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Shift and semantic part of the user vector at n positions.

        Parameters
        ----------
        states : Tensor ``[B, L, d]``
            From `states`.
        items : LongTensor ``[B, L]``
        where : BoolTensor ``[B, L]``
            The n positions that have a prompt.
        include, exclude : BoolTensor ``[n, V]``

        Returns
        -------
        shift ``[n, d]`` (d = 0 in a `ScoreDPR`), semantic ``[n, s]`` (s = 0 where
        ``semantic_part`` is switched off)
        """
        asked = self.prompt(include, exclude)
        prompts = asked.new_zeros(*where.shape, asked.shape[1])
        prompts[where] = asked
        attended = self.fusion(states, items, self.semantic.items()[items], prompts)
        return self.move(states[where], asked, attended[where], include, exclude)

    def move(
        self, state: Tensor, asked: Tensor, attended: Tensor, include: Tensor, exclude: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Shift and semantic part of n user vectors, as `steer` gives them.

        Parameters
        ----------
        state : Tensor ``[n, d]``
            Of `states`, at the n positions.
        asked : Tensor ``[n, p]``
            The intents, embedded.
        attended : Tensor ``[n, f]``
            What the fusion has made of the histories up to there.
        include, exclude : BoolTensor ``[n, V]``
        """
        moved = self.experts(torch.cat([state, asked, attended], dim=1), asked)
        size = self.backbone.size
        shift, semantic = moved[:, :size], self.dropout(moved[:, size:])
        # The wish itself is what stage 2 has aligned: dropout there would let unwanted items through.
        return shift, semantic + self.semantic(include, exclude)

    def item_vectors(self) -> Tensor:
        """What the user vectors are multiplied with, ``[n_items, d + s]``."""
        return torch.cat([self.backbone.item_vectors(), self.semantic.item_part()], dim=1)

    def backbone_scores(self, interaction: Interaction) -> Tensor:
        """The backbone's own scores, the prompt ignored: ``[B, n_items]``."""
        return self.without_history(self.backbone.scores(interaction), interaction)

    def without_history(self, scores: Tensor, interaction: Interaction) -> Tensor:
        """Scores ``[B, n_items]``, those of the histories at minus infinity where the run excludes them."""
        if not self.exclude_history:
            return scores
        seen = SEEN_LIST if SEEN_LIST in interaction else self.ITEM_SEQ
        return scores.scatter(1, interaction[seen], -torch.inf)

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """Scores of the whole catalogue, ``[B, n_items]``, with each interaction's prompt if any."""
        if self.prompt_field not in interaction:
            return self.backbone_scores(interaction)
        include, exclude = self.read_prompts(interaction[self.prompt_field])
        return self.steered_scores(interaction, include, exclude)

    def steered_scores(self, interaction: Interaction, include: Tensor, exclude: Tensor) -> Tensor:
        """Scores ``[B, n_items]`` under intents ``[B, V]``, steered by option ``strength``; no gradients.

        Rows with an empty intent keep the backbone's scores bit for bit.
        """
        if not (self.strength and bool(include.any() | exclude.any())):
            # Most backbones would run once more for their states.
            return self.backbone_scores(interaction)
        parts = (self.backbone, self.semantic, self.fusion)
        weights = stamp(w for part in parts for w in (*part.parameters(), *part.buffers()))
        steered = self._steered.get(weights, lambda: Steered(self))
        scores = steered.scores(interaction, include, exclude, self.strength)
        return self.without_history(scores, interaction)

    def own_logits(self, scores: Tensor) -> Tensor:
        """The backbone's scores on a scale on which they add up with a dot product: as they are."""
        return scores

    def predict(self, interaction: Interaction) -> Tensor:
        """Score of each interaction's own item, ``[B]``."""
        item = interaction[self.ITEM_ID][:, None]
        return self.full_sort_predict(interaction).gather(1, item)[:, 0]

    # Losses of the three stages

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """Stage 1: the backbone's loss over a batch of windows, or of prefixes if it is not causal."""
        return self.backbone.training_loss(interaction, self.exclude_history)

    def alignment_loss(self, batch: AlignmentBatch) -> Tensor | tuple[Tensor, Tensor]:
        """Stage 2: align item texts, and prompts where the reader is trained too, with the values."""
        matrix = self.attributes.matrix[batch.items.cpu()].to(self.device)
        semantic = self.semantic.alignment_loss(batch.items, matrix)
        if batch.prompts is None:
            return semantic
        *seen, include, exclude = batch.prompts
        return semantic, self.reader.loss(self.reader(*seen), include, exclude)

    def backbone_part(self, interaction: Interaction) -> Tensor:
        """What steering needs of the backbone for a batch of windows; once it is frozen, always the same.

        Its states, ``[B, L, d]``.
        """
        return self.backbone.states(interaction[self.ITEM_SEQ], interaction[self.USER_ID])

    def prompted_loss(self, interaction: Interaction, part: Tensor) -> Tensor:
        """Stage 3: `steered_loss` at every target, each with an intent drawn.

        A target that came with a logged prompt has the intent of that one. ``part`` is the
        `backbone_part` of the batch.
        """
        items, targets = interaction[self.ITEM_SEQ], interaction[TARGET_LIST]
        own = interaction.interaction.get(LOGGED_LIST)
        intents = target_intents(self.attributes, items, targets, self.task_mix, own, self.logged)
        return self.steered_loss(interaction, part, *intents)

    def steered_loss(
        self,
        interaction: Interaction,
        part: Tensor,
        where: Tensor,
        include: Tensor,
        exclude: Tensor,
    ) -> Tensor:
        """Cross entropy of the steered scores at the targets that have an intent.

        Parameters
        ----------
        interaction : Interaction
            A batch of windows.
        part : Tensor
            Its `backbone_part`.
        where : BoolTensor ``[B, L]``
            The n targets.
        include, exclude : BoolTensor ``[n, V]``
        """
        items, targets = interaction[self.ITEM_SEQ], interaction[TARGET_LIST]
        states = self._window_states(part, items)
        shift, semantic = self.steer(states, items, where, include, exclude)
        excluded = before(items, where) if self.exclude_history else None
        return self._cross_entropy(part, where, shift, semantic, targets[where], excluded)

    def _window_states(self, part: Tensor, items: Tensor) -> Tensor:
        """`states` of windows ``[B, L]`` whose `backbone_part` is known."""
        return part

    def _cross_entropy(
        self,
        part: Tensor,
        where: Tensor,
        shift: Tensor,
        semantic: Tensor,
        targets: Tensor,
        excluded: Tensor | None,
    ) -> Tensor:
        """Of the moved scores at the n positions `where`; `excluded` do not compete."""
        users = torch.cat([part[where] + shift, semantic], dim=1)
        return catalogue_cross_entropy(users, self.item_vectors(), targets, excluded)

    def steering_parameters(self, semantic: bool = True) -> list[nn.Parameter]:
        """What stage 3 trains: neither the backbone nor the reader, and the semantic space if told so."""
        modules: list[nn.Module] = [self.prompt, self.fusion, self.experts]
        if semantic:
            modules.insert(0, self.semantic)
        return [parameter for module in modules for parameter in module.parameters()]

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
