"""MixtureOfExperts and its Router: the second of DPR's three ideas."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class IntentEmbedding(nn.Module):
    """The prompt's vector: which values it wants and rejects, and which of the two it does at all.

    Parameters
    ----------
    n_values, size : int
    """

    def __init__(self, n_values: int, size: int) -> None:
        super().__init__()
        self.values = nn.Linear(2 * n_values, size)
        self.polarity = nn.Linear(2, size, bias=False)
        # Large enough that the router tells the polarities apart before it has learned anything.
        nn.init.normal_(self.polarity.weight, std=0.5)

    def forward(self, include: Tensor, exclude: Tensor) -> Tensor:
        """Vectors ``[n, size]`` from two bool ``[n, V]``."""
        sides = torch.stack([include.any(dim=1), exclude.any(dim=1)], dim=1)
        values = torch.cat([include, exclude], dim=1)
        return self.values(values.float()) + self.polarity(sides.float())


class Router(nn.Module):
    """Weigh the experts by the prompt alone, ``[n, prompt_size]`` to ``[n, n_experts]``."""

    def __init__(self, prompt_size: int, n_experts: int) -> None:
        super().__init__()
        self.choose = nn.Linear(prompt_size, n_experts)
        nn.init.normal_(self.choose.weight, std=0.3)

    def forward(self, prompts: Tensor) -> Tensor:
        """Softmax weights of the experts, ``[n, n_experts]``."""
        return self.choose(prompts).softmax(dim=-1)


class MixtureOfExperts(nn.Module):
    """Give wanting and not wanting weights of their own (DPR, arXiv 2602.18929).

    The paper's reason: both pull the same weights in opposite directions, and the router sends them to
    different experts (docs/ablations.md measures how much they do). Every expert runs, since a prompt's
    experts are few and small. The last layers start at zero: before training, a prompt moves nothing
    but what its values say.

    Parameters
    ----------
    in_size, prompt_size, hidden_size, out_size : int
    n_experts : int
    dropout : float
    """

    def __init__(
        self,
        in_size: int,
        prompt_size: int,
        hidden_size: int,
        out_size: int,
        n_experts: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.router = Router(prompt_size, n_experts)
        self.experts = nn.ModuleList(
            nn.Sequential(
                nn.Linear(in_size, hidden_size),
                nn.GELU(),
                nn.Dropout(dropout),
                nn.Linear(hidden_size, out_size),
            )
            for _ in range(n_experts)
        )
        for expert in self.experts:
            last = list(expert.children())[-1]
            for weight in last.parameters():
                nn.init.zeros_(weight)

    def forward(self, x: Tensor, prompts: Tensor) -> Tensor:
        """The experts' outputs in the router's mixture, ``[n, out_size]``.

        Parameters
        ----------
        x : Tensor ``[n, in_size]``
        prompts : Tensor ``[n, prompt_size]``
        """
        weight = self.router(prompts)
        mixed = [weight[:, i : i + 1] * expert(x) for i, expert in enumerate(self.experts)]
        return sum(mixed[1:], start=mixed[0])
