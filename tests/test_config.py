import os
from pathlib import Path
from typing import ClassVar

import pytest
import yaml
from recbole.model.sequential_recommender.gru4rec import GRU4Rec
from recbole.model.sequential_recommender.sasrec import SASRec

from recbole_dpr import checks
from recbole_dpr.config import DPRConfig
from recbole_dpr.errors import DPRError
from recbole_dpr.naming import sequential_models


class MyRec(SASRec):
    default_options: ClassVar = {"my_strength": 0.5}


class NotARecommender:
    pass


def config(*command_line, model=None, dataset=None, files=None, **options):
    return DPRConfig(model, dataset, files, options or None, command_line)


def message(*arguments, **keywords):
    with pytest.raises(DPRError) as caught:
        config(*arguments, **keywords)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Models


@pytest.mark.parametrize("name", ["DPR-SASRec", "dpr-sasrec", "Dpr-SASREC"])
def test_a_name_is_read_whatever_its_case(name):
    made = config(model=name)
    assert made["model"] == made.model == "DPR-SASRec"
    assert (made["backbone"], made["promptable"], made.model_class) == ("SASRec", True, SASRec)


def test_a_plain_model():
    made = config(model="gru4rec")
    assert (made["model"], made["backbone"], made["promptable"]) == ("GRU4Rec", "GRU4Rec", False)
    assert made.model_class is GRU4Rec
    assert made["post_filter_k"], "a baseline runs the same evaluation tasks"


def test_every_sequential_model_of_recbole_is_known():
    names = set(sequential_models().values())
    assert {"SASRec", "GRU4Rec", "BERT4Rec", "S3Rec", "NARM", "LightSANs"} <= names
    assert len(names) == 31


def test_the_defaults_are_the_main_job():
    made = config()
    assert (made["model"], made["dataset"]) == ("DPR-SASRec", "ml-100k")


def test_the_model_may_stand_in_any_layer(tmp_path):
    (tmp_path / "a.yaml").write_text("model: GRU4Rec\n")
    assert config(files=[tmp_path / "a.yaml"])["model"] == "GRU4Rec"
    assert config(files=[tmp_path / "a.yaml"], model="SASRec")["model"] == "SASRec"
    assert config("--model=dpr-gru4rec")["model"] == "DPR-GRU4Rec"


def test_a_class_of_ones_own():
    made = config(model=MyRec, my_strength=0.7)
    assert (made["model"], made["backbone"], made.model_class) == ("MyRec", "MyRec", MyRec)
    assert made["n_layers"] == config(model="SASRec")["n_layers"], "from the class it derives from"
    assert made["my_strength"] == 0.7
    assert config(model=MyRec)["my_strength"] == 0.5


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (
            "DPR-SASRek",
            "unknown backbone 'SASRek' in model 'DPR-SASRek'; did you mean 'DPR-SASRec'",
        ),
        ("SASRek", "unknown model 'SASRek'; did you mean 'SASRec'"),
        ("DRP-SASRec", "did you mean 'DPR-SASRec'"),
        ("DPR", "needs a backbone, such as DPR-SASRec"),
        ("DPR-", "needs a backbone, such as DPR-SASRec"),
        ("BPR", "BPR is not one of RecBole's sequential models"),
        ("DPR-BPR", "BPR is not one of RecBole's sequential models"),
        ("xyz", "the models are DPR-BERT4Rec, "),
        ("../sasrec", "unknown model '../sasrec'"),
        (NotARecommender, "must derive from RecBole's SequentialRecommender"),
        (7, "a model is a name or a class"),
    ],
)
def test_an_unknown_model(model, says):
    assert says in message(model=model)


# Data sets


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("ml-100", "unknown data set 'ml-100'"),
        ("ml-100", "did you mean 'ml-100k'"),
        ("qqqqq", "--data_path"),
        ("ml-1m-tmdb", "give the folder that holds it with --data_path"),
        ("../ml-100k", "named by its folder in data_path"),
        ("", "named by its folder in data_path"),
        ("..", "named by its folder in data_path"),
    ],
)
def test_an_unknown_data_set(name, says):
    assert says in message(dataset=name)


def test_a_folder_of_ones_own(tmp_path):
    (tmp_path / "mine").mkdir()
    made = config(f"--data_path={tmp_path}", dataset="mine")
    assert made["data_path"] == str(tmp_path / "mine")
    assert "did you mean 'mine'" in message(f"--data_path={tmp_path}", dataset="mime")


def test_ml_100k_comes_with_recbole_unless_data_path_has_it(tmp_path):
    bundled = config(f"--data_path={tmp_path}")["data_path"]
    assert "dataset_example" in bundled
    assert Path(bundled, "ml-100k.inter").is_file()
    (tmp_path / "ml-100k").mkdir()
    assert config(f"--data_path={tmp_path}")["data_path"] == str(tmp_path / "ml-100k")


