"""What single models ask of their data set, and what of it a run folder keeps."""

import numpy as np
import pytest
import torch

from recbole_dpr.data.catalogue import Catalogue
from recbole_dpr.data.facts import FACTS_FILE, Facts
from recbole_dpr.data.loading import load_data
from recbole_dpr.errors import DPRError


@pytest.fixture
def graph(data_path):
    """Every item is an entity of a colour; vectors of entities and relations."""
    folder = data_path / "tiny"
    numbers = range(24)
    files = {
        "kg": ["head_id:token\trelation_id:token\ttail_id:token"]
        + [f"e{n}\tis\t{'red' if n % 2 == 0 else 'blue'}" for n in numbers],
        "link": ["item_id:token\tentity_id:token"] + [f"i{n}\te{n}" for n in numbers],
        "ent": ["ent_id:token\tent_emb:float_seq"]
        + [f"{e}\t{i} {i + 0.5}" for i, e in enumerate([*(f"e{n}" for n in numbers), "red"])],
        "rel": ["rel_id:token\trel_emb:float_seq", "is\t1.0 2.0"],
    }
    for suffix, lines in files.items():
        (folder / f"tiny.{suffix}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def test_vectors_of_entities_stand_at_the_ids_of_their_items(tiny_config, graph):
    data = load_data(tiny_config("DPR-KSR", embedding_size=2, kg_embedding_size=2)).whole
    vectors = data.get_preload_weight("ent_id")
    assert vectors.dtype == np.float32
    for item in range(1, data.item_num):
        number = int(str(data.field2id_token["item_id"][item])[1:])
        assert vectors[item].tolist() == [number, number + 0.5]


def test_vectors_of_another_length_are_refused_by_option(tiny_config, graph):
    from recbole_dpr.model.recbole_model import recbole_model

    config = tiny_config("DPR-KSR", embedding_size=2)
    with pytest.raises(DPRError, match="have 2 numbers, and KSR takes 64: set kg_embedding_size=2"):
        recbole_model(config, load_data(config).train)


def test_a_column_of_vectors_that_is_not_there_is_said(tiny_config, graph):
    config = tiny_config("DPR-GRU4RecKG", preload_weight={"ent_id": "ent_vec"})
    with pytest.raises(DPRError, match=r"ent_vec.*set preload_weight"):
        load_data(config)


def test_dien_gets_an_item_that_was_not_taken_beside_each_of_a_history(tiny_config):
    data = load_data(tiny_config("DPR-DIEN")).train
    batch = data[np.arange(len(data))]
    taken, other = batch["item_id_list"], batch["neg_item_id_list"]
    assert torch.equal(taken > 0, other > 0)
    assert not (taken == other)[taken > 0].any()


def test_facts_come_back_from_the_run_folder(tiny_config, graph, tmp_path):
    config = tiny_config("DPR-KSR", embedding_size=2, kg_embedding_size=2)
    data = load_data(config).whole
    facts = Facts.from_dataset(data, features=True)
    facts.save(tmp_path / FACTS_FILE)
    found = Facts.load(tmp_path / FACTS_FILE)
    assert (found.sizes, found.lengths, found.types) == (facts.sizes, facts.lengths, facts.types)
    for name, values in facts.items.items():
        assert torch.equal(found.items[name], values) and found.items[name].dtype == values.dtype
    for name, vectors in facts.weights.items():
        assert np.array_equal(found.weights[name], vectors)
    served = Catalogue(
        "item_id", list(map(str, range(25))), [], data.attributes, [], facts=found
    ).as_dataset(config)
    for field in ("user_id", "item_id", "colour", "entity_id", "relation_id"):
        assert served.num(field) == data.num(field)
    assert (served.user_num, served.item_num) == (data.user_num, data.item_num)
    with pytest.raises(DPRError, match="'sound', which no run folder holds"):
        served.num("sound")


def test_a_model_of_ids_leaves_features_out(tiny_config):
    facts = Facts.from_dataset(load_data(tiny_config()).whole, features=False)
    assert not facts.items and not facts.users and not facts.weights


def test_damaged_facts_are_refused(tmp_path):
    (tmp_path / FACTS_FILE).write_text('{"sizes": {}')
    with pytest.raises(DPRError, match=r"facts\.json is missing or damaged"):
        Facts.load(tmp_path / FACTS_FILE)
    with pytest.raises(DPRError, match=r"none\.json is missing or damaged"):
        Facts.load(tmp_path / "none.json")
