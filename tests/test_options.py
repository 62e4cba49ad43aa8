from typing import ClassVar

import pytest
from recbole.model.sequential_recommender.sasrec import SASRec

from recbole_dpr.config import DPRConfig
from recbole_dpr.errors import DPRError, nearest
from recbole_dpr.options import known_names, literal, read_command_line
from recbole_dpr.training.setup import prepare, training_loader


class MyRec(SASRec):
    default_options: ClassVar = {"my_strength": 0.5}


def config(*command_line, model=None, files=None, **options):
    return DPRConfig(model, None, files, options or None, command_line)


def message(*arguments, **keywords):
    with pytest.raises(DPRError) as caught:
        config(*arguments, **keywords)
    assert "\n" not in str(caught.value)
    return str(caught.value)


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


@pytest.mark.parametrize(("name", "blank"), [("field_separator", "\t"), ("seq_separator", " ")])
def test_a_blank_may_be_meant(name, blank):
    assert config(f"--{name}={blank}")[name] == config(**{name: blank})[name] == blank


def test_one_column_need_not_be_a_list():
    assert config("--selected_features=genre", model="SASRecF")["selected_features"] == ["genre"]


def test_gpu_ids_are_text_as_recbole_wants_them():
    assert config("--gpu_id=0,1")["gpu_id"] == "0,1"
    assert config(gpu_id=0)["gpu_id"] == "0"
    alone = config("--use_gpu=False", "--gpu_id=1")
    assert (alone["device"].type, str(alone["gpu_id"])) == ("cpu", "1")


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
        ("--load_col=[user_id]", "load_col takes {inter: [user_id, item_id, timestamp]}, or None"),
        ("--unload_col=[timestamp]", "unload_col takes {item: [release_year]}"),
        ("--unused_col=rating", "unused_col takes {inter: [rating]}"),
        ("--threshold=3", "threshold takes {rating: 3}, not 3"),
        ("--seq_len=5", "seq_len takes {genre: 5}, not 5"),
        ("--preload_weight=[a]", "preload_weight takes {entity_id: entity_embedding}"),
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
    with pytest.raises(DPRError, match="config_dict takes a dict of options, not "):
        DPRConfig(config_dict=["epochs"])
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


def test_a_run_folder_is_not_warned_of_again(tmp_path, caplog):
    config("--joint=True", "--reader_prompts=9").to_yaml(tmp_path / "config.yaml")
    assert "reader_prompts=9 does nothing" in caplog.text
    caplog.clear()
    DPRConfig.from_run(tmp_path)
    assert not caplog.text
    DPRConfig.from_run(tmp_path, command_line=["--fusion=False", "--fusion_heads=2"])
    assert caplog.text.count("does nothing") == 1 and "fusion_heads=2" in caplog.text


def test_the_nearest_name():
    assert nearest("NDGC", ["NDCG", "MRR"]) == "NDCG"
    assert nearest("max_item_list_length", ["MAX_ITEM_LIST_LENGTH"]) == "MAX_ITEM_LIST_LENGTH"
    assert nearest("zzz", ["NDCG", "MRR"]) is None


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
        ("SASRec", ["--epochs=3", "--stage1_epochs=2"], ""),
        ("SASRec", ["--epochs=3", "--stage1_epochs=9"], "epochs=3 limits every stage, also stage1"),
        ("SASRec", ["--eval_step=1", "--metric_decimal_place=4"], ""),
        ("DPR-SASRec", ["--eval_step=5"], "eval_step=5 does nothing: every epoch is validated"),
        (
            "DPR-SASRec",
            ["--rerank_model=a"],
            "rerank_model=a does nothing: compare names no rerank_",
        ),
        ("DPR-SASRec", ["--rerank_model=a", "--compare=[rerank_20]"], ""),
        (
            "DPR-SASRec",
            ["--reader_prompts=9"],
            "reader_prompts=9 does nothing: a reader that comes trained",
        ),
        ("DPR-SASRec", ["--reader_prompts=9", "--reader=pooled"], ""),
        ("DPR-SASRec", ["--fusion_heads=2", "--fusion=False"], "fusion_heads=2 does nothing"),
        (
            "DPR-SASRec",
            ["--joint=True", "--stage3_epochs=2"],
            "stage3_epochs=2 does nothing: joint",
        ),
        ("DPR-SASRec", ["--joint=True", "--stage3_prefixes=2"], ""),
    ],
)
def test_options_that_do_nothing_or_that_stages_overrule_are_named(caplog, model, given, says):
    DPRConfig(model, "ml-100k", command_line=given)
    assert says in caplog.text
    assert bool(caplog.text) == bool(says)


@pytest.mark.parametrize(
    ("model", "given", "says"),
    [
        ("SASRec", ["--stage1_prefixes=9"], "stage1_prefixes=9 does nothing: a causal model"),
        ("SASRec", ["--window_stride=9", "--position_range=0.1"], ""),
        ("GRU4Rec", ["--position_range=0.1"], "position_range=0.1 does nothing: this model has no"),
        (
            "NPE",
            ["--window_stride=9"],
            "window_stride=9 does nothing: this model trains on prefixes",
        ),
        ("NPE", ["--stage1_prefixes=9"], ""),
    ],
)
def test_options_that_the_kind_of_backbone_leaves_without_effect_are_named(
    tiny_config, caplog, model, given, says
):
    config = tiny_config(model, **read_command_line(given))
    data, _, built = prepare(config)
    training_loader(config, data, built)
    assert says in caplog.text
    assert (f"{given[0].removeprefix('--')} does nothing" in caplog.text) == bool(says)