def test_home_is_understood_behind_an_equals_sign():
    assert config("--checkpoint_dir=~/runs")["checkpoint_dir"] == os.path.expanduser("~/runs")


def test_columns_that_are_needed_are_loaded(tmp_path):
    columns = config()["load_col"]
    assert {"user_id", "item_id", "timestamp"} <= set(columns["inter"])
    assert columns["item"][0] == "item_id"
    assert {"class", "movie_title"} <= set(columns["item"])
    (tmp_path / "mine").mkdir()
    made = config(
        data_path=tmp_path, dataset="mine", prompt_fields="kind", item_text_fields=["name", "kind"]
    )
    assert made["load_col"]["item"] == ["item_id", "kind", "name"]
    assert made["prompt_fields"] == ["kind"]
    assert config(load_col=None)["load_col"] is None, "RecBole: load everything"


# Layers


def test_layers_from_weakest_to_strongest(tmp_path):
    weak, strong = tmp_path / "weak.yaml", tmp_path / "strong.yaml"
    weak.write_text("seed: 1\nworker: 1\neval_step: 1\nepochs: 1\n")
    strong.write_text("worker: 2\neval_step: 2\nepochs: 2\n")
    made = config("--epochs=4", files=[weak, strong], eval_step=3, epochs=3)
    assert [made[name] for name in ("seed", "worker", "eval_step", "epochs")] == [1, 2, 3, 4]


def test_recboles_defaults_are_below_ours():
    made = config()
    assert made["inner_size"] == 256, "SASRec's own yaml"
    assert made["learner"] == "adam", "RecBole's overall.yaml"
    assert made["valid_metric"] == "NDCG@10", "properties/overall.yaml (RecBole: MRR@10)"
    assert made["prompt_fields"] == ["class"], "properties/dataset/ml-100k.yaml"


def test_the_protocol():
    made = config()
    assert made["eval_args"] == {
        "split": {"LS": "valid_and_test"},
        "order": "TO",
        "group_by": "user",
        "mode": {"valid": "full", "test": "full"},
    }
    assert made["repeatable"] is True
    assert made["train_neg_sample_args"]["distribution"] == "none"


def test_two_configs_do_not_touch_each_other():
    first = config("--eval_args={'order': 'TO'}")
    first["eval_args"]["order"] = "changed"
    first["load_col"]["item"].append("changed")
    first.parameters["Dataset"].append("changed")
    second = config()
    assert second["eval_args"]["order"] == "TO"
    assert "changed" not in second["load_col"]["item"]
    assert "changed" not in second.parameters["Dataset"]


def test_a_dict_of_the_callers_stays_as_it_is():
    options = {"task_mix": {"positive": 1.0}, "epochs": "7"}
    assert DPRConfig(config_dict=options)["epochs"] == 7
    assert options == {"task_mix": {"positive": 1.0}, "epochs": "7"}


def test_the_config_reads_no_command_line_by_itself(monkeypatch):
    monkeypatch.setattr("sys.argv", ["program", "--epochs=5", "--no_such_option=1"])
    assert config()["epochs"] == 300


# Stages


def test_epochs_limit_every_stage():
    made = config("--epochs=3", "--stage1_epochs=9", "--stage2_epochs=2", "--stage3_epochs=0")
    assert [made.stage(n).epochs for n in (1, 2, 3)] == [3, 2, 0]
    assert config("--epochs=3", "--stage1_epochs=None").stage(1).epochs == 3


def test_what_a_stage_leaves_open_comes_from_recboles_options():
    given = ["--learning_rate=0.01", "--stopping_step=4", "--train_batch_size=32"]
    open_ = [f"--stage2_{name}=None" for name in ("learning_rate", "patience", "batch_size")]
    unmeasured = ["--stage2_valid_metric=None", "--weight_decay=0.1"]
    stage = config(*given, *open_, *unmeasured).stage(2)
    assert (stage.learning_rate, stage.patience, stage.batch_size) == (0.01, 4, 32)
    assert (stage.valid_metric, stage.weight_decay) == ("NDCG@10", 0.1)
    closed = [a.replace("None", "1") for a in open_]
    stage = config(*given, *closed, "--stage2_valid_metric=MRR@10").stage(2)
    assert (stage.learning_rate, stage.patience, stage.batch_size) == (1, 1, 1)
    assert stage.valid_metric == "MRR@10"


# The run folder


def test_a_run_folder_gives_the_same_config_back(tmp_path):
    made = config("--epochs=3", "--text_encoder=käse: \x07 'x'", task_mix={"positive": 0.5})
    made.to_yaml(tmp_path / "config.yaml")
    again = DPRConfig.from_run(tmp_path)
    assert again.final_config_dict == made.final_config_dict
    assert again.stage(1) == made.stage(1)


