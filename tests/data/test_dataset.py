"""PromptDataset hands out what RecBole's SequentialDataset would, and what may be prompted for."""

import re

import numpy as np
import pytest
import torch
from recbole.data.dataset import SequentialDataset

from recbole_dpr.data.catalogue import load_users, save_users
from recbole_dpr.data.dataset import SEEN_LIST, PromptDataset
from recbole_dpr.data.loading import load_data
from recbole_dpr.errors import DPRError


def test_lists_equal_those_that_recbole_materialises(tiny_config):
    config = tiny_config()
    ours = PromptDataset(config).build()
    theirs = SequentialDataset(config).build()
    for own, split in zip(ours, theirs, strict=True):
        assert len(own) == len(split) > 0
        rows = torch.randperm(len(own))
        a, b = own[rows], split[rows]
        for field in ("user_id", "item_id", "item_id_list", "timestamp_list", "item_length"):
            assert torch.equal(a[field], b[field]), field


def test_a_split_can_come_with_whole_histories(tiny_config):
    short, whole = (
        load_data(tiny_config(MAX_ITEM_LIST_LENGTH=4, exclude_history=exclude)).test._dataset
        for exclude in (False, True)
    )
    rows = torch.randperm(len(whole))
    assert SEEN_LIST not in short[rows]
    batch, full = whole[rows], SequentialDataset(tiny_config(MAX_ITEM_LIST_LENGTH=50)).build()[2]
    assert torch.equal(batch[SEEN_LIST], full[rows]["item_id_list"][:, :11])
    assert torch.equal(batch["item_id_list"], short[rows]["item_id_list"])


def test_a_history_of_one_item_is_a_list_of_one(tiny_config):
    train = load_data(tiny_config()).train
    first = int((train.inter_feat["item_length"] == 1).nonzero()[0, 0])
    (history,) = train.histories(np.array([first]))
    assert len(history) == 1 and history[0] in train.field2token_id["item_id"]


def test_a_split_of_a_single_user_is_saved(tiny_config, tmp_path):
    test = load_data(tiny_config()).test._dataset
    one = test.copy(test.inter_feat[[0]])
    save_users(tmp_path / "users.json", one)
    ((user, history),) = load_users(tmp_path / "users.json")
    assert user in test.field2token_id["user_id"] and len(history) == 10


def test_the_share_of_repeats_is_that_of_the_split(tiny_config, data_path):
    assert load_data(tiny_config()).train.repeats() == 0
    path = data_path / "tiny/tiny.inter"
    path.write_text(path.read_text() + "".join(f"u{n}\ti{n}\t99\n" for n in range(40)))
    again = load_data(tiny_config())
    assert again.train.repeats() == 0  # the last interaction is the test's
    taken = again.test._dataset
    listed = (taken[torch.arange(40)]["item_id_list"] == taken.inter_feat["item_id"][:, None]).any(
        1
    )
    assert taken.repeats() >= listed.float().mean() > 0


def test_no_padded_list_is_kept(tiny_config):
    dataset = PromptDataset(tiny_config()).build()[0]
    assert all(values.dim() == 1 for values in dataset.inter_feat.interaction.values())
    assert all(len(values) == 480 for values in dataset.history.values())


def test_inter_matrix_equals_recboles(tiny_config):
    config = tiny_config()
    ours = PromptDataset(config).build()[0].inter_matrix(form="csr")
    theirs = SequentialDataset(config).build()[0].inter_matrix(form="csr")
    assert (ours != theirs).nnz == 0 and ours.nnz > 0


def test_attributes_texts_and_titles_come_from_the_named_columns(tiny_config):
    dataset = load_data(tiny_config()).whole
    assert sorted(dataset.attributes.values) == ["blue", "green", "red"]
    item = dataset.token2id("item_id", "i13")
    has = dataset.attributes.matrix[item]
    assert {v for v, yes in zip(dataset.attributes.values, has, strict=True) if yes} == {
        "blue",
        "green",
    }
    assert dataset.item_text[item] == "Thing number 13. blue, green"
    assert dataset.titles[item] == "Thing number 13"
    assert not dataset.attributes.matrix[0].any() and dataset.item_text[0] == ""


