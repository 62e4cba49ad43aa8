"""Runs on a GPU that is only pretended: every tensor is where it is needed."""

from pathlib import Path

import pytest
import torch

from recbole_dpr import load, run_recbole_dpr
from recbole_dpr.training.trainer import DPRTrainer

MORE = {
    "DPR-SASRec": {"compare": ["additive", "semantic", "rerank_5"], "delta_auc_users": 5},
    "DPR-GRU4Rec": {"joint": True},
    "DPR-FPMC": {"exclude_history": True},
    "DPR-GRU4RecF": {"exclude_history": True, "selected_features": ["colour"]},
    "DPR-BERT4Rec": {"reader": "trained", "reader_prompts": 40},
    "DPR-SHAN": {},
    "DPR-DIN": {},
    "SASRec": {},
}


def test_the_pretended_gpu_is_as_strict_as_a_real_one(gpu):
    here, there = torch.arange(6.0), torch.arange(6.0).to(gpu)
    assert there.device == (there + 1).device == (there * torch.tensor(2.0)).device == gpu
    assert there[here > 2].tolist() == there[there > 2].cpu().tolist() == [3, 4, 5]
    mistakes = [
        lambda: here + there,
        lambda: here[there > 2],
        lambda: torch.cat([here, there]),
        lambda: there.numpy(),
        lambda: torch.multinomial(there, 1, generator=torch.Generator()),
        lambda: there.index_put_((there > 2,), here[:3]),
    ]
    for mistake in mistakes:
        with pytest.raises((RuntimeError, TypeError)):
            mistake()


@pytest.mark.parametrize("model", MORE)
def test_a_whole_run(gpu, tiny_options, model):
    small = {"train_batch_size": 64, "stage3_prefixes": 60, **MORE[model]}
    result = run_recbole_dpr(model, "tiny", config_dict=tiny_options | small)
    assert result["tasks"]["standard"]["backbone"]["users"] == 40
    recommender = load(result["run_dir"], device=gpu)
    prompts = ["something red" if model.startswith("DPR") else None]
    assert len(recommender.recommend([["i1", "i2"]], prompts, 5)[0]) == 5
    assert (Path(result["run_dir"]) / "report.md").is_file()


def test_a_run_that_was_cut_off_goes_on(gpu, tiny_options, monkeypatch):
    longer = tiny_options | {"stage1_epochs": 2}
    save = DPRTrainer._save_resume

    def save_and_die(self, *args):
        save(self, *args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(DPRTrainer, "_save_resume", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            run_recbole_dpr("DPR-SASRec", "tiny", config_dict=longer)
    (run_dir,) = Path(tiny_options["checkpoint_dir"]).iterdir()
    assert run_recbole_dpr(resume=run_dir)["run_dir"] == str(run_dir)
