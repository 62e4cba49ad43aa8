"""A backbone's states at every position are what the model itself returns for every prefix."""

import pytest
import torch
from recbole.model.layers import FeedForward
from recbole.model.sequential_recommender import GRU4Rec, SASRec
from torch.nn.functional import gelu

from recbole_dpr.data.loading import load_data
from recbole_dpr.data.windows import TARGET_LIST, WindowLoader
from recbole_dpr.errors import DPRError
from recbole_dpr.model.backbone import Backbone, set_unknown_user
from recbole_dpr.model.recbole_model import recbole_model
from recbole_dpr.model.steering import STEERING, Scores, Vector, steering_of
from recbole_dpr.naming import sequential_models

# All that are causal on the tiny data set; KSR and GRU4RecKG need files that it lacks.
CAUSAL = {"SASRec", "GRU4Rec", "SASRecF", "GRU4RecF", "FDSA", "S3Rec"}
FEATURES = {"selected_features": ["colour"], "item_attribute": "colour", "n_layers": 2}


class LooksAhead(SASRec):
    """SASRec with a mask that lets every position see the whole history."""

    def get_attention_mask(self, item_seq, bidirectional=False):
        return super().get_attention_mask(item_seq, bidirectional=True)


class Cosine(GRU4Rec):
    """Its score is no dot product, and it does not say so."""

    def full_sort_predict(self, interaction):
        scores = super().full_sort_predict(interaction)
        return scores / scores.norm(dim=1, keepdim=True) + self.item_embedding.weight[:, 0]


def build(tiny_config, model, **options):
    options |= {k: v for k, v in FEATURES.items() if k in tiny_config(model).final_config_dict}
    config = tiny_config(model, **options)
    return recbole_model(config, load_data(config).train).eval()


def test_the_table_has_every_sequential_model_of_recbole():
    assert sorted(STEERING) == sorted(sequential_models().values())


def test_a_class_goes_the_way_that_it_declares_or_inherits():
    class Declared(SASRec):
        steering = Scores("it says so")

    class Inherited(LooksAhead):
        pass

    assert steering_of(Declared) == Declared.steering
    assert steering_of(Inherited) is STEERING["SASRec"]
    assert isinstance(steering_of(torch.nn.Module), Vector)


@pytest.mark.parametrize("name", sorted(CAUSAL))
def test_states_are_the_outputs_for_all_prefixes(tiny_config, name):
    backbone = Backbone(build(tiny_config, name))
    assert backbone.causal and "no earlier state moves" in backbone.why
    history = torch.randint(1, 25, (6, 10))
    with torch.no_grad():
        states = backbone.states(history)
        for n in range(1, 11):
            prefix = history.clone()
            prefix[:, n:] = 0
            expected = backbone.user_vectors(prefix)
            torch.testing.assert_close(states[:, n - 1], expected, atol=1e-5, rtol=1e-5)
    assert "gather_indexes" not in vars(backbone.model)  # the class is as it was


@pytest.mark.parametrize("name", ["NARM", "BERT4Rec", "Caser", "CORE", "NextItNet", "GCSAN"])
def test_without_a_state_at_every_position_the_last_one_stands_behind_item_vectors(
    tiny_config, name
):
    backbone = Backbone(build(tiny_config, name))
    assert not backbone.causal and "last position only" in backbone.why
    history = torch.randint(1, 25, (3, 10))
    history[1, 4:] = 0
    with torch.no_grad():
        states, items = backbone.states(history), backbone.item_vectors()[history]
        last = torch.tensor([9, 3, 9])
        rows = torch.arange(3)
        torch.testing.assert_close(states[rows, last], backbone.user_vectors(history))
    torch.testing.assert_close(states[:, :3], items[:, :3])


def test_windows_are_trained_without_what_stands_in_the_history(tiny_config):
    config = tiny_config("SASRec")
    data = load_data(config)
    batch = next(iter(WindowLoader(config, data.train, 8)))
    model = recbole_model(config, data.train).eval()
    with torch.no_grad():
        loss = Backbone(model).training_loss(batch, exclude_history=True)
        states, items = Backbone(model).states(batch["item_id_list"]), model.item_embedding.weight
        expected = []
        for row, position in (batch[TARGET_LIST] > 0).nonzero().tolist():
            history = batch["item_id_list"][row, : position + 1].tolist()
            left = [i for i in range(1, len(items)) if i not in history]
            logits, target = items @ states[row, position], int(batch[TARGET_LIST][row, position])
            expected.append(logits[left].logsumexp(dim=0) - logits[target])
    assert loss.item() == pytest.approx(torch.stack(expected).mean().item())


def test_a_model_that_looks_ahead_is_trained_on_prefixes(tiny_config):
    backbone = Backbone(build(tiny_config, LooksAhead))
    assert not backbone.causal and "look at later items" in backbone.why


