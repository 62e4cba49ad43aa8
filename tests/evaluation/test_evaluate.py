"""Whole tasks through RecBole's loader and evaluator, on a small data set with known answers."""

import copy
import json
from dataclasses import make_dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from recbole.config import Config
from recbole.data.dataset import SequentialDataset
from recbole.data.utils import data_preparation
from recbole.model.sequential_recommender import SASRec
from recbole.trainer import Trainer

from recbole_dpr.compat import bridge_numpy
from recbole_dpr.data.attributes import Attributes
from recbole_dpr.errors import DPRError
from recbole_dpr.evaluation.evaluate import evaluate_tasks
from recbole_dpr.evaluation.systems import filter_
from recbole_dpr.model.steering import Scores

N_USERS, N_ITEMS, LENGTH = 60, 40, 8
PROMPTED = ["positive", "negative", "compound"]
LEAVE_ONE_OUT = {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full"}
BASELINES = ["backbone", "filter", "calibrated_filter", "post_filter"]


class TinyConfig(Config):
    def compatibility_settings(self):
        bridge_numpy()


class PromptedSplit(SequentialDataset):
    """Stand-in for PromptDataset: the contract's `with_prompts` and `attributes`, no more."""

    attributes = None

    def with_prompts(self, rows, prompt_ids):
        part = copy.copy(self)
        part.inter_feat = copy.copy(self.inter_feat)
        part.inter_feat.interaction = {k: v[rows] for k, v in self.inter_feat.interaction.items()}
        part.inter_feat.interaction["prompt_id"] = prompt_ids
        part.inter_feat.length = len(rows)
        return part


Prompts = make_dataclass("Prompts", ["include", "exclude"])
Task = make_dataclass("Task", ["name", "phrases", "rows", "prompt_ids", "left_out", "on_habit"])


class FilteringModel(SASRec):
    """A "promptable" model that does what `filter` does, and nothing without a prompt."""

    def __init__(self, config, dataset, attributes, prompts):
        super().__init__(config, dataset)
        self.attributes, self.prompts, self.calls = attributes, prompts, 0

    def backbone_scores(self, interaction):
        self.calls += 1
        return super().full_sort_predict(interaction)

    def full_sort_predict(self, interaction):
        # In float32 the shift below would make ties of near scores.
        scores = super().full_sort_predict(interaction).double()
        ids = interaction["prompt_id"]
        include, exclude = self.prompts.include[ids], self.prompts.exclude[ids]
        behind = ~self.attributes.allowed(include, exclude) & (ids > 0)[:, None]
        return scores - 1000 * (behind + 1.0 * self.attributes.forbidden(exclude))


class World(SimpleNamespace):
    def evaluate(self, model, tasks=None, **more):
        tasks = self.tasks if tasks is None else tasks
        return evaluate_tasks(model, tasks, self.config, self.test, self.prompts, **more)

    def task(self, name):
        return next(task for task in self.tasks if task.name == name)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    (folder / "tiny").mkdir()
    rng = np.random.default_rng(0)
    lines = ["user_id:token\titem_id:token\ttimestamp:float"]
    for user in range(N_USERS):
        # Every item occurs, so that RecBole's ids cover the whole catalogue.
        items = [(user * LENGTH + step) % N_ITEMS for step in range(LENGTH)]
        lines += [f"u{user}\ti{item}\t{t}" for t, item in enumerate(rng.permutation(items))]
    (folder / "tiny" / "tiny.inter").write_text("\n".join(lines) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["test"])
        config = TinyConfig(
            model="SASRec",
            dataset="tiny",
            config_dict={
                "data_path": str(folder),
                "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
                "eval_args": LEAVE_ONE_OUT,
                "train_neg_sample_args": None,
                "metrics": ["NDCG", "Recall", "MRR", "Hit", "Precision"],
                "topk": [5, 10],
                "metric_decimal_place": 8,
                "eval_batch_size": 16,
                "MAX_ITEM_LIST_LENGTH": 6,
                "hidden_size": 8,
                "inner_size": 8,
                "state": "error",
                "show_progress": False,
                "use_gpu": False,
                "PROMPT_ID_FIELD": "prompt_id",
                "post_filter_k": 12,
            },
        )
    torch.manual_seed(0)
    _, _, loader = data_preparation(config, PromptedSplit(config))
    test = loader._dataset
    matrix = torch.rand(test.item_num, 5) < 0.4
    matrix[0] = False
    test.attributes = Attributes(list("abcde"), ["genre"] * 5, matrix)
    # Prompts 1-5 want a value, 6-10 rule one out, 11-15 do both; 0 asks for nothing.
    value, none = torch.eye(5).bool(), torch.zeros(5, 5).bool()
    include = torch.cat([none[:1], value, none, value])
    exclude = torch.cat([none[:1], none, value, value.roll(1, 0)])
    prompts = Prompts(include, exclude)
    rows = torch.arange(N_USERS)
    tasks = [Task("standard", "", rows, torch.zeros(N_USERS).long(), 0, rows < 0)]
    for kind, name in enumerate(PROMPTED):
        for phrases in ("unseen", "train"):
            ids = 1 + 5 * kind + rows[3:] % 5
            tasks.append(Task(name, phrases, rows[3:], ids, 3, rows[3:] % 3 == 0))
    made = World(config=config, test=test, loader=loader, prompts=prompts, tasks=tasks)
    made.plain = SASRec(config, test)
    made.promptable = FilteringModel(config, test, test.attributes, prompts)
    return made


def test_the_standard_task_has_recboles_own_figures(world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # RecBole's trainer makes a folder for tensorboard where it stands
    metrics, _ = world.evaluate(world.plain)
    recboles = Trainer(world.config, world.plain).evaluate(world.loader, load_best_model=False)
    ours = metrics["tasks"]["standard"]["backbone"]
    assert {key: ours[key] for key in recboles} == dict(recboles)
    assert 0 < ours["ndcg@10"] < 1
    assert ours["users"] == N_USERS


def test_metrics_of_recboles_that_look_at_lists_are_measured_too(world, monkeypatch):
    monkeypatch.setitem(world.config.final_config_dict, "metrics", ["NDCG", "ShannonEntropy"])
    metrics, _ = world.evaluate(world.promptable)
    for figures in (metrics["tasks"]["positive"], metrics["slices"]["positive"]["off_habit"]):
        assert figures["DPR"]["shannonentropy@10"] > 0


def test_the_metrics_have_the_contracts_shape(world):
    metrics, _ = world.evaluate(world.promptable)
    assert (metrics["model"], metrics["dataset"]) == ("SASRec", "tiny")
    assert metrics["seed"] == world.config["seed"]
    for part in ("tasks", "tasks_seen_phrases"):
        assert list(metrics[part]) == ["standard", *PROMPTED]
        assert list(metrics[part]["standard"]) == ["DPR", "backbone"]
        for name in PROMPTED:
            assert list(metrics[part][name]) == ["DPR", *BASELINES]
            for figures in metrics[part][name].values():
                wanted = {"ndcg", "recall", "mrr", "hit", "precision", "satisfied", "violation"}
                assert set(figures) == {f"{m}@{k}" for m in wanted for k in (5, 10)} | {"users"}
                assert figures["users"] == N_USERS - 3
    assert metrics["left_out"] == {"standard": 0, "positive": 3, "negative": 3, "compound": 3}
    assert metrics["seconds"]["evaluate"] > 0
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


def test_a_plain_model_is_the_backbone_and_there_is_no_dpr(world):
    metrics, _ = world.evaluate(world.plain)
    assert list(metrics["tasks"]["standard"]) == ["backbone"]
    assert list(metrics["tasks"]["positive"]) == BASELINES


def test_each_system_gets_what_it_deserves(world):
    metrics, ranks = world.evaluate(world.promptable)
    standard, positive = metrics["tasks"]["standard"], metrics["tasks"]["positive"]
    assert standard["DPR"] == standard["backbone"]  # without a prompt, exactly the backbone
    for name in PROMPTED:
        figures = metrics["tasks"][name]
        # The model does what `filter` does, so it must measure the same.
        assert figures["DPR"] == figures["filter"]
        assert figures["filter"]["violation@5"] == 0 == figures["calibrated_filter"]["violation@5"]
        assert figures["filter"]["satisfied@5"] > figures["backbone"]["satisfied@5"]
        assert ranks["unseen"][name]["ranks"]["DPR"] == ranks["unseen"][name]["ranks"]["filter"]
    for name in PROMPTED:
        figures = metrics["tasks"][name]
        assert figures["calibrated_filter"] != figures["filter"]
    assert positive["backbone"]["satisfied@5"] < positive["post_filter"]["satisfied@5"] < 1
    assert positive["filter"]["violation@10"] == 0  # a positive prompt forbids nothing


def test_seen_and_unseen_phrases_are_kept_apart(world):
    only_seen = [task for task in world.tasks if task.phrases == "train"]
    metrics, ranks = world.evaluate(world.plain, only_seen)
    assert metrics["tasks"] == {} == ranks["unseen"]
    assert list(metrics["tasks_seen_phrases"]) == list(ranks["train"]) == PROMPTED


def test_the_slices_are_the_two_parts_of_the_task(world):
    metrics, _ = world.evaluate(world.plain)
    assert set(metrics["slices"]) == set(PROMPTED)
    whole = metrics["tasks"]["positive"]["filter"]
    on, off = (metrics["slices"]["positive"][part]["filter"] for part in ("on_habit", "off_habit"))
    assert on["users"] == 19
    assert off["users"] == 38
    for key in ("ndcg@10", "satisfied@5"):
        mean = (on[key] * on["users"] + off[key] * off["users"]) / whole["users"]
        assert mean == pytest.approx(whole[key], abs=1e-6)
    # The rows of the slice, evaluated as a task of their own, have the same figures.
    task = world.task("positive")
    chosen = task.on_habit
    alone = Task(
        "positive", "unseen", task.rows[chosen], task.prompt_ids[chosen], 0, chosen[chosen]
    )
    assert world.evaluate(world.plain, [alone])[0]["tasks"]["positive"]["filter"] == on


def test_the_ranks_give_the_figures_and_their_errors(world):
    metrics, ranks = world.evaluate(world.plain)
    task = ranks["unseen"]["positive"]
    assert task["rows"] == world.task("positive").rows.tolist()
    place = np.ceil(task["ranks"]["filter"])
    gain = np.where(place <= 10, 1 / np.log2(place + 1), 0)
    assert metrics["tasks"]["positive"]["filter"]["ndcg@10"] == pytest.approx(gain.mean(), abs=1e-7)
    error = gain.std(ddof=1) / len(gain) ** 0.5
    assert metrics["standard_error"]["positive"]["filter"] == pytest.approx(error, abs=1e-7)


def test_the_backbone_scores_each_batch_once_for_all_systems(world):
    world.promptable.calls = 0
    world.evaluate(world.promptable, [world.task("positive")])
    assert world.promptable.calls == 4  # 57 users in batches of 16


def test_one_more_system_is_one_more_entry(world):
    metrics, _ = world.evaluate(
        world.plain, [world.task("positive")], extra={"again": lambda batch: filter_(batch)}
    )
    figures = metrics["tasks"]["positive"]
    assert figures["again"] == figures["filter"]


def test_a_task_without_users_has_no_figures(world):
    nobody = torch.empty(0).long()
    empty = Task("positive", "unseen", nobody, nobody, 60, nobody.bool())
    metrics, _ = world.evaluate(world.plain, [empty])
    assert metrics["tasks"]["positive"] == {name: {"users": 0} for name in BASELINES}
    assert metrics["left_out"]["positive"] == 60
    json.dumps(metrics, allow_nan=False)


def test_nan_scores_name_the_system_and_the_task(world):
    model = copy.deepcopy(world.plain)
    with torch.no_grad():
        model.item_embedding.weight[5] = torch.nan
    with pytest.raises(DPRError, match="backbone on the standard task gave NaN"):
        world.evaluate(model)


class Pairwise(SASRec):
    """Scores one item at a time, as RecBole's DIN and DIEN do."""

    steering = Scores("it scores one item at a time", single=True)

    def full_sort_predict(self, interaction):
        raise NotImplementedError


def test_a_model_that_scores_single_items_ranks_the_catalogue(world):
    model = Pairwise(world.config, world.test)
    model.load_state_dict(world.plain.state_dict())
    (singly, _), (at_once, _) = world.evaluate(model), world.evaluate(world.plain)
    assert singly["tasks"]["standard"]["backbone"] == at_once["tasks"]["standard"]["backbone"]


def test_the_model_is_measured_without_dropout_and_gradients(world):
    world.plain.train()
    first, _ = world.evaluate(world.plain, [world.task("standard")])
    second, _ = world.evaluate(world.plain, [world.task("standard")])
    assert first["tasks"] == second["tasks"]
