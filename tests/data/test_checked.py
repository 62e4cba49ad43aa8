"""CheckedDataset names what is missing, malformed or out of order in the files of a data set."""

import re
from pathlib import Path

import pytest
from recbole.data.dataset import SequentialDataset

from recbole_dpr.data.loading import load_data
from recbole_dpr.errors import DPRError


def rewrite(path: Path, change) -> None:
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")


def test_a_missing_time_column_is_named_with_its_option(tiny_config, data_path):
    rewrite(data_path / "tiny" / "tiny.inter", lambda text: text.replace("timestamp:", "when:"))
    with pytest.raises(DPRError, match=r"no column 'timestamp' \(TIME_FIELD\)"):
        load_data(tiny_config())


def test_a_folder_without_interactions(tiny_config, data_path):
    config = tiny_config()
    (data_path / "tiny" / "tiny.inter").unlink()
    with pytest.raises(DPRError, match=r"no file .*tiny\.inter"):
        load_data(config)


def test_a_download_that_fails_says_what_to_do(tiny_config, monkeypatch):
    config = tiny_config()
    config["data_path"] = "nowhere"

    def refuse(self):
        raise OSError("no route to host")

    monkeypatch.setattr(SequentialDataset, "_download", refuse)
    with pytest.raises(DPRError, match=r"could not be downloaded \(no route to host\)"):
        load_data(config)


def test_times_that_are_no_numbers_are_named(tiny_config, data_path):
    file = data_path / "tiny" / "tiny.inter"
    file.write_text(file.read_text().replace("timestamp:float", "timestamp:token"))
    with pytest.raises(
        DPRError, match=r"timestamp:token \(TIME_FIELD\) must be timestamp:float"
    ) as error:
        load_data(tiny_config())
    assert str(error.value).startswith(str(file))  # no other words around what names the file


@pytest.mark.parametrize("cells", [('"Thing', 'The 7"'), ('"Weird" thing', "plain")])
def test_quotes_that_join_lines_are_named(tiny_config, data_path, cells):
    file = data_path / "tiny" / "tiny.item"
    for number, cell in enumerate(cells):
        file.write_text(file.read_text().replace(f"Thing number {number}\t", f"{cell}\t"))
    with pytest.raises(DPRError, match=r"tiny\.item.* double quotes"):
        load_data(tiny_config())


