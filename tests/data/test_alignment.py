"""What stage 2 learns from: the catalogue, and made prompts for a reader that is trained."""

import torch

from recbole_dpr.data.alignment import STEPS, AlignmentLoader
from recbole_dpr.data.intent import Intent
from recbole_dpr.data.prompts import PromptTable
from recbole_dpr.model.semantic import SemanticSpace


class Stub:
    """Stands for the encoder, and for the names that it finds: none."""

    def token_states(self, texts):
        mask = torch.tensor([[i < len(text) for i in range(9)] for text in texts])
        return torch.rand(len(texts), 9, 2), mask

    def owners(self, texts, encoder):
        return torch.full((len(texts), 9), -1)


def test_fewer_prompts_than_steps_come_again():
    table = PromptTable(3)
    for value, text in enumerate(("one", "two", "three")):
        table.add(text, Intent((value,)))
    loader = AlignmentLoader(11, 2, 4, 0, table, Stub(), Stub())
    batches = list(loader)
    assert len(batches) == len(loader) >= STEPS
    asked = [len(batch.prompts[0]) for batch in batches]
    assert min(asked) >= 1 and sum(asked) < len(batches) + 3
    seen = torch.cat([batch.prompts[3] for batch in batches]).sum(dim=0)
    assert seen.max() - seen.min() <= 1


def test_thousands_of_values_take_more_steps():
    few, many = (AlignmentLoader(11, n, 4, 0, None, Stub(), Stub()) for n in (1000, 3000))
    assert len(few) < 300 and 600 <= len(many) < 610


def test_more_prompts_than_items_make_batches_without_items():
    table = PromptTable(3)
    for number in range(40_000):
        table.add(f"wish {number}", Intent((number % 3,)))
    loader = AlignmentLoader(5, 2, 1, 0, table, Stub(), Stub())
    space = SemanticSpace(torch.rand(6, 4), 3, 8, 8)
    batch = next(batch for batch in loader if not len(batch.items))
    loss = space.alignment_loss(batch.items, torch.zeros(0, 3).bool())
    loss.backward()
    assert loss.item() == 0
