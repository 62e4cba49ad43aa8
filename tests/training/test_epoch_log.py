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
    options = SimpleNamespace(epochs=len(best), schedule=schedule)
    stage = Stage(1, "pre-training", options, [], len, [], False)
    log = EpochLog(logging.getLogger(), None, None, 10)
    log.end(stage, [{"best": value} for value in best])
    assert says in caplog.text and bool(caplog.text) == bool(says)
