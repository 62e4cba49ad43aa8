"""Each compared system against rankings worked out by hand."""

import pytest
import torch

from recbole_dpr.data.attributes import Attributes
from recbole_dpr.evaluation.systems import (
    ABOVE,
    PromptedBatch,
    backbone,
    baselines,
    calibrated_filter,
    filter_,
    post_filter,
    whole_numbers,
)

# Values: comedy, drama, war (genre) and 90s (decade). Item 0 is the padding.
MATRIX = torch.tensor(
    [
        [0, 0, 0, 0],
        [1, 0, 0, 1],
        [0, 1, 0, 0],
        [1, 1, 1, 0],
        [0, 0, 1, 0],
        [1, 0, 0, 0],
    ]
).bool()
ATTRIBUTES = Attributes(["comedy", "drama", "war", "90s"], ["genre"] * 3 + ["decade"], MATRIX)
COMEDY, DRAMA, WAR = 0, 1, 2


def batch(scores, include=(), exclude=(), history=None):
    wanted, unwanted = torch.zeros(1, 4).bool(), torch.zeros(1, 4).bool()
    wanted[0, list(include)] = True
    unwanted[0, list(exclude)] = True
    items = None if history is None else torch.tensor([history])
    given = torch.tensor([[0.0, *scores]])
    return PromptedBatch(given, wanted, unwanted, ATTRIBUTES, history=items)


def ranking(scores):
    return scores[0].argsort(descending=True).tolist()


FALLING = (5.0, 4.0, 3.0, 2.0, 1.0)  # the backbone ranks items 1, 2, 3, 4, 5


def test_backbone_ignores_the_prompt():
    assert ranking(backbone(batch(FALLING, include=[WAR]))) == [1, 2, 3, 4, 5, 0]


def test_filter_puts_allowed_items_first_and_forbidden_ones_last_in_the_backbones_order():
    assert ranking(filter_(batch(FALLING, include=[WAR]))) == [3, 4, 1, 2, 5, 0]
    assert ranking(filter_(batch(FALLING, exclude=[COMEDY]))) == [2, 4, 1, 3, 5, 0]
    assert ranking(filter_(batch(FALLING, include=[WAR], exclude=[COMEDY]))) == [4, 2, 1, 3, 5, 0]


def test_filter_without_an_intent_is_the_backbone():
    assert ranking(filter_(batch(FALLING))) == [1, 2, 3, 4, 5, 0]


@pytest.mark.parametrize("spread", ["near", "far", "tiny"])
def test_filter_keeps_every_order_and_every_tie_of_the_backbone(spread):
    generator = torch.Generator().manual_seed(1)
    n_items = 500
    scores = {
        # Neighbouring float32 numbers, which an offset added in float32 would merge.
        "near": 1 + torch.randint(0, 300, (4, n_items), generator=generator) * 2.0**-23,
        "far": torch.randn(4, n_items, generator=generator) * 1e6,
        # Far below the resolution of float64 at the size of the row's range.
        "tiny": torch.randn(4, n_items, generator=generator) * 1e-30,
    }[spread].float()
    scores[:, 1] = 5e6  # makes the row's range large
    matrix = torch.rand(n_items, 1, generator=generator) < 0.3
    matrix[0] = False
    attributes = Attributes(["comedy"], ["genre"], matrix)
    include = torch.ones(4, 1).bool()
    filtered = filter_(PromptedBatch(scores, include, torch.zeros(4, 1).bool(), attributes))

    for row in range(4):
        keys = [(bool(matrix[i, 0]), float(scores[row, i])) for i in range(1, n_items)]
        result = filtered[row, 1:].tolist()
        level = {key: place for place, key in enumerate(sorted(set(keys)))}
        levels = {score: place for place, score in enumerate(sorted(set(result)))}
        assert [level[key] for key in keys] == [levels[score] for score in result]