@pytest.mark.parametrize("suffix", ["inter", "item"])
@pytest.mark.parametrize(
    "change, says",
    [
        (lambda text: "", "line 1: there are no columns"),
        (lambda text: text.split("\n")[0], "holds no rows"),
        (lambda text: text.replace("\t", ","), r"'\w+_id:token,.*' is no column.*field_separator"),
        (lambda text: text.replace("\t", " "), r"'\w+_id:token .*' is no column.*field_separator"),
        (lambda text: text.replace("item_id:token", "item_id", 1), "'item_id' is no column"),
        (lambda text: text.replace("item_id:token", "item_id:text", 1), "'item_id:text' is no"),
        (
            lambda text: text.replace("item_id:", "item:", 1),
            r"no column 'item_id' \(ITEM_ID_FIELD\)",
        ),
        (lambda text: text.replace("\n", "\ttitle:token\n", 1) + "i\t", "two columns 'title'"),
        (lambda text: "\ufeff" + text, "line 1: .* --encoding=utf-8-sig"),
        (lambda text: text.replace("\n", "\t\n"), "line 1: '' is no column"),
        (lambda text: re.sub(r"(?<!float|n_seq)\n", "\t\n", text), "line 2: 4 cells under 3"),
        (lambda text: text + "\n\ni1\ti1\n", r"line \d+: 2 cells under 3"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(tiny_config, data_path, suffix, change, says):
    file = data_path / "tiny" / f"tiny.{suffix}"
    rewrite(file, change)
    if suffix == "inter" and "title" in says:
        rewrite(file, lambda text: text.replace("timestamp:float", "title:token", 1))
    with pytest.raises(DPRError, match=says) as error:
        load_data(tiny_config())
    assert str(error.value).startswith(str(file)) and "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", ["inter", "item"])
def test_another_encoding_is_named(tiny_config, data_path, suffix):
    file = data_path / "tiny" / f"tiny.{suffix}"
    text = file.read_text().replace("i3\t", "caf\xe9\t")
    file.write_text(text, encoding="latin-1")
    with pytest.raises(
        DPRError, match=rf"tiny\.{suffix} is no text in utf-8: .*--encoding=latin-1"
    ):
        load_data(tiny_config())


def test_files_are_read_in_the_encoding_that_is_named(tiny_config, data_path):
    for suffix in ("inter", "item"):
        rewrite(data_path / "tiny" / f"tiny.{suffix}", lambda text: "\ufeff" + text)
    assert load_data(tiny_config(encoding="utf-8-sig")).whole.titles[1].startswith("Thing number")


def test_an_interaction_without_a_time_is_refused(tiny_config, data_path):
    rewrite(data_path / "tiny" / "tiny.inter", lambda text: text.replace("\t7\n", "\t\n"))
    with pytest.raises(DPRError, match=r"^40 of 480 interactions in tiny\.inter have no timestamp"):
        load_data(tiny_config())


def test_times_that_are_words_are_named_by_their_file(tiny_config, data_path):
    rewrite(data_path / "tiny" / "tiny.inter", lambda text: text.replace("\t7\n", "\ttoday\n"))
    with pytest.raises(
        DPRError, match=r"tiny\.inter cannot be read, line 8: timestamp holds 'today'.*that grow"
    ):
        load_data(tiny_config())


def test_interactions_without_a_user_or_an_item_are_left_out_and_no_others(
    tiny_config, data_path, caplog
):
    """RecBole 1.2.1 drops by place in a table that is shorter by then."""
    file = data_path / "tiny" / "tiny.inter"
    head, *rows = file.read_text().splitlines()
    users, items, times = zip(*(row.split("\t") for row in rows), strict=True)
    holes = [*rows]
    holes[4], holes[-1] = f"\t{items[4]}\t{times[4]}", f"{users[-1]}\tNA\t{times[-1]}"
    kept = [row for n, row in enumerate(rows) if n not in (4, len(rows) - 1)]
    found = []
    for lines in (holes, kept):
        file.write_text("\n".join([head, *lines]) + "\n")
        found.append(load_data(tiny_config()).whole)
    assert "2 interactions without a user or an item are left out (lines 6, 481 of" in caplog.text
    one, other = (data.histories(range(len(data))) for data in found)
    assert one == other


def test_words_that_stand_for_nothing_are_no_values_and_are_said(tiny_config, data_path, caplog):
    rewrite(data_path / "tiny" / "tiny.item", lambda text: text.replace("\tred\n", "\tNone\n", 2))
    data = load_data(tiny_config()).whole
    assert "None" not in data.attributes.values
    assert re.search(r"\d cells of column 'colour' .* \(such as 'None'\)", caplog.text)


def test_lists_in_a_column_of_single_values_are_named(tiny_config, data_path, caplog):
    file = data_path / "tiny" / "tiny.item"
    rewrite(
        file, lambda text: text.replace("token_seq", "token").replace("\tred\n", "\tred|hot\n", 1)
    )
    load_data(tiny_config(item_text_fields=[]))
    assert "such as 'red|hot': make it colour:token_seq, and set seq_separator" in caplog.text


def test_times_too_close_for_recboles_sorting_are_counted(tiny_config, data_path, caplog):
    caplog.set_level("WARNING")
    path = data_path / "tiny" / "tiny.inter"
    head, *rows = path.read_text().splitlines()

    def history(rows, start=0, step=1):
        cells = (row.split("\t") for row in rows)
        lines = [f"{user}\t{item}\t{start + step * int(time)}" for user, item, time in cells]
        path.write_text("\n".join([head, *lines]) + "\n")
        caplog.clear()
        data = load_data(tiny_config()).whole
        users, items = (data.history[field] for field in ("user_id", "item_id"))
        mine = items[users == data.token2id("user_id", "u0")]
        return list(data.id2token("item_id", mine))

    true = history(rows)
    assert history(rows[::-1]) == true and not caplog.text
    assert history(rows[::-1], 1_600_000_000, 1000) == true and not caplog.text
    # In float32 all times of a user are one: each of the eleven steps goes back.
    assert history(rows[::-1], 1_600_000_000) == true[::-1]
    assert "440 of 440 steps" in caplog.text and "sort tiny.inter by timestamp" in caplog.text
    # What the message says helps.
    assert history(rows, 1_600_000_000) == true and not caplog.text
    # As few as ml-100k has are no reason to do anything.
    rows[0], rows[1] = rows[1], rows[0]
    assert history(rows, 1_600_000_000) and not caplog.text
    assert history(rows[:12], 1_600_000_000) and "1 of 11 steps" in caplog.text


def test_interactions_with_items_that_have_no_row_are_counted(tiny_config, data_path, caplog):
    file = data_path / "tiny" / "tiny.item"
    head, _, *rest = file.read_text().splitlines()
    file.write_text("\n".join([head, *rest]) + "\n")
    load_data(tiny_config())
    said = (
        r"\d+ of 480 interactions are left out, because their item .*, such as item 'i0' \(user 'u"
    )
    assert re.search(said, caplog.text)


def test_rows_of_an_item_that_has_one_already_are_counted(tiny_config, data_path, caplog):
    rewrite(data_path / "tiny" / "tiny.item", lambda text: text + "i3\tAnother thing\tred\n")
    data = load_data(tiny_config()).whole
    assert "1 rows of" in caplog.text and "such as 'i3'" in caplog.text
    assert data.titles[data.token2id("item_id", "i3")] == "Thing number 3"


def test_times_that_are_all_alike_are_said(tiny_config, data_path, caplog):
    file = data_path / "tiny" / "tiny.inter"
    rewrite(file, lambda text: re.sub(r"\t\d+\n", "\t7\n", text))
    load_data(tiny_config())
    assert "100% of the steps" in caplog.text and "the order of tiny.inter" in caplog.text


def test_a_column_of_both_files_is_refused_where_both_are_read(tiny_config, data_path):
    file = data_path / "tiny" / "tiny.inter"
    head, *rows = file.read_text().splitlines()
    lines = [f"{head}\tcolour:token", *(f"{row}\tred" for row in rows)]
    file.write_text("\n".join(lines) + "\n")
    load_data(tiny_config())
    with pytest.raises(DPRError, match=r"tiny\.inter and tiny\.item both have colour, of which"):
        load_data(tiny_config(load_col=None))