def test_allowed_and_forbidden_items(tiny_config):
    attributes = load_data(tiny_config()).whole.attributes
    red, green = (attributes.values.index(v) for v in ("red", "green"))
    include, exclude = torch.zeros(2, 3, dtype=torch.bool), torch.zeros(2, 3, dtype=torch.bool)
    include[0, red] = exclude[0, green] = exclude[1, red] = True
    matrix = attributes.matrix
    allowed = attributes.allowed(include, exclude)
    assert torch.equal(allowed[0], matrix[:, red] & ~matrix[:, green])
    assert torch.equal(allowed[1], ~matrix[:, red])
    assert torch.equal(attributes.forbidden(exclude)[1], matrix[:, red])
    include[0, green] = True
    either = attributes.allowed(include, torch.zeros_like(exclude))
    assert torch.equal(either[0], matrix[:, red] | matrix[:, green]) and either[1].all()


def test_a_missing_attribute_column_is_named_with_the_nearest(tiny_config):
    with pytest.raises(DPRError, match=r"no column 'color'; did you mean 'colour'\?"):
        load_data(tiny_config(prompt_fields=["color"]))


NOTHING_NAMED = {"prompt_fields": [], "item_text_fields": [], "title_field": None}


def test_no_field_to_prompt_for(tiny_config):
    with pytest.raises(DPRError, match=r"set prompt_fields.*tiny\.item are \['title', 'colour'\]"):
        load_data(tiny_config(**NOTHING_NAMED))  # of the .item file, nothing is loaded


def test_columns_that_no_option_has_named_yet_are_known(tiny_config):
    options = {**NOTHING_NAMED, "prompt_fields": ["colours"], "item_text_fields": ["title"]}
    with pytest.raises(DPRError, match=r"did you mean 'colour'\?; .* \['title', 'colour'\]"):
        load_data(tiny_config(**options))


@pytest.mark.parametrize("options", [{}, NOTHING_NAMED])
def test_a_data_set_without_an_item_file(tiny_config, data_path, options):
    (data_path / "tiny" / "tiny.item").unlink()
    with pytest.raises(DPRError, match=r"there is no file .*tiny\.item"):
        load_data(tiny_config(**options))


@pytest.mark.parametrize(
    "options",
    [{"prompt_fields": ["price"]}, {"item_text_fields": ["price"]}, {"title_field": "price"}],
)
def test_a_column_of_numbers_is_named(tiny_config, data_path, options):
    lines = (data_path / "tiny" / "tiny.item").read_text().splitlines()
    cells = ["price:float", *("9.5" for _ in lines[1:])]
    text = "".join(f"{line}\t{cell}\n" for line, cell in zip(lines, cells, strict=True))
    (data_path / "tiny" / "tiny.item").write_text(text)
    with pytest.raises(DPRError, match=r"'price' of tiny holds numbers; .*\['title', 'colour'\]"):
        load_data(tiny_config(**options))


@pytest.mark.parametrize(
    "written, warns",
    [("{}, green", True), ("{}|green", True), ("{};green", True), ("{},_green green", False)],
)
def test_lists_with_another_separator_are_named(tiny_config, data_path, caplog, written, warns):
    file = data_path / "tiny" / "tiny.item"
    words = re.sub(r"(red|blue) green", lambda cut: written.format(cut[1]), file.read_text())
    file.write_text(words)
    load_data(tiny_config())
    assert ("2 of the" in caplog.text and "seq_separator" in caplog.text) == warns


