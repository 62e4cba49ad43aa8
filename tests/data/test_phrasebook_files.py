"""The phrasebooks that ship: enough phrases, kept apart from training, and names that people use."""

import re
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from recbole_dpr.data.intent import Intent
from recbole_dpr.data.phrasebook import Phrasebook
from recbole_dpr.data.phrasefile import CHANCES, NEEDED, frame
from recbole_dpr.files import properties_dir, read_yaml

FOLDER = properties_dir() / "phrasebook"
BOOKS = sorted(path.stem for path in FOLDER.glob("*.yaml"))
READER = Path(__file__).parents[2] / "benchmarks" / "reader"
# All that stands in the column `categories` of amazon-beauty.item.
BEAUTY = Path(__file__).with_name("beauty_values.txt").read_text(encoding="utf-8").split()


def ml_100k_values():
    folder = Path(find_spec("recbole").submodule_search_locations[0])
    rows = (folder / "dataset_example/ml-100k/ml-100k.item").read_text().splitlines()
    column = rows[0].split("\t").index("class:token_seq")
    return sorted({value for row in rows[1:] for value in row.split("\t")[column].split()})


# All genres of ml-1m are among those of ml-100k.
DOMAINS = {"ml-100k": ("movies", ml_100k_values()), "amazon-beauty": ("beauty", BEAUTY)}
FROM_DATA = pytest.mark.parametrize(("name", "values"), DOMAINS.values(), ids=DOMAINS)


def frames(content, *splits):
    """The frames of some splits of a file, of all kinds."""
    return {frame(p) for kind in NEEDED for split in splits for p in content[kind].get(split, [])}


# Phrases


@pytest.mark.parametrize("name", BOOKS)
def test_train_and_unseen_share_no_frame(name):
    content = read_yaml(FOLDER / f"{name}.yaml")
    seen, unseen = frames(content, "train"), frames(content, "unseen", "hard")
    assert seen and unseen and not seen & unseen
    sides = re.compile(r"\b(value|include|exclude)\b")
    assert not {sides.sub("x", s) for s in seen} & {sides.sub("x", s) for s in unseen}


def test_no_other_text_that_trains_holds_an_unseen_phrase_about_beauty():
    others = [read_yaml(FOLDER / f"{name}.yaml") for name in BOOKS if name != "beauty"]
    trained = set().union(*(frames(content, "train") for content in others))
    for name in ("phrases", "idioms"):
        patterns = read_yaml(READER / f"{name}.yaml").values()
        trained |= {frame(pattern) for pattern in chain.from_iterable(patterns)}
    beauty = read_yaml(FOLDER / "beauty.yaml")
    assert len(trained) > 5000
    assert not trained & frames(beauty, "unseen", "hard")
    # And the other way round, for a reader that will learn from this book, too.
    apart = set().union(*(frames(content, "unseen", "hard") for content in others))
    assert not apart & frames(beauty, "train")


