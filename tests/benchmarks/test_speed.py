import math

import pytest

import speed
from recbole_dpr.config import DPRConfig


def test_recbole_fine_tunes_s3rec_as_we_do(tiny_options):
    options = {**tiny_options, "item_attribute": "colour"}
    side = speed.RecBoleSide(DPRConfig("S3Rec", "tiny", config_dict=options))
    loss = side.model.calculate_loss(next(iter(side.loader)))
    assert loss.item() == pytest.approx(math.log(side.train.item_num), abs=0.3)