def test_what_the_backbone_never_recommends_no_system_does():
    """Item 1 was watched: the others move up, and post-filters and calibration look at them alone."""
    asked = batch((-torch.inf, *FALLING[1:]), include=[COMEDY])
    for name, system in baselines({"post_filter_k": 2}).items():
        scores = system(asked)
        assert scores[0, 1] == -torch.inf and not scores[0, 2:].isinf().any(), name
    assert ranking(filter_(asked))[:4] == [3, 5, 2, 4]
    assert ranking(post_filter(asked, k=2))[:4] == [3, 2, 4, 5]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_whole_numbers_keep_order_and_ties_however_far_they_are_lifted(dtype):
    tiny, huge = torch.finfo(dtype).tiny, torch.finfo(dtype).max
    rising = [-torch.inf, -huge, -7.0, -tiny, 0.0, tiny, 3.0, huge, torch.inf]
    scores = torch.tensor([[*rising, -0.0, 1.0, 0.0]], dtype=dtype)
    scores[0, -1] = 1 + torch.finfo(dtype).eps
    numbers = whole_numbers(scores)[0]
    assert numbers.dtype == torch.float64
    assert torch.equal(numbers, numbers.round()) and numbers.abs().max() <= ABOVE / 2
    for shift in (0, ABOVE, -ABOVE):
        higher = (numbers + shift)[:, None] > (numbers + shift)
        assert torch.equal(higher, scores[0][:, None] > scores[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_system_changes_what_the_next_one_sees(dtype):
    asked = batch(FALLING, include=[COMEDY])
    asked.backbone = asked.backbone.to(dtype)
    before = asked.backbone.clone()
    for system in baselines({"post_filter_k": 2}).values():
        system(asked)
    assert torch.equal(asked.backbone, before)


def test_calibrated_filter_ranks_by_probability_over_number_of_values():
    # P(item) 0.45 with three genres, against 0.20 with one: 0.15 < 0.20.
    probabilities = torch.tensor([0.05, 0.05, 0.45, 0.20, 0.25]).log().tolist()
    assert ranking(filter_(batch(probabilities, include=[WAR])))[:2] == [3, 4]
    assert ranking(calibrated_filter(batch(probabilities, include=[WAR])))[:2] == [4, 3]


def test_calibrated_filter_is_the_posterior_of_a_perfect_backbone():
    """Draw target and prompt by the protocol: the ranking is that of P(target | prompt)."""
    probability = torch.tensor([0.31, 0.11, 0.32, 0.12, 0.14])
    values = MATRIX[1:].float()
    posterior = probability * values[:, COMEDY] / values.sum(dim=1)
    expected = (posterior.argsort(descending=True)[:3] + 1).tolist()
    result = calibrated_filter(batch(probability.log().tolist(), include=[COMEDY]))
    assert ranking(result)[:3] == expected == [1, 5, 3]


def test_calibration_counts_the_values_of_all_fields():
    # Item 1 has one genre and a decade, either of which could have been asked for; item 5 one genre alone.
    assert ranking(calibrated_filter(batch((1.1, 0, 0, 0, 1.0), include=[COMEDY])))[:2] == [5, 1]


def test_calibration_of_probabilities_is_that_of_their_logits():
    probabilities = torch.tensor([[0.0, 0.05, 0.05, 0.45, 0.20, 0.25]])
    given = batch(probabilities[0, 1:].tolist(), include=[WAR])
    given.logits = probabilities.log()
    assert ranking(calibrated_filter(given))[:2] == [4, 3]
    assert ranking(filter_(given))[:2] == [3, 4]


def test_calibration_does_not_depend_on_the_scale_of_the_softmax():
    scores = torch.tensor(FALLING)
    shifted = (scores + 64).tolist()
    same = calibrated_filter(batch(scores.log_softmax(0).tolist(), include=[COMEDY]))
    assert ranking(calibrated_filter(batch(shifted, include=[COMEDY]))) == ranking(same)


@pytest.mark.parametrize(
    ("include", "exclude", "best"), [((), (DRAMA,), [1, 4]), ((COMEDY,), (DRAMA,), [5, 1])]
)
def test_calibration_knows_how_rejections_are_drawn(include, exclude, best):
    """Draw a rejected value from the history, by its frequency, among those that the target lacks."""
    history = [3, 4, 1, 2, 0]
    counts = torch.tensor([2.0, 2.0, 2.0, 1.0])  # comedy, drama, war, 90s
    probability = torch.tensor([0.30, 0.11, 0.32, 0.25, 0.21])
    values = MATRIX[1:].float()
    posterior = probability.clone()
    for value in include:
        posterior *= values[:, value] / values.sum(dim=1)
    for value in exclude:
        posterior *= counts[value] * (1 - values[:, value]) / ((1 - values) @ counts).clamp(min=1)
    expected = (posterior.argsort(descending=True)[:2] + 1).tolist()
    given = batch(probability.log().tolist(), include, exclude, history)
    assert ranking(calibrated_filter(given))[:2] == expected == best
    assert ranking(filter_(given))[:2] == [1, 4 if not include else 5]


def test_without_a_wish_the_calibrated_filter_is_the_filter():
    given = batch((0.3, 0.1, 0.4, 0.15, 0.9), history=[1, 2, 0])
    assert ranking(calibrated_filter(given)) == ranking(filter_(given))


def test_post_filter_reaches_no_further_than_its_k():
    given = batch(FALLING, include=[WAR])  # items 3 and 4
    assert ranking(post_filter(given, k=3)) == [3, 1, 2, 4, 5, 0]
    assert ranking(post_filter(given, k=2)) == [1, 2, 3, 4, 5, 0]


def test_post_filter_of_the_whole_catalogue_is_the_filter():
    for given in (batch(FALLING, include=[WAR]), batch(FALLING, exclude=[COMEDY])):
        assert torch.equal(post_filter(given, k=5), filter_(given))
        assert torch.equal(post_filter(given, k=10_000), filter_(given))


def test_the_padding_item_is_last_even_where_the_mask_allows_it():
    given = batch((-5.0, -4.0, -3.0, -2.0, -1.0), exclude=[COMEDY])  # padding scored highest
    assert given.allowed[0, 0]
    for name, system in baselines({"post_filter_k": 2}).items():
        assert ranking(system(given))[-1] == 0, name


def test_baselines_has_the_names_of_the_contract_and_reads_k_from_the_config():
    systems = baselines({"post_filter_k": 3})
    assert list(systems) == ["backbone", "filter", "calibrated_filter", "post_filter"]
    given = batch(FALLING, include=[WAR])
    assert torch.equal(systems["post_filter"](given), post_filter(given, k=3))


def test_no_system_changes_the_scores_that_it_was_given():
    scores = torch.tensor([[9.0, *FALLING]])
    none = torch.zeros(1, 4).bool()
    for system in baselines({"post_filter_k": 2}).values():
        system(PromptedBatch(scores, none, none, ATTRIBUTES))
    assert scores.tolist() == [[9.0, *FALLING]]
