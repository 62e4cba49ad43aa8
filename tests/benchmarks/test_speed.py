import math

import pytest
import torch
from recbole.utils import init_seed

import speed
from recbole_dpr.config import DPRConfig
from suites.recbole_loop import RecBoleLoop


def test_recbole_fine_tunes_s3rec_as_we_do(tiny_options):
    options = {**tiny_options, "item_attribute": "colour"}
    side = speed.RecBoleSide(DPRConfig("S3Rec", "tiny", config_dict=options))
    loss = side.model.calculate_loss(next(iter(side.loader)))
    assert loss.item() == pytest.approx(math.log(side.train.item_num), abs=0.3)


class Killed(Exception):
    pass


@pytest.mark.parametrize("model", ["GRU4Rec", "BERT4Rec"])  # the latter with masks of RecBole's
def test_a_killed_recbole_loop_goes_on(tiny_options, tmp_path, monkeypatch, model):
    options = {**tiny_options, "epochs": 3, "stopping_step": 5}

    def loop(file):
        config = DPRConfig(model, "tiny", config_dict=options)
        init_seed(config["seed"], config["reproducibility"])
        return RecBoleLoop(speed.RecBoleSide(config, batch_size=64), tmp_path / file)

    unbroken = loop("unbroken.safetensors")
    expected = unbroken.fit()
    first = loop("killed.safetensors")
    note = first.note

    def note_and_die(epoch, score):
        note(epoch, score)
        if epoch == 1:
            raise Killed

    monkeypatch.setattr(first, "note", note_and_die)
    with pytest.raises(Killed):
        first.fit()
    second = loop("killed.safetensors")
    assert second.points == first.points and len(second.points) == 2
    assert second.side.trainer.start_epoch == 2
    for before, after in zip(
        first.side.model.parameters(), second.side.model.parameters(), strict=True
    ):
        assert torch.equal(before, after)
    best = max(score for _, score in first.points)
    assert second.side.trainer.best_valid_score == pytest.approx(best)
    figures = second.fit()
    assert len(second.points) == 3 and second.points[2][0] > second.points[1][0]
    assert 0 <= figures["ndcg@10"] <= 1
    assert figures == expected
    assert [score for _, score in second.points] == [score for _, score in unbroken.points]
    assert second.best.keys() == unbroken.best.keys()
    for name, weight in unbroken.best.items():
        assert torch.equal(second.best[name], weight)