@pytest.mark.parametrize("name", ["LightSANs", "FEARec"])
def test_causality_is_tested_not_assumed(tiny_config, name):
    """Their masks look back only, but a low-rank attention and a Fourier transform do not."""
    backbone = Backbone(build(tiny_config, name))
    assert not backbone.causal and "look at later items" in backbone.why


def test_a_class_whose_score_is_no_dot_product_is_refused(tiny_config):
    with pytest.raises(DPRError, match=r"Cosine are not the dot product.*steering"):
        Backbone(build(tiny_config, Cosine))


def test_a_class_without_item_embedding_is_refused(tiny_config):
    class Renamed(SASRec):
        steering = Vector()

    model = build(tiny_config, Renamed)
    model.items = model.item_embedding
    del model.item_embedding
    with pytest.raises(DPRError, match="Renamed has no item_embedding"):
        Backbone(model)


def test_a_fused_gelu_gives_the_scores_of_recboles(tiny_config):
    model = build(tiny_config, "SASRec")
    layers = [layer for layer in model.modules() if isinstance(layer, FeedForward)]
    assert layers and all(layer.intermediate_act_fn is gelu for layer in layers)
    history, length = torch.randint(1, 25, (6, 10)), torch.full((6,), 10)
    fused = model(history, length)
    for layer in layers:
        layer.intermediate_act_fn = layer.gelu
    torch.testing.assert_close(fused, model(history, length))
    relu = build(tiny_config, "SASRec", hidden_act="relu")
    assert not any(getattr(layer, "intermediate_act_fn", None) is gelu for layer in relu.modules())


def test_positions_alone_start_with_a_spread_of_their_own(tiny_config):
    torch.manual_seed(0)
    usual = build(tiny_config, "SASRec")
    torch.manual_seed(0)
    short = build(tiny_config, "SASRec", position_range=0.001)
    assert 0.0005 < short.position_embedding.weight.std() < 0.002
    for name, weight in usual.named_parameters():
        assert name.startswith("position") or weight.equal(short.get_parameter(name))
    build(tiny_config, "GRU4Rec", position_range=0.001)  # has no positions


@pytest.mark.parametrize(
    ("name", "option"), [("SASRecF", "selected_features"), ("S3Rec", "item_attribute")]
)
def test_a_missing_feature_is_said_with_the_option_to_set(tiny_config, name, option):
    config = tiny_config(name)  # RecBole's default is a column `class`
    data = load_data(config)
    with pytest.raises(DPRError, match=rf"no column 'class'.*set {option} to some of") as caught:
        recbole_model(config, data.train)
    assert "\n" not in str(caught.value)


def test_sizes_that_a_backbone_cannot_take_are_said_in_a_line(tiny_config):
    config = tiny_config("FEARec", n_layers=1)
    with pytest.raises(DPRError, match="FEARec cannot be built on tiny: ZeroDivisionError"):
        recbole_model(config, load_data(config).train)


@pytest.mark.parametrize("name", ["KSR", "GRU4RecKG"])
def test_a_missing_knowledge_graph_is_said_with_the_options_to_set(tiny_config, name):
    with pytest.raises(DPRError, match=r"tiny\.kg; .*set additional_feat_suffix"):
        load_data(tiny_config(name))
    with pytest.raises(DPRError, match="set preload_weight="):
        load_data(tiny_config(name, preload_weight={}))


WITH_USERS = {"Caser", "FOSSIL", "FPMC", "HGN", "HRM", "NPE", "SHAN", "TransRec"}


@pytest.mark.parametrize("name", sorted(WITH_USERS))
def test_a_new_user_is_the_mean_of_the_known_ones(tiny_config, name):
    model = build(tiny_config, name)
    before = {key: weight.clone() for key, weight in model.state_dict().items()}
    set_unknown_user(model)
    changed = {k for k, weight in model.state_dict().items() if not torch.equal(weight, before[k])}
    assert len(changed) == 1
    (key,) = changed
    users = model.state_dict()[key]
    assert torch.equal(users[1:], before[key][1:])
    torch.testing.assert_close(users[0], before[key][1:].mean(dim=0))


@pytest.mark.parametrize("name", ["SASRec", "GRU4Rec", "SINE"])
def test_a_model_without_user_vectors_stays_as_it_is(tiny_config, name):
    model = build(tiny_config, name)
    before = {key: weight.clone() for key, weight in model.state_dict().items()}
    set_unknown_user(model)
    assert all(torch.equal(weight, before[key]) for key, weight in model.state_dict().items())


def test_scores_that_are_kept_are_those_of_the_weights(tiny_config):
    backbone = Backbone(build(tiny_config, "DIN"))
    batch = load_data(tiny_config("DIN")).train[:3]
    with torch.no_grad():
        before = backbone.scores(batch)
        next(iter(backbone.model.dnn_predict_layers.parameters())).add_(1.0)
        after = backbone.scores(batch)
        backbone.requires_grad_(False)
        assert not torch.equal(before, after)
        assert torch.equal(backbone.scores(batch), after) and torch.equal(
            backbone.scores(batch), after
        )
