"""Semantic and additive: rankings worked out by hand, and a weight that validation must find."""

from types import SimpleNamespace

import pytest
import torch

from recbole_dpr.data.draws import KINDS
from recbole_dpr.data.loading import load_data
from recbole_dpr.data.phrasebook import Phrasebook
from recbole_dpr.data.tasks import validation_tasks
from recbole_dpr.evaluation.systems import PromptedBatch
from recbole_dpr.evaluation.text_systems import (
    WEIGHTS,
    Additive,
    Semantic,
    TextSimilarity,
    standardised,
    tuned_weights,
)

NOTHING, WISH, REFUSAL, BOTH = range(4)
PROMPTS = ["", "funny", "no war", "funny, no war"]
ITEMS = ["", "war", "funny film", "   "]
# By hand: the texts as points on the unit circle.
POINTS = {
    "": [0, 1],
    "   ": [0, 1],
    "funny": [1, 0],
    "funny film": [1, 0],
    "war": [0, 1],
    "no war": [0.6, 0.8],
    "funny, no war": [0.8, 0.6],
}


class Encoder:
    """Stand-in for TextEncoder that counts what it is asked."""

    calls = 0

    def vectors(self, texts):
        self.calls += 1
        return torch.tensor([POINTS[text] for text in texts]).float()


def batch(scores, prompt_id):
    wanted, unwanted = prompt_id in (WISH, BOTH), prompt_id in (REFUSAL, BOTH)
    return PromptedBatch(
        torch.tensor([[9.0, *scores]]),
        torch.tensor([[wanted, False]]),
        torch.tensor([[False, unwanted]]),
        SimpleNamespace(),
        prompt_ids=torch.tensor([prompt_id]),
    )


@pytest.fixture
def similarity():
    return TextSimilarity(Encoder(), ITEMS, PROMPTS)


def ranking(scores):
    return scores[0].argsort(descending=True, stable=True).tolist()


def test_semantic_ranks_by_the_cosine_whatever_the_backbone_says(similarity):
    scores = Semantic(similarity)(batch((1, 0, 5), REFUSAL))
    assert scores[0].tolist() == pytest.approx([-torch.inf, 0.8, 0.6, 0])
    assert ranking(Semantic(similarity)(batch((5, 0, 1), WISH)))[0] == 2


def test_an_item_without_text_is_like_nothing(similarity):
    assert similarity(batch((0, 0, 0), REFUSAL))[0].tolist() == pytest.approx([0, 0.8, 0.6, 0])


def test_scores_are_standardised_over_what_can_be_recommended(similarity):
    alone, watched = batch((1, 3, 5), WISH), batch((1, -torch.inf, 5), WISH)
    assert standardised(watched)[0, [1, 3]].tolist() == pytest.approx([-(0.5**0.5), 0.5**0.5])
    scores = Additive(similarity, dict.fromkeys(KINDS, 2.0))(watched)[0]
    assert scores[[0, 2]].tolist() == [-torch.inf] * 2 and scores[[1, 3]].isfinite().all()
    own = standardised(alone)[0, 1:]
    assert own.mean().item() == pytest.approx(0) and own.std().item() == pytest.approx(1)


def test_texts_are_encoded_once(similarity):
    for _ in range(3):
        similarity(batch((0, 0, 0), WISH))
    assert similarity.encoder.calls == 2


def test_the_standardised_scores_have_one_scale_for_every_user_and_backbone():
    given = batch((0.0, 1.0, 2.0), WISH)
    assert standardised(given)[0, 1:].tolist() == pytest.approx([-1, 0, 1])
    far = batch((1000.0, 1e6 + 1000, 2e6 + 1000), WISH)
    assert torch.allclose(standardised(far), standardised(given))


def test_a_weight_of_the_cosine_counts_in_standard_deviations(similarity):
    given = batch((0.0, 1.0, 2.0), WISH)
    found = Additive(similarity, dict.fromkeys(KINDS, 3.0))(given)[0, 1:]
    expected = torch.tensor([-1.0, 0.0, 1.0]) + 3 * similarity(given)[0, 1:]
    assert found.tolist() == pytest.approx(expected.tolist())


def test_equal_scores_leave_the_cosine_alone(similarity):
    given = batch((4.0, 4.0, 4.0), WISH)
    found = Additive(similarity, dict.fromkeys(KINDS, 2.0))(given)[0, 1:]
    assert found.tolist() == pytest.approx((2 * similarity(given)[0, 1:]).tolist())


@pytest.mark.parametrize(
    ("prompt_id", "expected"),
    [
        (NOTHING, [1, 2, 3]),  # asks for nothing: the backbone's order
        (WISH, [2, 1, 3]),  # + 10 x cosine (0, 1, 0)
        (REFUSAL, [3, 2, 1]),  # - 10 x cosine (0.8, 0.6, 0)
        (BOTH, [1, 2, 3]),  # + 0 x cosine
    ],
)
def test_each_kind_of_prompt_has_its_own_weight(similarity, prompt_id, expected):
    system = Additive(similarity, {"positive": 10.0, "negative": -10.0, "compound": 0.0})
    scores = system(batch((3.0, 2.0, 1.0), prompt_id))
    assert ranking(scores) == [*expected, 0]


class Oracle(TextSimilarity):
    """A cosine that is 0.1 exactly where an item satisfies the prompt, and noise elsewhere."""

    def __init__(self, sign):
        self.sign = sign

    def __call__(self, batch):
        return self.sign * 0.1 * batch.allowed.float()


class Flat:
    """A backbone that knows nothing: small numbers in an arbitrary order."""

    def eval(self):
        return self

    def full_sort_predict(self, interaction):
        generator = torch.Generator().manual_seed(8)
        return torch.randn(len(interaction), 25, generator=generator)


@pytest.fixture
def validation(tiny_config):
    config = tiny_config("SASRec")
    split = load_data(config).valid.dataset
    phrasebook = Phrasebook.load("generic", split.attributes.values)
    tasks, prompts = validation_tasks(split, phrasebook, 1)
    return config, split, tasks, prompts


@pytest.mark.parametrize("sign", [1, -1])
def test_the_weight_that_is_best_on_validation_is_found(validation, sign):
    config, split, tasks, prompts = validation
    assert [task.name for task in tasks] == ["positive", "negative", "compound"]
    found = tuned_weights(Flat(), Oracle(sign), tasks, config, split, prompts)
    assert set(found.values()) <= set(WEIGHTS)
    # A backbone that knows nothing, and a text that knows all: the text must weigh, in its direction.
    for weight in found.values():
        assert sign * weight >= 8


def test_a_text_that_says_nothing_gets_no_weight(validation):
    config, split, tasks, prompts = validation
    found = tuned_weights(Flat(), Oracle(0), tasks, config, split, prompts)
    assert found == {"positive": 0, "negative": 0, "compound": 0}


def test_a_kind_that_nobody_can_be_asked_has_no_weight(validation):
    config, split, tasks, prompts = validation
    found = tuned_weights(Flat(), Oracle(1), tasks[:1], config, split, prompts)
    assert found["negative"] == 0 == found["compound"]
