"""A backbone's states at every position are what the model itself returns for every prefix."""

import pytest
import torch
from recbole.model.sequential_recommender import NPE, SASRec

from recbole_dpr.data.loading import load_data
from recbole_dpr.errors import DPRError
from recbole_dpr.model.backbone import Backbone, check_causal, trains_on_windows


class LooksAhead(SASRec):
    """SASRec with a mask that lets every position see the whole history."""

    def get_attention_mask(self, item_seq, bidirectional=False):
        return super().get_attention_mask(item_seq, bidirectional=True)


def build(tiny_config, model):
    config = tiny_config(model)
    return config.model_class(config, load_data(config).train).eval()


@pytest.mark.parametrize("name", ["SASRec", "GRU4Rec"])
def test_states_are_the_outputs_for_all_prefixes(tiny_config, name):
    model = build(tiny_config, name)
    history = torch.randint(1, 25, (6, 10))
    with torch.no_grad():
        states = Backbone(model).states(history)
        for n in range(1, 11):
            prefix = history.clone()
            prefix[:, n:] = 0
            expected = model(prefix, torch.full((6,), n))
            torch.testing.assert_close(states[:, n - 1], expected, atol=1e-5, rtol=1e-5)
    assert "gather_indexes" not in vars(model)  # the class is as it was


@pytest.mark.parametrize("name", ["SASRec", "GRU4Rec"])
def test_causal_models_pass_the_probe(tiny_config, name):
    model = build(tiny_config, name)
    check_causal(Backbone(model), 25, 10)
    assert trains_on_windows(model)


def test_a_model_that_looks_ahead_is_refused(tiny_config):
    model = build(tiny_config, LooksAhead)
    assert not trains_on_windows(model)
    with pytest.raises(DPRError, match="LooksAhead is not causal"):
        check_causal(Backbone(model), 25, 10)


def test_a_model_that_takes_more_than_a_history_does_not_train_on_windows(tiny_config):
    config = tiny_config("NPE")
    assert not trains_on_windows(NPE(config, load_data(config).train))
