import os
from pathlib import Path
from typing import ClassVar

import pytest
import yaml
from recbole.model.sequential_recommender.gru4rec import GRU4Rec
from recbole.model.sequential_recommender.sasrec import SASRec

from recbole_dpr.config import DPRConfig
from recbole_dpr.errors import DPRError, nearest
from recbole_dpr.naming import sequential_models
from recbole_dpr.options import known_names, literal


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


# Texts


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("1e-3", 0.001),
        ("true", True),
        ("False", False),
        ("None", None),
        ("[1, 2]", [1, 2]),
        ("1,2", [1, 2]),
        ("[Recall, NDCG]", ["Recall", "NDCG"]),
        ("{negative: 1, positive: 2.5}", {"negative": 1, "positive": 2.5}),
        ("{negative:1,positive:2.5}", {"negative": 1, "positive": 2.5}),
        ("{'a': [1]}", {"a": [1]}),
        ("SASRec", "SASRec"),
        ("a comedy, nothing violent", "a comedy, nothing violent"),
        ("[unclosed", "[unclosed"),
        ("(" * 5000, "(" * 5000),
        ("{[1]: 2}", "{[1]: 2}"),
        ("", ""),
    ],
)
def test_texts_become_values(text, value):
    assert literal(text) == value
    assert type(literal(text)) is type(value)


@pytest.mark.parametrize("name", ["epochs", "text_encoder", "task_mix", "metrics", "my_strength"])
def test_no_text_is_ever_run(name, tmp_path):
    target = tmp_path / "ran"
    text = f"__import__('pathlib').Path({str(target)!r}).touch()"
    for attempt in (text, f"[{text}]", f"!!python/object/apply:pathlib.Path.touch [{target}]"):
        try:
            made = config(f"--{name}={attempt}", model=MyRec)
        except DPRError:
            continue
        assert made[name] in (attempt, [text])
    assert not target.exists()


@pytest.mark.parametrize("text", ["2020", "True", "[1, 2]", "a=b=c", "1e3", "a b", "{x}", "'q'"])
def test_an_option_that_takes_text_keeps_it(text):
    assert config(f"--text_encoder={text}")["text_encoder"] == text
    assert config(text_encoder=text)["text_encoder"] == text


def test_gpu_ids_are_text_as_recbole_wants_them():
    assert config("--gpu_id=0,1")["gpu_id"] == "0,1"
    assert config(gpu_id=0)["gpu_id"] == "0"
    assert config("--use_gpu=False")["device"].type == "cpu"


def test_numbers_in_files_are_numbers(tmp_path):
    (tmp_path / "a.yaml").write_text("learning_rate: 1e-3\n")
    assert config(files=[tmp_path / "a.yaml"])["learning_rate"] == 0.001


# Wrong input


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("--learning_rat=0.1", "unknown option 'learning_rat'; did you mean 'learning_rate'"),
        ("--task_mixx={}", "did you mean 'task_mix'"),
        ("--config_file=a.yaml", "unknown option 'config_file'"),
        ("--epochs=abc", "option 'epochs' takes an int (whole number) >= 0, not 'abc'"),
        ("--epochs=-1", "option 'epochs' takes an int (whole number) >= 0, not -1"),
        ("--epochs=1.5", "option 'epochs' takes an int"),
        ("--epochs=True", "option 'epochs' takes an int"),
        ("--epochs=None", "option 'epochs' takes an int"),
        ("--epochs=", "option 'epochs' takes an int"),
        ("--learning_rate=fast", "option 'learning_rate' takes a float (number) > 0"),
        ("--learning_rate=0", "option 'learning_rate' takes a float (number) > 0"),
        ("--show_progress=maybe", "option 'show_progress' takes a bool (True or False)"),
        ("--n_layers=two", "option 'n_layers' takes an int"),
        ("--seed=-1", "option 'seed' takes an int (whole number) >= 0"),
        ("--stage2_epochs=-3", "option 'stage2_epochs' takes an int (whole number) >= 0 or None"),
        ("--stage1_learning_rate=nan", "option 'stage1_learning_rate' takes"),
        ("--prompt_dropout=1", "option 'prompt_dropout' takes a float (number) >= 0 and < 1"),
        ("--n_experts=0", "option 'n_experts' takes an int (whole number) >= 1"),
        ("--text_precision=int4", "option 'text_precision' takes one of float32, bfloat16"),
        ("--task_mix=0.5", "option 'task_mix' takes a dict"),
        ("--task_mix={positve: 1}", "task_mix has no kind 'positve'; did you mean 'positive'"),
        ("--task_mix={positive: -1}", "task_mix: positive takes a number >= 0, not -1"),
        ("--task_mix={positive: 0, negative: 0, compound: 0}", "a share above 0"),
        ("--topk=[0]", "topk takes whole numbers >= 1"),
        ("--topk=ten", "topk takes whole numbers >= 1"),
        ("--metrics=[NDGC]", "unknown metric 'NDGC' in metrics; did you mean 'NDCG'"),
        ("--metrics=[AUC]", "unknown metric 'AUC' in metrics"),
        ("--valid_metric=NDCG@20", "valid_metric takes one of metrics at one of topk"),
        ("--valid_metric=NDCG", "valid_metric takes one of metrics at one of topk"),
        ("--stage3_valid_metric=Foo@10", "stage3_valid_metric takes one of metrics"),
        ("--prompt_fields=[1]", "prompt_fields takes names of columns"),
        ("--eval_args={mode: uni100}", "eval_args: mode must be 'full', not 'uni100'"),
        ("--eval_args={split: {RS: [8, 1, 1]}}", "eval_args: split must be"),
        ("--eval_args={ordr: TO}", "eval_args has no entry 'ordr'; did you mean 'order'"),
        ("--repeatable=False", "repeatable must be True"),
        ("--exclude_history=None", "option 'exclude_history' takes a bool"),
        ("--loss_type=BPR", "loss_type=BPR is not for DPR"),
        ("--nproc=2", "nproc=2: training in more than one process is not supported yet"),
        ("--world_size=4", "world_size=4: training in more than one process is not supported"),
        ("epochs=1", "command line: 'epochs=1' is not of the form --option=value"),
        ("--epochs", "command line: '--epochs' is not of the form --option=value"),
    ],
)
def test_wrong_options(argument, says):
    assert says in message(argument)


