"""What a training says of its stages when they end."""

import logging
from types import SimpleNamespace

import pytest

from recbole_dpr.training.epoch_log import EpochLog
from recbole_dpr.training.stages import Stage


@pytest.mark.parametrize(
    ("best", "schedule", "says"),
    [
        ([True, False, True], "constant", "was best in its last epoch"),
        ([True, False, True], "cosine", ""),  # nothing is left of the rate
        ([True, False], "constant", ""),
        ([True], "constant", ""),
        ([False, False], "cosine", "found nothing better"),
    ],
)
def test_where_the_best_epoch_is_worth_a_word(caplog, best, schedule, says):
    caplog.set_level("INFO")
    say_of_the_end(schedule, [{"best": value, "valid": {"ndcg@10": 0.2}} for value in best])
    assert says in caplog.text and bool(caplog.text) == bool(says)


@pytest.mark.parametrize(("last", "says"), [(0.203, False), (0.21, True)])
def test_a_stage_that_still_gains_at_the_end_is_too_short(caplog, last, says):
    caplog.set_level("INFO")
    say_of_the_end(
        "cosine",
        [{"best": True, "valid": {"ndcg@10": x}} for x in (0.1, 0.2)]
        + [{"best": False, "valid": {"ndcg@10": 0.1}}, {"best": True, "valid": {"ndcg@10": last}}],
    )
    assert ("was best in its last epoch: more of them may be better" in caplog.text) == says


def test_a_stage_that_nothing_compares_has_no_best_epoch(caplog):
    caplog.set_level("INFO")
    say_of_the_end("constant", [{"best": False, "valid": {}}] * 3)
    assert not caplog.text


def say_of_the_end(schedule, rows):
    options = SimpleNamespace(epochs=len(rows), schedule=schedule, valid_metric="NDCG@10")
    stage = Stage(1, "pre-training", options, [], len, [], False)
    EpochLog(logging.getLogger(), None, None, 10).end(stage, rows)
