"""RecBole's own helpers take DPR models, and its checkpoints start a DPR run."""

from pathlib import Path

import pytest
import torch
from recbole.data import create_samplers
from recbole.data.dataset import SequentialDataset
from recbole.model.sequential_recommender import SASRec
from recbole.trainer import Trainer
from recbole.utils.case_study import full_sort_scores, full_sort_topk
from safetensors.torch import load_file

import recbole_dpr
import run_hyper_dpr
from recbole_dpr.errors import DPRError
from recbole_dpr.quick_start import evaluate, load_data_and_model
from recbole_dpr.run_folder import describe_run
from recbole_dpr.tuning import read_space


@pytest.fixture(scope="module")
def loaded(trained_run):
    return load_data_and_model(trained_run["run_dir"])


def test_six_values_and_the_case_study(loaded, trained_run):
    config, model, dataset, train_data, valid_data, test_data = loaded
    assert (config["model"], dataset.dataset_name) == ("DPR-SASRec", "tiny")
    assert len(train_data) and len(valid_data)
    users = dataset.token2id(dataset.uid_field, ["u0", "u7", "u39"])
    scores, items = full_sort_topk(users, model, test_data, k=24)
    assert items.shape == (3, 24)
    recommender = recbole_dpr.load(trained_run["run_dir"])
    path = Path(config["data_path"]) / "tiny.inter"
    rows = [line.split("\t") for line in path.read_text().splitlines()[1:]]
    histories = [[i for u, i, _ in rows if u == user][:-1] for user in ("u0", "u7", "u39")]
    answers = recommender.recommend(histories, [None] * 3, k=24)
    for row, answer in enumerate(answers):
        tokens = dataset.id2token(dataset.iid_field, items[row])
        assert list(tokens) == [token for token, _ in answer]
        assert scores[row].tolist() == pytest.approx([score for _, score in answer], abs=1e-5)


def test_the_case_study_follows_prompts(loaded):
    _, model, dataset, _, _, test_data = loaded
    users = dataset.token2id(dataset.uid_field, ["u3", "u4"])
    plain = full_sort_scores(users, model, test_data)
    model.set_prompts(["", "something red please"])
    split = test_data.dataset
    prompted = split.with_prompts(
        torch.arange(len(split)), torch.ones(len(split), dtype=torch.long)
    )
    test_data._dataset = prompted
    try:
        red = torch.tensor(["red" in _values(dataset, i) for i in range(dataset.item_num)])
        moved = full_sort_scores(users, model, test_data) - plain
        assert moved[:, red].mean() > moved[:, 1:][:, ~red[1:]].mean()
        assert red[full_sort_topk(users, model, test_data, k=5)[1]].all()
    finally:
        test_data._dataset = split


def test_what_a_loaded_model_reads_is_kept_for_the_next_time(loaded):
    config, model, *_ = loaded
    cache = Path(config["text_cache_dir"])
    before = set(cache.glob("intents-*"))
    read = model.read(["something red that nobody has asked for before"])
    (kept,) = set(cache.glob("intents-*")) - before
    assert torch.equal(load_file(kept)["first"].float(), read[0])


def _values(dataset, item):
    return [dataset.attributes.values[i] for i in dataset.attributes.matrix[item].nonzero()[:, 0]]


def test_another_data_set_of_that_name_is_noticed(trained_run, tiny_options, tmp_path):
    (tmp_path / "data" / "tiny").mkdir(parents=True, exist_ok=True)
    source = Path(trained_run["run_dir"]).parents[1] / "data" / "tiny"
    for suffix in ("inter", "item"):
        text = (source / f"tiny.{suffix}").read_text()
        (tmp_path / "data" / "tiny" / f"tiny.{suffix}").write_text(text.replace("i11", "i77"))
    with pytest.raises(DPRError, match=r"are not those that .* was trained on"):
        load_data_and_model(
            trained_run["run_dir"], config_dict={"data_path": str(tmp_path / "data")}
        )
    options = tiny_options | {"data_path": str(tmp_path / "data")}
    with pytest.raises(DPRError, match=r"the items of .* was trained on"):
        recbole_dpr.run_recbole_dpr(
            "DPR-SASRec",
            "tiny",
            config_dict=options | {"backbone_checkpoint": trained_run["run_dir"]},
        )


