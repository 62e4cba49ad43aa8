"""Delta AUC: the AUC against a count over all pairs, and systems whose answer is known."""

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu

from recbole_dpr.data.loading import load_data
from recbole_dpr.data.phrasebook import Phrasebook
from recbole_dpr.data.prompts import PromptTable
from recbole_dpr.evaluation.steereval import auc, delta_auc, steering_tasks, value_names
from recbole_dpr.evaluation.systems import backbone, filter_
from recbole_dpr.model.recbole_model import recbole_model


@pytest.fixture
def scores():
    generator = torch.Generator().manual_seed(4)
    scores = torch.randint(0, 6, (300, 20), generator=generator).double()  # with many ties
    marked = torch.rand(300, 20, generator=generator) < 0.3
    marked[:, 0], marked[:, 1] = True, False
    return scores, marked


def test_the_auc_counts_pairs_and_half_of_the_ties(scores):
    scores, marked = scores
    result = auc(scores, marked)
    for row in range(0, 300, 37):
        own, others = scores[row][marked[row]][:, None], scores[row][~marked[row]][None, :]
        wins = (own > others).double() + 0.5 * (own == others).double()
        assert float(result[row]) == pytest.approx(float(wins.mean()))


def test_the_auc_is_the_statistic_of_mann_and_whitney(scores):
    scores, marked = scores
    own, others = scores[0][marked[0]].numpy(), scores[0][~marked[0]].numpy()
    expected = mannwhitneyu(own, others).statistic / (len(own) * len(others))
    assert float(auc(scores, marked)[0]) == pytest.approx(expected)


def test_what_is_never_recommended_takes_no_part(scores):
    scores, marked = scores
    hidden = torch.rand(scores.shape, generator=torch.Generator().manual_seed(5)) < 0.3
    hidden[:, :2] = False
    result = auc(scores.masked_fill(hidden, -torch.inf), marked)
    for row in range(0, 300, 37):
        kept = ~hidden[row]
        expected = auc(scores[row][kept][None], marked[row][kept][None])
        assert float(result[row]) == pytest.approx(float(expected))


def test_infinite_scores_have_their_place():
    scores = torch.tensor([[-torch.inf, 1.0, torch.inf, 0.0]])
    assert auc(scores, torch.tensor([[False, False, True, False]])).tolist() == [1.0]
    assert auc(scores, torch.tensor([[True, False, False, True]])).tolist() == [0.0]
    assert auc(scores, torch.tensor([[True, False, False, False]])).tolist() == [0.5]


@pytest.fixture
def world(tiny_config):
    config = tiny_config("SASRec")
    data = load_data(config)
    split = data.test.dataset
    phrasebook = Phrasebook.load("generic", split.attributes.values)
    prompts = PromptTable(len(split.attributes))
    tasks = steering_tasks(split, phrasebook, prompts, 5, 6)
    return config, data, recbole_model(config, data.train), tasks, prompts


def test_every_value_is_asked_of_the_same_users(world):
    _, data, _, tasks, prompts = world
    split = data.test.dataset
    assert [task.name for task in tasks] == ["increase", "decrease"]
    for task, side in zip(tasks, ("include", "exclude"), strict=True):
        users = task.rows.view(3, 6)
        assert (users == users[0]).all()
        assert len(users[0].unique()) == 6
        asked = getattr(prompts, side)[task.prompt_ids]
        assert asked.int().argmax(dim=1).tolist() == np.repeat(range(3), 6).tolist()
        assert (asked.sum(dim=1) == 1).all()
    phrasebook = Phrasebook.load("generic", split.attributes.values)
    again = PromptTable(3)
    same = steering_tasks(split, phrasebook, again, 5, 6)
    assert again.texts == prompts.texts
    assert torch.equal(same[0].rows, tasks[0].rows)
    other = steering_tasks(split, phrasebook, PromptTable(3), 6, 6)
    assert not torch.equal(other[0].rows, tasks[0].rows)


def test_the_filter_lifts_all_and_the_backbone_moves_nothing(world):
    config, data, model, tasks, prompts = world
    split = data.test.dataset
    systems = {"backbone": backbone, "filter": filter_}
    result = delta_auc(systems, tasks, model, config, split, prompts)
    assert result["users"] == 6
    assert list(result["increase"]["filter"]["values"]) == split.attributes.values
    assert result["increase"]["backbone"]["mean"] == 0 == result["decrease"]["backbone"]["mean"]
    for value in split.attributes.values:
        up, down = (result[d]["filter"]["values"][value] for d in ("increase", "decrease"))
        # Filtering puts all items of the value first or last: an AUC of 1 and of 0.
        assert up > 0 > down
        assert up - down == pytest.approx(1)
    values = result["increase"]["filter"]["values"]
    assert result["increase"]["filter"]["mean"] == pytest.approx(np.mean(list(values.values())))


def test_a_value_that_every_item_has_cannot_be_steered(world):
    _, data, _, _, _ = world
    split = data.test.dataset
    split.attributes.matrix[1:, 0] = True
    phrasebook = Phrasebook.load("generic", split.attributes.values)
    prompts = PromptTable(3)
    tasks = steering_tasks(split, phrasebook, prompts, 5, 2)
    assert prompts.include[tasks[0].prompt_ids].any(dim=0).tolist() == [False, True, True]


def test_values_of_several_fields_are_told_apart(world):
    attributes = world[1].test.dataset.attributes
    first, second, third = attributes.values
    assert value_names(attributes) == [first, second, third]
    attributes.fields[1] = "brand"
    assert value_names(attributes) == [f"colour: {first}", f"brand: {second}", f"colour: {third}"]