def test_a_run_folder_is_stronger_than_the_property_files(tmp_path, monkeypatch):
    config("--n_experts=9").to_yaml(tmp_path / "config.yaml")
    text = (tmp_path / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(text.replace("post_filter_k: 100", "post_filter_k: 77"))
    assert DPRConfig.from_run(tmp_path)["post_filter_k"] == 77
    assert DPRConfig.from_run(tmp_path)["n_experts"] == 9
    assert DPRConfig.from_run(tmp_path, command_line=["--n_experts=2"])["n_experts"] == 2


def test_a_run_folder_outlives_its_data(tiny_config, data_path, tmp_path):
    made = tiny_config()
    made.to_yaml(tmp_path / "run" / "config.yaml")
    (data_path / "tiny").rename(data_path / "gone")
    assert DPRConfig.from_run(tmp_path / "run")["data_path"] == made["data_path"]


def test_a_run_finds_its_reader_from_anywhere(tmp_path, monkeypatch):
    mine = tmp_path / "mine.safetensors"
    mine.touch()
    monkeypatch.chdir(tmp_path)
    for name, kept in ((mine.name, str(mine)), ("shipped", "shipped"), ("large", "large")):
        config(f"--reader={name}").to_yaml(tmp_path / "config.yaml")
        assert DPRConfig.from_run(tmp_path)["reader"] == kept
    config("--reader=[shipped,mine.safetensors]").to_yaml(tmp_path / "config.yaml")
    assert DPRConfig.from_run(tmp_path)["reader"] == ["shipped", str(mine)]


def test_a_run_finds_its_phrasebook_from_anywhere(tmp_path, monkeypatch):
    (tmp_path / "mine.yaml").touch()
    (tmp_path / "movies").touch()  # goes behind the one of that name
    monkeypatch.chdir(tmp_path)
    for name, kept in (("mine.yaml", str(tmp_path / "mine.yaml")), ("movies", "movies")):
        config(f"--phrasebook={name}").to_yaml(tmp_path / "config.yaml")
        assert DPRConfig.from_run(tmp_path)["phrasebook"] == kept


def test_options_that_recbole_would_stumble_over_are_refused(monkeypatch):
    with pytest.raises(DPRError, match=r"clip_grad_norm takes \{max_norm: 1.0\}, not 1"):
        config("--clip_grad_norm=1")
    assert config("--clip_grad_norm={max_norm: 1}")["clip_grad_norm"] == {"max_norm": 1}
    with pytest.raises(DPRError, match="the interval in quotes, not"):
        config("--val_interval={timestamp: [5,inf)}")
    assert config("--val_interval={'timestamp': '[5,inf)'}")["val_interval"]["timestamp"]
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    with pytest.raises(DPRError, match="pip install wandb"):
        config("--log_wandb=True")


def test_a_run_with_a_class_of_ones_own(tmp_path):
    config(model=MyRec, my_strength=0.1).to_yaml(tmp_path / "config.yaml")
    assert DPRConfig.from_run(tmp_path, model=MyRec)["my_strength"] == 0.1
    with pytest.raises(DPRError, match="MyRec"):
        DPRConfig.from_run(tmp_path)
    with pytest.raises(DPRError, match="holds a MyRec, not a GRU4Rec"):
        DPRConfig.from_run(tmp_path, model=GRU4Rec)


def test_the_file_is_plain_yaml_and_complete(tmp_path):
    config().to_yaml(tmp_path / "config.yaml")
    saved = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert saved["model"] == "DPR-SASRec"
    assert saved["train_neg_sample_args"] is None
    assert not {"device", "MODEL_TYPE", "nproc", "resume"} & saved.keys()


@pytest.mark.parametrize("lines", [0, 1, 2, 20, -1])
def test_a_run_folder_that_is_cut_off(tmp_path, lines):
    path = tmp_path / "config.yaml"
    config().to_yaml(path)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:lines]))
    with pytest.raises(DPRError, match="cut off"):
        DPRConfig.from_run(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("epochs: 300", "epochs: many", "config.yaml: option 'epochs' takes an int"),
        ("n_experts", "n_expert", "unknown option 'n_expert'; did you mean 'n_experts'"),
        ("model: DPR-SASRec", "model: [", "is not valid yaml"),
        ("model: DPR-SASRec", "model: DPR-Foo", "unknown backbone"),
    ],
)
def test_a_run_folder_that_was_tampered_with(tmp_path, old, new, says):
    path = tmp_path / "config.yaml"
    config().to_yaml(path)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DPRError) as caught:
        DPRConfig.from_run(tmp_path)
    assert says in str(caught.value)


def test_no_run_folder(tmp_path):
    with pytest.raises(DPRError, match="is not a run folder"):
        DPRConfig.from_run(tmp_path / "nowhere")


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "config.yaml"
    config().to_yaml(path)
    before = path.read_text()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DPRError, match="No space left on device"):
        config("--epochs=3").to_yaml(path)
    assert path.read_text() == before
    assert [file.name for file in tmp_path.iterdir()] == ["config.yaml"]