@pytest.fixture(scope="module")
def learned_from():
    """What the shipped reader is trained on: a domain of films, and one of other things."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(READER.parent))
        from reader.sentences import Sentences

        genres = list(read_yaml(READER / "implied.yaml"))
        return [Sentences("movies", genres, ["Heat"]), Sentences("generic", ["red", "blue"])]


def test_the_shipped_reader_learned_from_no_phrase_that_any_book_measures(learned_from):
    trained = [
        p for said in learned_from for kind in NEEDED for p in said.book.patterns(kind, "train")
    ] + [said_so.pattern for said in learned_from for said_so in said.utterances.all]
    books = [read_yaml(FOLDER / f"{name}.yaml") for name in BOOKS]
    apart = set().union(*(frames(book, "unseen", "hard") for book in books))
    words = {word for book in books for word in book["held_out"]}
    held_out = re.compile("|".join(rf"\b{word}" for word in words), re.IGNORECASE)
    assert len(trained) > 40_000 and len(apart) > 400
    assert not apart & set(map(frame, trained))
    assert not [p for p in trained if held_out.search(re.sub(r"{.*?}", "", p))]


def test_the_shipped_reader_learned_from_no_utterance_with_an_unseen_synonym(learned_from):
    names = read_yaml(FOLDER / "movies.yaml")["names"].values()
    unseen = [s["name"] for name in names for s in name.get("synonyms", {}).get("unseen", [])]
    called = re.compile("|".join(rf"\b{re.escape(name)}\b" for name in unseen), re.IGNORECASE)
    said = [said_so.text for domain in learned_from for said_so in domain.utterances.all]
    assert len(said) > 8000 and not list(filter(called.search, said))


@pytest.mark.parametrize("kind", NEEDED)
def test_an_idiom_kept_out_of_one_domain_is_kept_out_of_all(learned_from, kind):
    measured = {frame(p) for p in learned_from[0].idioms.patterns(kind, "unseen")}
    trained = {frame(p) for said in learned_from for p in said.book.patterns(kind, "train")}
    assert len(measured) > 50
    assert not measured & trained


@pytest.mark.parametrize("name", BOOKS)
def test_most_of_the_hardest_phrases_hold_a_word_that_training_lacks(name):
    content = read_yaml(FOLDER / f"{name}.yaml")
    word = re.compile("|".join(rf"\b{word}" for word in content["held_out"]), re.IGNORECASE)
    hardest = "hard" if "hard" in content["positive"] else "unseen"
    for kind in ("positive", "negative", "compound"):
        unseen = content[kind][hardest]
        assert sum(bool(word.search(re.sub(r"{.*?}", "", p))) for p in unseen) >= len(unseen) / 2
    for used in content["held_out"]:
        unseen = [p for kind in NEEDED for p in content[kind][hardest]]
        assert any(re.search(rf"\b{used}", p, re.IGNORECASE) for p in unseen), used


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("movies", {"positive": 180, "negative": 180, "compound": 100, "neutral": 120}),
        ("beauty", {"positive": 190, "negative": 220, "compound": 90, "neutral": 110}),
    ],
)
def test_a_domain_offers_enough_phrases(name, least):
    content = read_yaml(FOLDER / f"{name}.yaml")
    for kind, size in least.items():
        apart = 40 if kind in ("positive", "negative") else 25
        for phrases, wanted in {"train": size, "unseen": apart, "hard": 25}.items():
            assert len(set(map(frame, content[kind][phrases]))) >= wanted, (kind, phrases)


@pytest.mark.parametrize("name", BOOKS)
def test_the_placeholder_brings_its_article(name):
    content = read_yaml(FOLDER / f"{name}.yaml")
    patterns = [p for kind in NEEDED for split in content[kind].values() for p in split]
    assert not [pattern for pattern in patterns if re.search(r"\ban? \{", pattern)]


# Names


@FROM_DATA
def test_every_value_has_a_readable_name_of_its_own(name, values):
    assert set(values) <= set(read_yaml(FOLDER / f"{name}.yaml")["names"])
    readable = Phrasebook.load(name, values).readable
    assert len({called.lower() for called in readable}) == len(values) >= 18
    assert all(re.fullmatch(r"[a-z][a-z' -]+", called) for called in readable)


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("movies", {"Sci-Fi": "science fiction", "Film-Noir": "film noir"}),
        ("movies", {"Children's": "children's"}),
        ("beauty", {"Children's": "children's fragrance", "Flattening_Irons": "flat iron"}),
        ("beauty", {"Brushes": "hairbrush", "Pillows": "eye pillow", "Hair_Care": "hair care"}),
    ],
)
def test_readable_names_are_what_people_say(name, names):
    assert Phrasebook.load(name, list(names)).readable == list(names.values())


def test_beauty_names_no_value_that_the_data_lack():
    assert len(BEAUTY) == 233
    assert set(read_yaml(FOLDER / "beauty.yaml")["names"]) == set(BEAUTY)


@FROM_DATA
@pytest.mark.parametrize("form", ["one", "many"])
def test_names_and_synonyms_take_their_article_and_their_plural(name, values, form):
    slot = "{a value}" if form == "one" else "{values}"
    content = read_yaml(FOLDER / f"{name}.yaml")
    content["positive"] = {
        "train": [slot],
        **{phrases: [f"{phrases} {slot}"] for phrases in ("unseen", "hard")},
    }
    rough = dict.fromkeys(CHANCES, 0.0)
    rng = np.random.default_rng(0)
    for synonym in (0.0, 1.0):
        content["sampling"] = {"train": {**rough, "synonym": synonym}}
        book = Phrasebook(content, values, name)
        made = [book.prompt(Intent((i,)), "train", rng) for i in range(len(values)) for _ in "abc"]
        shape = r"an [aeiouAEIOU].+|a [^aeiouAEIOU].+" if form == "one" else r"(?!an? ).+"
        assert not [text for text in made if not re.fullmatch(shape, text)]


def test_the_generic_phrasebook_names_any_value():
    values = ["Hair_Care", "Women's_Fragrance", "1990"]
    book = Phrasebook.load("generic", values)
    assert book.readable == ["hair care", "women's fragrance", "1990"]
    text = book.prompt(Intent((0,)), "unseen", np.random.default_rng(0))
    assert "hair care" in text.lower()


@pytest.mark.parametrize("name", ["movies", "beauty"])
def test_a_synonym_belongs_to_one_split(name):
    content = read_yaml(FOLDER / f"{name}.yaml")
    with_synonyms = [
        entry["synonyms"] for entry in content["names"].values() if "synonyms" in entry
    ]
    assert len(with_synonyms) >= 18
    for groups in with_synonyms:
        train, unseen = ({n["name"] for n in groups[phrases]} for phrases in ("train", "unseen"))
        assert train and unseen and not train & unseen
    assert set(content["sampling"]["train"]) == set(CHANCES)
    assert not any(content["sampling"]["unseen"].values())