@pytest.mark.parametrize("model", ["HGN", "DIEN", "SASRec"])
def test_a_model_with_a_vector_for_each_user_wants_the_same_users(tiny_options, model):
    """Also where they are as many: it would measure them with the vectors of others."""
    run = recbole_dpr.run_recbole_dpr(model, "tiny", config_dict=tiny_options)
    interactions = Path(tiny_options["data_path"], "tiny", "tiny.inter")
    interactions.write_text(interactions.read_text().replace("u1\t", "u1001\t"))
    if model == "SASRec":
        assert evaluate(run["run_dir"])["tasks"] == run["tasks"]
        return
    start = tiny_options | {"backbone_checkpoint": run["run_dir"]}
    for measured in (
        lambda: evaluate(run["run_dir"]),
        lambda: recbole_dpr.run_recbole_dpr(f"DPR-{model}", "tiny", config_dict=start),
    ):
        with pytest.raises(DPRError, match=r"the users of tiny in .* are not those that"):
            measured()


def test_a_run_is_measured_as_the_model_that_it_is(trained_run):
    with pytest.raises(DPRError, match="holds a DPR-SASRec, not a GRU4Rec"):
        evaluate(trained_run["run_dir"], {"model": "GRU4Rec"})


@pytest.fixture
def pth(tiny_config):
    """A checkpoint, and the model that RecBole itself makes of the same data."""
    config = tiny_config("SASRec")
    config["load_col"] = {"inter": ["user_id", "item_id", "timestamp"]}  # as RecBole's users do
    dataset = SequentialDataset(config)
    splits = dataset.build()
    create_samplers(config, dataset, splits)
    model = SASRec(config, splits[0])
    trainer = Trainer(config, model)
    trainer._save_checkpoint(0, verbose=False)
    return trainer.saved_model_file, model.eval(), dataset


def test_a_pth_of_recboles_is_stage_1(pth, tiny_options):
    path, theirs, dataset = pth
    options = tiny_options | {"backbone_checkpoint": path, "stage1_epochs": 0}
    with pytest.raises(DPRError, match=r"is a pickle.*--trust_checkpoint=True"):
        recbole_dpr.run_recbole_dpr("DPR-SASRec", "tiny", config_dict=options)
    options["trust_checkpoint"] = True
    run = recbole_dpr.run_recbole_dpr("DPR-SASRec", "tiny", config_dict=options)["run_dir"]
    history = ["i3", "i8", "i1"]
    (answer,) = recbole_dpr.load(run).recommend([history], [None], k=24)
    ids = torch.zeros(1, 10, dtype=torch.long)
    ids[0, :3] = torch.tensor([dataset.token2id("item_id", token) for token in history])
    with torch.no_grad():
        scores = theirs.full_sort_predict({"item_id_list": ids, "item_length": torch.tensor([3])})
    expected = {dataset.id2token("item_id", i): float(scores[0, i]) for i in range(1, 25)}
    assert dict(answer) == pytest.approx(expected, abs=1e-6)


def test_ranges_are_read_and_wrong_lines_named(tmp_path):
    path = tmp_path / "hyper.test"
    path.write_text(
        "# options\nstage3_learning_rate choice [1e-3, 0.003]\nprompt_dropout uniform 0.1,0.3\n\n"
        "n_experts choice 2, 4 # how many\n"
    )
    assert read_space(path) == {
        "choice": {"stage3_learning_rate": [0.001, 0.003], "n_experts": [2, 4]},
        "uniform": {"prompt_dropout": [0.1, 0.3]},
    }
    for text, message in {
        "seed choice": "line 1: write <option> <kind> <values>",
        "seed choise [1]": "line 1: unknown kind 'choise'; did you mean 'choice'",
        "seed choice [1": "line 1: choice takes a list of values",
        "a uniform 1": "line 1: uniform takes 2 numbers",
        "a uniform 2,1": "line 1: 2 is above 1",
        "a choice [1]\na choice [2]": "line 2: 'a' is given twice",
        "": "names no option",
    }.items():
        path.write_text(text)
        with pytest.raises(DPRError, match=message):
            read_space(path)
    with pytest.raises(DPRError, match="cannot read the ranges"):
        read_space(tmp_path / "nowhere")


@pytest.fixture
def objective(monkeypatch):
    """In place of training: the best is where the learning rate is 0.003 and the seed 2."""
    calls = []

    def run(options, config_files=None, saved=True):
        calls.append(options)
        score = (
            1 - abs(options["stage3_learning_rate"] - 0.003) - abs(options.get("n_experts", 2) - 2)
        )
        figures = {"ndcg@10": score}
        return {
            "model": options.get("model"),
            "best_valid_score": score,
            "valid_score_bigger": True,
            "best_valid_result": figures,
            "test_result": figures,
            "run_dir": f"saved/{score:g}",
        }

    monkeypatch.setitem(vars(recbole_dpr), "objective_function", run)
    return calls


