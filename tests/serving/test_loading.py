"""A run folder is loaded whole or refused by name."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import recbole_dpr
from recbole_dpr import quick_start
from recbole_dpr.errors import DPRError
from recbole_dpr.model.pretrained import save_reader
from recbole_dpr.model.reader import EXCLUDE, PromptReader


def copy_of(run, tmp_path):
    return Path(shutil.copytree(run["run_dir"], tmp_path / "run"))


def test_the_folder_alone_is_enough(trained_run, tmp_path):
    run = copy_of(trained_run, tmp_path)
    for name in run.iterdir():
        if name.name not in ("config.yaml", "items.json", "facts.json", "model.safetensors"):
            shutil.rmtree(name) if name.is_dir() else name.unlink()
    asked = ([["i1", "i4"]], ["no blue"])
    found = recbole_dpr.load(run).recommend(*asked)
    assert found == recbole_dpr.load(trained_run["run_dir"]).recommend(*asked)


def test_words_are_read_as_the_run_folder_says(trained_run, tmp_path):
    run = copy_of(trained_run, tmp_path)
    content = json.loads((run / "items.json").read_text())
    assert content["read_as"] == {}  # the generic phrasebook has none
    (run / "items.json").write_text(json.dumps({**content, "read_as": {"crimson": "red"}}))
    recommender = recbole_dpr.load(run)
    assert recommender.read("something Crimson please") == recommender.read("something red please")
    assert recommender.read("something Crimson please")["include"] == ["red"]


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("name", ["config.yaml", "items.json", "facts.json", "model.safetensors"])
def test_a_cut_off_or_missing_file_is_named(trained_run, tmp_path, name):
    run = copy_of(trained_run, tmp_path)
    cut(run / name)
    with pytest.raises(DPRError, match=name):
        recbole_dpr.load(run)
    (run / name).unlink()
    with pytest.raises(DPRError, match=name):
        recbole_dpr.load(run)


def test_a_catalogue_of_another_run_is_noticed(trained_run, tmp_path):
    run = copy_of(trained_run, tmp_path)
    content = json.loads((run / "items.json").read_text())
    content["items"].pop()
    (run / "items.json").write_text(json.dumps(content))
    with pytest.raises(DPRError, match=r"model\.safetensors: weight '.*' is \["):
        recbole_dpr.load(run)


def rewritten(path, change):
    """Write a safetensors file again, with other contents or another header."""
    with safe_open(path, framework="pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(metadata, tensors)
    save_file(tensors, path, metadata)


def test_a_changed_weight_is_noticed(trained_run, tmp_path):
    run = copy_of(trained_run, tmp_path)
    rewritten(
        run / "model.safetensors", lambda _, tensors: tensors["experts.router.choose.bias"].add_(1)
    )
    with pytest.raises(DPRError, match=r"model\.safetensors is damaged or was changed"):
        recbole_dpr.load(run)


def test_a_flipped_bit_is_noticed(trained_run, tmp_path):
    run = copy_of(trained_run, tmp_path)
    content = bytearray((run / "model.safetensors").read_bytes())
    content[-5] ^= 1
    (run / "model.safetensors").write_bytes(content)
    with pytest.raises(DPRError, match=r"model\.safetensors is damaged or was changed"):
        recbole_dpr.load(run)


def test_a_folder_of_a_newer_version_is_refused(trained_run, tmp_path):
    run = copy_of(trained_run, tmp_path)
    rewritten(run / "model.safetensors", lambda metadata, _: metadata.update(format="2"))
    (run / "config.yaml").write_text("unheard_of: 1\n")  # nothing else of it need be readable
    with pytest.raises(DPRError, match=r"newer version of recbole_dpr \(format 2.*upgrade"):
        recbole_dpr.load(run)


def test_options_that_make_no_model_are_named(trained_run, tmp_path):
    run = copy_of(trained_run, tmp_path)
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("hidden_size: 16", "hidden_size: sixteen"))
    with pytest.raises(DPRError, match=r"config\.yaml"):
        recbole_dpr.load(run)


def test_no_such_device(trained_run):
    with pytest.raises(DPRError, match="there is no device 'abacus' here"):
        recbole_dpr.load(trained_run["run_dir"], device="abacus")


def test_loading_imports_neither_transformers_nor_evaluation_nor_training(trained_run):
    program = (
        "import sys, recbole_dpr; "
        f"r = recbole_dpr.load({trained_run['run_dir']!r}); r.recommend([['i1']], ['red']); "
        "print(sorted({'transformers', 'sklearn', 'matplotlib', 'recbole.trainer', 'recbole_dpr.training'}"
        " & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_no_such_folder():
    with pytest.raises(DPRError, match="nowhere is not a run folder"):
        recbole_dpr.load("nowhere")


def test_another_reader_reads_for_the_same_steering(trained_run, greedy_reader):
    run, asked = trained_run["run_dir"], ([["i1", "i4"]], ["good morning"])
    own = recbole_dpr.load(run)
    other = recbole_dpr.load(run, reader=str(greedy_reader))
    assert other.read("good morning")["include"] == own.catalogue.attributes.values
    assert own.read("good morning")["include"] == []
    every = {"include": own.catalogue.attributes.values}
    assert other.recommend(*asked) == own.recommend([["i1", "i4"]], [None], **every)
    shipped = recbole_dpr.load(run, reader="shipped")
    assert shipped.recommend([["i1", "i4"]], ["no blue"]) == own.recommend(
        [["i1", "i4"]], ["no blue"]
    )


def test_a_run_is_measured_with_another_reader(trained_run, greedy_reader):
    found = quick_start.evaluate(trained_run["run_dir"], {"reader": str(greedy_reader)})
    for task, own in trained_run["tasks"].items():
        same = found["tasks"][task]["DPR"] == pytest.approx(own["DPR"], abs=1e-4)
        assert same == (task == "standard")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_run_is_measured_in_another_precision(trained_run, precision):
    found = quick_start.evaluate(trained_run["run_dir"], {"reader_precision": precision})
    assert found["reading"]["arithmetic"] == precision
    assert found["tasks"].keys() == trained_run["tasks"].keys()


def test_what_no_measurement_hears_is_said(trained_run, caplog):
    given = {"text_batch_size": 8, "compare": ["post_filter_20"]}
    quick_start.load_data_and_model(trained_run["run_dir"], config_dict=given)
    assert "text_batch_size=8 does nothing: DPR has the encoder of its run" in caplog.text
    caplog.clear()
    given["compare"] = ["semantic"]
    quick_start.load_data_and_model(trained_run["run_dir"], config_dict=given)
    assert "does nothing" not in caplog.text


def test_a_reader_that_cannot_be_taken_is_refused(trained_run, tiny_options):
    with pytest.raises(DPRError, match="a trained reader is learned in training"):
        recbole_dpr.load(trained_run["run_dir"], reader="trained")
    with pytest.raises(DPRError, match="a pooled reader is learned in training"):
        quick_start.evaluate(trained_run["run_dir"], {"reader": "pooled"})
    plain = recbole_dpr.run_recbole_dpr("SASRec", "tiny", config_dict=tiny_options)
    for ask in (
        recbole_dpr.load,
        lambda run, reader: quick_start.evaluate(run, {"reader": reader}),
    ):
        with pytest.raises(DPRError, match="a SASRec reads no prompts: leave reader out"):
            ask(plain["run_dir"], reader="shipped")


def test_a_learned_reader_stays_the_runs_own_where_it_is_named(tiny_options):
    options = tiny_options | {"reader": "trained", "reader_prompts": 40}
    run = recbole_dpr.run_recbole_dpr("DPR-SASRec", "tiny", config_dict=options)["run_dir"]
    own, named = (recbole_dpr.load(run, reader=reader).model for reader in (None, "trained"))
    for name, weight in own.reader.state_dict().items():
        assert torch.equal(weight, named.reader.state_dict()[name]), name


@pytest.fixture(scope="module")
def heard_by_a_file(make_tiny_options, greedy_reader):
    """A run that was trained with a reader of its own, and the file of that."""
    folder, options = make_tiny_options()
    reader = Path(shutil.copy(greedy_reader, folder))
    result = recbole_dpr.run_recbole_dpr(
        "DPR-SASRec", "tiny", config_dict=options | {"reader": str(reader)}
    )
    return result["run_dir"], reader


def test_the_reader_of_a_run_is_that_of_its_file(heard_by_a_file, tiny_encoder, tiny_options):
    run, reader = heard_by_a_file
    assert len(recbole_dpr.load(run).read("good morning")["include"]) == 3
    weights = PromptReader(torch.zeros(0, 16), 4, upper=0)
    torch.nn.init.zeros_(weights.judge[-1].weight)
    with torch.no_grad():
        weights.judge[-1].bias.copy_(torch.eye(3)[EXCLUDE])
    save_reader(weights, reader, str(tiny_encoder))  # as if trained anew
    assert len(recbole_dpr.load(run).read("good morning")["exclude"]) == 3
    more = tiny_options | {"checkpoint": run, "reader": "shipped", "stage1_epochs": 0}
    read = recbole_dpr.load(
        recbole_dpr.run_recbole_dpr("DPR-SASRec", "tiny", config_dict=more)["run_dir"]
    ).read
    assert read("good morning")["include"] == read("good morning")["exclude"] == []


def test_a_run_whose_reader_is_gone_takes_another(heard_by_a_file):
    run, reader = heard_by_a_file
    moved = reader.rename(reader.with_name("moved.safetensors"))
    with pytest.raises(DPRError, match=r"there is no reader '.*greedy\.safetensors'"):
        recbole_dpr.load(run)
    for name in ("shipped", moved):
        recbole_dpr.load(run, reader=name).recommend([["i1", "i4"]], ["no blue"])
    moved.rename(reader)
