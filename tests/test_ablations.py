"""Each idea of DPR can be switched off by one option, and what is left trains, serves and stays honest."""

import json
import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

import recbole_dpr
from recbole_dpr import run_recbole_dpr
from recbole_dpr.errors import DPRError
from recbole_dpr.model.pooled import PooledReader
from recbole_dpr.model.reader import PromptReader
from recbole_dpr.training import setup

SWITCHES = {
    "fusion": {"fusion": False},
    "experts": {"n_experts": 1},
    "stage2": {"stage2_epochs": 0},
    "joint": {"joint": True},
    "pooled": {"reader": "pooled", "reader_prompts": 300},
    "semantic": {"semantic_part": False},
    "all": {"fusion": False, "n_experts": 1, "semantic_part": False, "joint": True},
}
HISTORIES = [["i1", "i4", "i7", "i2"], ["i5"], [f"i{n}" for n in range(20)]]
STATE, SEMANTIC = 16, 8  # sizes of the tiny model


def train(folder, options):
    """Run on `tiny`; keeps the model that was trained, and its weights before."""
    kept = SimpleNamespace()
    build = setup.build_model

    def keep(*args):
        kept.model = build(*args)
        kept.before = {name: w.clone() for name, w in kept.model.state_dict().items()}
        return kept.model

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setup, "build_model", keep)
        patch.chdir(folder)
        kept.result = run_recbole_dpr("DPR-SASRec", "tiny", config_dict=options)
    kept.run_dir = Path(kept.result["run_dir"])
    kept.history = json.loads((kept.run_dir / "training.json").read_text())
    return kept


@pytest.fixture(scope="module", params=SWITCHES)
def trained(request, make_tiny_options):
    folder, options = make_tiny_options()
    # Prompts are drawn anew for each epoch: stage 3, which begins where Bayes has put it, needs some steps.
    longer = {"stage1_epochs": 3, "stage2_epochs": 3, "stage3_epochs": 6, "stage3_batch_size": 8}
    kept = train(folder, options | longer | {"warmup_steps": 0} | SWITCHES[request.param])
    kept.name, kept.switches = request.param, SWITCHES[request.param]
    kept.recommender = recbole_dpr.load(kept.run_dir)
    return kept


def test_every_stage_that_is_left_learns(trained):
    stages = {row["stage"]: [] for row in trained.history}
    for row in trained.history:
        stages[row["stage"]].append(row["loss"])
    expected = [1] if trained.switches.get("joint") else [1, 2, 3]
    assert list(stages) == [n for n in expected if trained.switches.get(f"stage{n}_epochs") != 0]
    for losses in stages.values():
        assert losses[-1] < losses[0]


def test_what_is_switched_off_has_no_weights(trained):
    names = trained.model.state_dict().keys()
    assert any(n.startswith("fusion.") for n in names) == trained.switches.get("fusion", True)
    experts = {n.split(".")[2] for n in names if n.startswith("experts.experts.")}
    assert len(experts) == trained.switches.get("n_experts", 2)
    size = SEMANTIC if trained.switches.get("semantic_part", True) else 0
    assert trained.recommender.item_vectors().shape[1] == STATE + size