def test_options_that_contradict_each_other():
    assert "option 'epochs' is given twice" in message("--epochs=1", "--epochs=2")
    assert config("--epochs=1", "--epochs=1")["epochs"] == 1
    says = message("--checkpoint=a", "--backbone_checkpoint=b")
    assert "backbone_checkpoint and checkpoint contradict each other" in says
    says = message("--exclude_history=True", model="SASRec")
    assert "exclude_history is for DPR: SASRec alone ranks as in RecBole" in says


def test_options_that_the_stages_or_the_windows_cannot_take():
    for metric in ("satisfied@10", "violation@10"):
        assert "stage1_valid_metric takes one of metrics" in message(
            f"--stage1_valid_metric={metric}"
        )
        assert config(f"--stage3_valid_metric={metric}")["stage3_valid_metric"] == metric
    sampling = {"distribution": "uniform", "sample_num": 1, "dynamic": True, "candidate_num": 2}
    assert "leave dynamic out" in message(model="DPR-FPMC", train_neg_sample_args=sampling)


def test_the_message_names_where_the_option_was_given(tmp_path):
    (tmp_path / "a.yaml").write_text("epoch: 3\n")
    says = message(files=[tmp_path / "a.yaml"])
    assert (
        says == f"config file {tmp_path / 'a.yaml'}: unknown option 'epoch'; did you mean 'epochs'?"
    )
    assert message(epoch=3).startswith("config_dict: unknown option")
    assert message("--epoch=3").startswith("command line: unknown option")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("epochs: [1\n", "line 2 is not valid yaml"),
        ("epochs: 1\nepochs: 2\n", "line 2 is not valid yaml: 'epochs' is given twice"),
        ("- epochs\n", "must hold lines of the form 'option: value'"),
        ("epochs: !!python/name:os.system\n", "is not valid yaml"),
        (b"\xff\xfe\x00", "is not valid yaml"),
        (None, "there is no config file"),
    ],
)
def test_a_config_file_that_cannot_be_read(tmp_path, content, says):
    path = tmp_path / "a.yaml"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert says in message(files=[path])


def test_an_option_of_another_model_is_pointed_out(caplog):
    config("--n_layers=3", model="GRU4Rec")
    assert "GRU4Rec does not read option 'n_layers'" in caplog.text


def test_names_of_download_lists_are_no_options():
    assert "amazon-beauty" not in known_names()
    assert {"hidden_size", "task_mix", "time-aware", "nproc"} <= known_names()


def test_the_nearest_name():
    assert nearest("NDGC", ["NDCG", "MRR"]) == "NDCG"
    assert nearest("max_item_list_length", ["MAX_ITEM_LIST_LENGTH"]) == "MAX_ITEM_LIST_LENGTH"
    assert nearest("zzz", ["NDCG", "MRR"]) is None


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


@pytest.mark.parametrize(
    ("model", "given", "says"),
    [
        (
            "DPR-SASRec",
            ["--learning_rate=0.1"],
            "learning_rate=0.1 is overruled by stage1_learning_rate=0.003, stage2",
        ),
        (
            "SASRec",
            ["--train_batch_size=9"],
            "train_batch_size=9 is overruled by stage1_batch_size=64, except for",
        ),
        ("SASRec", ["--learning_rate=0.1", "--stage1_learning_rate=0.2"], ""),
        ("SASRec", ["--epochs=3"], ""),
        ("SASRec", ["--eval_step=1", "--metric_decimal_place=4"], ""),
        ("DPR-SASRec", ["--eval_step=5"], "eval_step=5 does nothing: every epoch is validated"),
    ],
)
def test_options_that_do_nothing_or_that_stages_overrule_are_named(caplog, model, given, says):
    DPRConfig(model, "ml-100k", command_line=given)
    assert says in caplog.text
    assert bool(caplog.text) == bool(says)