@pytest.mark.parametrize("algo", ["exhaustive", "random", "bayes"])
def test_the_script_finds_the_best_options(objective, capsys, tmp_path, algo):
    pytest.importorskip("hyperopt")
    ranges = tmp_path / "hyper.test"
    ranges.write_text("stage3_learning_rate choice [0.001,0.003]\nn_experts choice [4,2,8]\n")
    arguments = [f"--params_file={ranges}", "--model=DPR-SASRec", f"--algo={algo}"]
    assert run_hyper_dpr.main([*arguments, "--max_evals=40", "--early_stop=40"]) == 0
    out = capsys.readouterr().out
    assert "best options: {'n_experts': 2, 'stage3_learning_rate': 0.003}" in out
    assert "their run: saved/1 (without weights" in out
    assert all(options["model"] == "DPR-SASRec" for options in objective)
    tried = {(o["stage3_learning_rate"], o["n_experts"]) for o in objective}
    if algo == "exhaustive":
        assert len(objective) == len(tried) == 6
    assert (tmp_path / "hyper_dpr.result").read_text().count("Valid result") == len(tried)


def test_a_search_goes_on_after_a_run_that_cannot_be_made(objective, tmp_path, caplog, monkeypatch):
    pytest.importorskip("hyperopt")
    ranges, result = tmp_path / "hyper.test", tmp_path / "found"
    ranges.write_text("stage3_learning_rate choice [0.001,0.003]\nn_experts quniform 1,4,1\n")
    counts, possible = [], recbole_dpr.objective_function

    def run(options, *others, **more):
        counts.append(options["n_experts"])
        if len(counts) == 15:
            raise KeyboardInterrupt
        if len(counts) % 3 == 1:  # the first one, too
            raise DPRError("no good")
        return possible(options, *others, **more)

    monkeypatch.setitem(vars(recbole_dpr), "objective_function", run)
    arguments = [f"--params_file={ranges}", "--model=DPR-SASRec", "--algo=random"]
    assert run_hyper_dpr.main([*arguments, "--early_stop=40", f"--output_file={result}"]) == 130
    assert len(counts) == 15 and all(isinstance(n, int) for n in counts)
    assert caplog.text.count("a run that cannot be made counts as failed: no good") == 5
    assert all(f"n_experts:{n}" in result.read_text() for n in (counts[1], counts[13]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--params_file"),
        (["--params_file=ranges", "--algo=random", "--output_file=ranges/x"], "ranges/x"),
        (["--params_file=nowhere"], "cannot read the ranges nowhere"),
        (["--params_file=x", "--tool=Ray"], "--tool=Ray is not supported"),
        (["--params_file=x", "seed=1"], "is not of the form --option=value"),
        (["--params_file=ranges"], "--algo=random"),
        (["--params_file=misspelt"], "misspelt: unknown option 'prompt_dropot'; did you mean"),
    ],
)
def test_wrong_calls_of_the_script_are_one_line(capsys, tmp_path, arguments, message):
    if "--params_file=ranges" in arguments:
        pytest.importorskip("hyperopt")
    (tmp_path / "ranges").write_text("prompt_dropout uniform 0.1,0.3\n")
    (tmp_path / "misspelt").write_text("prompt_dropot uniform 0.1,0.3\n")
    assert run_hyper_dpr.main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and message in err and err.count("\n") == 1


def test_a_finished_run_is_measured_at_another_strength(trained_run):
    deaf, as_trained = (
        evaluate(trained_run["run_dir"], {"strength": strength})["tasks"]["positive"]
        for strength in (0.0, 1.0)
    )
    assert deaf["DPR"] == deaf["backbone"]
    assert as_trained["DPR"] != as_trained["backbone"]


class OwnModel(SASRec):
    """A class of one's own."""


def test_a_run_of_a_class_of_ones_own_is_measured_again(tiny_options):
    result = recbole_dpr.run_recbole_dpr(OwnModel, "tiny", config_dict=tiny_options)
    assert evaluate(result["run_dir"], model=OwnModel)["tasks"] == result["tasks"]
    assert recbole_dpr.load(result["run_dir"], model=OwnModel).recommend([["i1"]], [None])
    about = describe_run(result["run_dir"])
    assert about["prompts"] == "may ask for the values below"
    assert about["positive"] == f"NDCG@10 {result['tasks']['positive']['DPR']['ndcg@10']:.4f}"
    for use in (evaluate, recbole_dpr.load):
        with pytest.raises(DPRError, match=r"holds a OwnModel: .* is given as model="):
            use(result["run_dir"])