def test_a_separator_of_its_own(tiny_config, data_path, caplog):
    caplog.set_level("WARNING")
    file = data_path / "tiny" / "tiny.item"
    file.write_text(file.read_text().replace(" green", "|green"))
    config = tiny_config(seq_separator="|")
    assert sorted(load_data(config).whole.attributes.values) == ["blue", "green", "red"]
    assert not caplog.text


def test_blanks_at_the_ends_of_values_are_said(tiny_config, data_path, caplog):
    file = data_path / "tiny" / "tiny.item"
    file.write_text(file.read_text().replace(" green", ", green"))
    load_data(tiny_config(seq_separator=","))
    assert "such as ' green'" in caplog.text and "', ' in place of ','" in caplog.text
    caplog.clear()
    values = load_data(tiny_config(seq_separator=", ")).whole.attributes.values
    assert sorted(values) == ["blue", "green", "red"] and not caplog.text


def test_blank_values_count_as_none(tiny_config, data_path, caplog):
    file = data_path / "tiny" / "tiny.item"
    file.write_text(file.read_text().replace(" green", ", ").replace("3\tblue", "3\t_"))
    data = load_data(tiny_config(seq_separator=",")).whole
    assert sorted(data.attributes.values) == ["blue", "red"]
    assert not data.attributes.matrix[data.token2id("item_id", "i3")].any()
    assert "holds blanks where values should stand" in caplog.text


def test_an_item_without_attributes_or_text_takes_part(tiny_config, data_path):
    file = data_path / "tiny" / "tiny.item"
    file.write_text(file.read_text().replace("Thing number 3\tblue", "\t"))
    dataset = load_data(tiny_config()).whole
    item = dataset.token2id("item_id", "i3")
    assert not dataset.attributes.matrix[item].any() and dataset.item_text[item] == ""


def test_a_user_with_one_interaction_takes_no_part(tiny_config, data_path, caplog):
    with (data_path / "tiny" / "tiny.inter").open("a", encoding="utf-8") as file:
        file.write("hermit\ti0\t1\n")
    data = load_data(tiny_config())
    hermit = data.whole.token2id("user_id", "hermit")
    assert "1 of 41 users have a single interaction" in caplog.text
    for split in (data.train, data.valid._dataset, data.test._dataset):
        assert hermit not in split.inter_feat["user_id"]


def test_only_users_with_one_interaction(tiny_config, data_path):
    lines = ["user_id:token\titem_id:token\ttimestamp:float"]
    lines += [f"u{n}\ti{n}\t1" for n in range(24)]
    (data_path / "tiny" / "tiny.inter").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(DPRError, match="every user of tiny has a single interaction"):
        load_data(tiny_config())


def test_an_item_without_a_title_is_called_by_its_token(tiny_config, data_path):
    file = data_path / "tiny" / "tiny.item"
    file.write_text(file.read_text().replace("Thing number 3\t", "\t"))
    data = load_data(tiny_config()).whole
    assert data.titles[data.token2id("item_id", "i3")] == "i3"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"user_inter_num_interval": "[99,inf)"}, "cannot be read as the options say"),
        ({"benchmark_filename": ["a", "b", "c"]}, "benchmark_filename is not supported"),
        ({"prompt_fields": ["colour", "colour"]}, r"prompt_fields=.* names a column twice"),
        ({"unload_col": {"inter": ["timestamp"]}, "load_col": None}, "take it out of unload_col"),
    ],
)
def test_options_that_contradict_themselves_or_leave_nothing_are_named(tiny_config, options, says):
    with pytest.raises(DPRError, match=says):
        load_data(tiny_config(**options))


def test_the_log_names_what_may_be_asked_for(tiny_config, caplog):
    caplog.set_level("INFO")
    load_data(tiny_config())
    assert "Prompts may ask for 3 values of colour: " in caplog.text
    assert "No item has a text" not in caplog.text
    load_data(tiny_config(item_text_fields=[]))
    assert (
        "No item has a text: name the columns that describe it in item_text_fields" in caplog.text
    )
