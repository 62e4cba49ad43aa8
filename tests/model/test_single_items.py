"""Models that score one item at a time."""

import torch
from recbole.data.interaction import Interaction

from recbole_dpr.model import single_items


class Pairs:
    """Scores an item by its id and the user's first item."""

    n_items, ITEM_SEQ, ITEM_ID = 11, "item_id_list", "item_id"

    def __init__(self):
        self.largest = 0

    def predict(self, interaction):
        self.largest = max(self.largest, len(interaction))
        return interaction[self.ITEM_ID] + 100.0 * interaction[self.ITEM_SEQ][:, 0]


def test_a_catalogue_is_scored_in_slices(monkeypatch):
    batch = Interaction({"item_id_list": torch.tensor([[1, 2], [3, 0], [5, 6]])})
    expected = torch.arange(11.0) + 100 * torch.tensor([[1.0], [3], [5]])
    for pairs, largest in ((4, 4), (11, 11), (25, 22), (1000, 33)):
        monkeypatch.setattr(single_items, "PAIRS", pairs)
        model = Pairs()
        assert torch.equal(single_items.score_singly(model, batch), expected)
        assert model.largest == largest