@torch.no_grad()
@pytest.mark.parametrize("asked", [{"include": ["red"]}, {"exclude": ["blue"]}])
def test_a_loaded_run_gives_the_scores_of_the_model_that_was_trained(trained, asked):
    recommender, tokens = trained.recommender, trained.recommender.catalogue.tokens
    ids = [[tokens.index(token) for token in history] for history in HISTORIES]
    interaction = recommender._histories.interaction([row[-10:] for row in ids])
    intents = recommender._intents([None] * len(ids), asked.get("include"), asked.get("exclude"))
    expected = trained.model.steered_scores(interaction, *intents)
    users = recommender.user_vectors(HISTORIES, [None] * len(ids), **asked)
    vectors = torch.from_numpy(users @ recommender.item_vectors().T)
    answers = recommender.recommend(HISTORIES, [None] * len(ids), k=24, **asked)
    for row, answer in enumerate(answers):
        found = torch.tensor([dict(answer)[token] for token in tokens[1:]])
        torch.testing.assert_close(found, expected[row, 1:], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(vectors[row, 1:], found, atol=1e-4, rtol=1e-4)
    plain = trained.model.backbone.model.full_sort_predict(interaction)
    assert not torch.isclose(expected[:, 1:], plain[:, 1:], atol=1e-6).all(dim=1).any()


@torch.no_grad()
def test_an_empty_prompt_returns_the_backbones_scores_bit_for_bit(trained):
    recommender, tokens = trained.recommender, trained.recommender.catalogue.tokens
    ids = [[tokens.index(token) for token in HISTORIES[0]]]
    interaction = recommender._histories.interaction(ids)
    plain = trained.model.backbone.model.full_sort_predict(interaction)[0].tolist()
    for prompt in (None, "", "  "):
        (answer,) = recommender.recommend(HISTORIES[:1], [prompt], k=24)
        assert {token: plain[tokens.index(token)] for token, _ in answer} == dict(answer)
    assert (
        trained.result["tasks"]["standard"]["DPR"]
        == (trained.result["tasks"]["standard"]["backbone"])
    )


def test_explanations_add_up(trained):
    (answer,) = trained.recommender.recommend(HISTORIES[:1], [None], k=24, include=["red"])
    rows = trained.recommender.explain(HISTORIES[0], None, k=24, include=["red"])
    for row, (token, score) in zip(rows, answer, strict=True):
        assert row["item"] == token
        assert row["base"] + row["shift"] + row["semantic"] == pytest.approx(score, abs=1e-5)
        assert bool(row["semantic"]) == trained.switches.get("semantic_part", True)


def test_joint_training_moves_everything_at_once(make_tiny_options):
    folder, options = make_tiny_options()
    kept = train(folder, options | {"joint": True, "reader": "trained", "reader_prompts": 100})
    after = load_file(kept.run_dir / "model.safetensors")
    for part in ("backbone.", "semantic.project", "prompt.", "fusion.", "experts.", "reader."):
        names = [name for name in after if name.startswith(part)]
        assert any(not torch.equal(after[name], kept.before[name]) for name in names), part
    assert {(row["stage"], row["title"]) for row in kept.history} == {(1, "all at once")}
    assert "positive_ndcg@10" in kept.history[0]["valid"]


def test_the_pooled_reader_sees_a_sentences_mean_alone():
    torch.manual_seed(0)
    names, states = torch.randn(3, 32), torch.randn(4, 6, 32)
    mask = torch.ones(4, 6, dtype=torch.bool)
    mask[0, 4:] = False
    mean = (states * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
    same = mean[:, None].expand_as(states)
    for kind, equal in ((PooledReader, True), (PromptReader, False)):
        reader = kind(names, 16, upper=0).eval()
        assert torch.allclose(reader(states, mask), reader(same, mask), atol=1e-5) == equal


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (
            "DPR-FPMC",
            {"semantic_part": False},
            "semantic_part=False needs a backbone with a user v",
        ),
        (
            "DPR-TransRec",
            {"joint": True},
            "joint=True needs a backbone with a user vector; TransRec has none",
        ),
        ("DPR-SASRec", {"joint": True, "stage1_epochs": 0}, "joint=True trains in stage 1 alone"),
        (
            "DPR-SASRec",
            {"reader": "pooled", "stage2_epochs": 0},
            "a pooled reader learns in stage 2",
        ),
        ("DPR-SASRec", {"fusion": "no"}, "option 'fusion' takes a bool"),
    ],
)
def test_switches_that_leave_nothing_are_refused(tiny_options, model, options, message):
    with pytest.raises(DPRError, match=re.escape(message)):
        run_recbole_dpr(model, "tiny", config_dict=tiny_options | options)
    assert not os.path.exists(tiny_options["checkpoint_dir"])


def test_a_run_from_before_the_switches_is_the_full_model(make_tiny_options):
    folder, options = make_tiny_options()
    kept = train(folder, options)
    asked = {"histories": HISTORIES[:1], "prompts": ["something red please"], "k": 24}
    expected = recbole_dpr.load(kept.run_dir).recommend(**asked)
    path = kept.run_dir / "config.yaml"
    lines = path.read_text().splitlines(keepends=True)
    switches = ("fusion:", "joint:", "semantic_part:")
    path.write_text("".join(line for line in lines if not line.startswith(switches)))
    assert len(path.read_text().splitlines()) == len(lines) - len(switches)
    assert recbole_dpr.load(kept.run_dir).recommend(**asked) == expected
