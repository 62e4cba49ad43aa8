"""Phrasebooks: what they say for an intent, and that no file gets past its checks."""

import re
import statistics
import time
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import yaml

from recbole_dpr.data.intent import Intent
from recbole_dpr.data.phrasebook import Phrasebook, roughen
from recbole_dpr.data.phrasefile import PHRASES
from recbole_dpr.errors import DPRError

ML_1M = [
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
]
COMEDY, HORROR, WAR = (ML_1M.index(value) for value in ("Comedy", "Horror", "War"))
SMALL = {
    "names": {"A": {"name": "apple", "one": "an apple", "many": "apples"}, "B": "beer"},
    "noun": {"one": "thing", "many": "things"},
    "positive": {"train": ["I want {values}."], "unseen": ["Bring {a value}!"]},
    "negative": {"train": ["No {value}."], "unseen": ["Avoid {a value thing}."]},
    "compound": {
        "train": ["{include}, not {exclude}"],
        "unseen": ["{an exclude}? {includes}!"],
    },
    "neutral": {"train": ["hi"], "unseen": ["What are {values}?"]},
}


def small(values=("A", "B", "c_D"), **changes):
    return Phrasebook({**deepcopy(SMALL), **changes}, list(values), "small.yaml")


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def movies():
    return Phrasebook.load("movies", ML_1M)


# What an intent becomes


@pytest.mark.parametrize(
    ("intent", "phrases", "text"),
    [
        (Intent((0,)), "train", "I want apples."),
        (Intent((1,)), "train", "I want beer things."),
        (Intent((0,)), "unseen", "Bring an apple!"),
        (Intent((1,)), "unseen", "Bring a beer thing!"),
        (Intent((), (1,)), "train", "No beer."),
        (Intent((), (0,)), "unseen", "Avoid an apple thing."),
        (Intent((), (2,)), "train", "No c d."),
        (Intent((0,), (1,)), "train", "apple, not beer"),
        (Intent((1,), (0,)), "unseen", "an apple? beer things!"),
    ],
)
def test_names_take_the_form_that_the_sentence_asks_for(intent, phrases, text):
    assert small().prompt(intent, phrases, rng()) == text


def test_several_values_are_listed():
    made = {small().prompt(Intent((0, 1)), "train", rng(seed)) for seed in range(40)}
    both = ("apples {} beer things", "beer things {} apples")
    assert made == {f"I want {x.format(word)}." for x in both for word in ("and", "or")}
    made = {small().prompt(Intent((), (0, 1, 2)), "train", rng(seed)) for seed in range(80)}
    assert len(made) == 6
    assert all(re.fullmatch(r"No [\w ]+, [\w ]+ or [\w ]+\.", text) for text in made)


def test_prompts_follow_the_generator(movies):
    def draw(seed):
        generator = rng(seed)
        intent = Intent((COMEDY,), (HORROR,))
        return [movies.prompt(intent, "train", generator) for _ in range(50)]

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


@pytest.mark.parametrize("phrases", PHRASES)
def test_prompts_hold_what_the_intent_holds(movies, phrases):
    words = {COMEDY: r"comed|funny", HORROR: r"horror|scary|slasher", WAR: r"war|military"}
    movies = deepcopy(movies)
    movies.sampling["train"]["typo"] = 0.0
    generator = rng()
    for intent in (Intent((COMEDY,)), Intent((), (WAR,)), Intent((COMEDY, WAR), (HORROR,))):
        for _ in range(300):
            text = movies.prompt(intent, phrases, generator)
            for value in intent.include + intent.exclude:
                assert re.search(words[value], text, re.IGNORECASE), text
            assert not re.search(r"[{}]|  ", text), text


def test_unseen_phrases_use_readable_names_and_no_noise(movies):
    known = set(movies.patterns("positive", "unseen"))
    for seed in range(200):
        text = movies.prompt(Intent((COMEDY,)), "unseen", rng(seed))
        shapes = ("{a value}", "a comedy"), ("{values}", "comedies"), ("{value}", "comedy")
        nouns = re.compile(r"\{(a )?value ([^{}]+)\}")
        written = {
            nouns.sub(lambda m: f"{m[1] or ''}comedy {m[2]}", replace_all(p, dict(shapes)))
            for p in known
        }
        assert text in written


def replace_all(text, changes):
    for old, new in changes.items():
        text = text.replace(old, new)
    return text


@pytest.mark.parametrize(
    ("chance", "expected"),
    [
        ("lower", "i want apples."),
        ("no_stop", "I want apples"),
        ("synonym", "I want pommes."),
    ],
)
def test_noise_can_be_asked_for(chance, expected):
    names = {"A": {**SMALL["names"]["A"], "synonyms": {"train": [{"name": "x", "many": "pommes"}]}}}
    book = small(names=names, sampling={"train": {chance: 1}})
    assert book.prompt(Intent((0,)), "train", rng()) == expected


def test_marks_alone_are_left_where_they_are_all():
    chances = dict.fromkeys(("lower", "no_stop", "capital", "typo"), 1.0)
    assert roughen("?!", chances, np.random.default_rng(0)) == "?!"


def test_capitals_and_typing_errors():
    book = small(sampling={"train": {"capital": 1}})
    assert book.prompt(Intent((0,), (1,)), "train", rng()) == "Apple, not beer"
    book = small(sampling={"train": {"typo": 1}})
    made = {book.prompt(Intent((0,), (1,)), "train", rng(seed)) for seed in range(100)}
    assert {"aple, not beer", "appple, not beer", "applle, not beer"} <= made
    assert all(text.endswith(", not beer") for text in made)  # short words stay


def test_compound_prompts_can_be_two_sentences():
    book = small(sampling={"train": {"joined": 1}})
    made = {book.prompt(Intent((0,), (1,)), "train", rng(seed)) for seed in range(20)}
    assert made == {"I want apples. No beer.", "No beer. I want apples."}


def test_small_talk_stands_beside_a_prompt_and_mentions_no_value():
    neutral = {"train": ["hi", "What are {values}?"], "unseen": ["bye"]}
    book = small(neutral=neutral, sampling={"train": {"small_talk": 1}})
    made = {book.prompt(Intent((0,)), "train", rng(seed)) for seed in range(40)}
    assert made == {"hi. I want apples.", "I want apples. hi"}


def test_neutral_lines_ask_for_nothing():
    assert small().neutral("train", rng()) == "hi"
    made = {small().neutral("unseen", rng(seed)) for seed in range(40)}
    assert made == {"What are apples?", "What are beer things?", "What are c d things?"}


def test_a_prompt_takes_less_than_twenty_draws_of_a_number(movies):
    # 0.9 us a draw, written out, on two idle cores: a hundred thousand prompts in less than two seconds. A ratio holds on a busy
    # or slower machine, too.
    generator = rng()
    intents = [Intent((i,), ((i + 1) % 18,)) for i in range(18)]

    def seconds(make):
        start = time.process_time()
        for i in range(10_000):
            make(i)
        return time.process_time() - start

    ratios = [
        seconds(lambda i: movies.prompt(intents[i % 18], "train", generator))
        / seconds(lambda i: f"{generator.random():.3f}")
        for _ in range(5)
    ]
    assert statistics.median(ratios) < 20


# What is asked of the caller


def test_intents_are_sorted_and_never_contradict_themselves():
    assert Intent((2, 1, 2)) == Intent((1, 2))
    kinds = [Intent(*sides).kind for sides in (((0,),), ((), (0,)), ((0,), (1,)), ())]
    assert kinds == ["positive", "negative", "compound", "neutral"]
    with pytest.raises(DPRError, match=r"same values \[1\]"):
        Intent((1, 2), (1,))


def test_a_prompt_needs_an_intent_of_known_values():
    with pytest.raises(DPRError, match="neutral"):
        small().prompt(Intent(), "train", rng())
    for index in (3, -1):
        with pytest.raises(DPRError, match=f"index {index}"):
            small().prompt(Intent((index,)), "train", rng())
    with pytest.raises(DPRError, match="'seen'"):
        small().prompt(Intent((0,)), "seen", rng())
    with pytest.raises(DPRError, match="'standard'"):
        small().patterns("standard", "train")


# Files that are wrong


@pytest.mark.parametrize(
    "pattern, text",
    [
        ("no {value} tonight", "no things to eat tonight"),
        ("I love {values}.", "I love things to eat."),
        ("{a value thing} please", "something to eat please"),
        ("good {value things}", "good things to eat"),
    ],
)
def test_a_synonym_may_lack_a_form_before_a_noun(pattern, text):
    eat = {"alone": "things to eat", "one": "something to eat", "many": "things to eat"}
    names = {"A": {"name": "apple", "synonyms": {"train": [eat]}}}
    patterns = {"train": [pattern], "unseen": SMALL["positive"]["unseen"]}
    book = small(names=names, positive=patterns, sampling={"train": {"synonym": 1}})
    assert book.prompt(Intent((0,)), "train", rng()) == text


def without(kind, phrases=None):
    content = deepcopy(SMALL)
    if phrases:
        content[kind][phrases] = []
    else:
        del content[kind]
    return content


def changed(kind, phrases, *patterns):
    content = deepcopy(SMALL)
    content[kind][phrases] = list(patterns)
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (["a", "list"], "the file must hold"),
        (without("negative"), "negative.train holds no pattern"),
        (without("neutral", "unseen"), "neutral.unseen holds no pattern"),
        (
            changed("positive", "hard", "nothing but {value}"),
            "negative.hard holds no pattern, where",
        ),
        (changed("negative", "hard", "{value} is out"), "positive.hard holds no pattern, where"),
        ({**SMALL, "positve": {}}, "unknown key 'positve'; did you mean 'positive'"),
        ({**SMALL, "positive": {"training": []}}, "unknown key 'training'; did you mean 'train'"),
        ({**SMALL, "positive": {"train": "I want {value}"}}, "positive.train must be a list"),
        (changed("positive", "train", False), "positive.train: False is no text; put it in quotes"),
        (changed("negative", "train", "no"), "'no' lacks its placeholder {value}"),
        (changed("compound", "train", "{include}!"), "lacks its placeholder {exclude}"),
        (changed("positive", "train", "{value} {genre}"), "not a form of {value}"),
        (changed("neutral", "train", "hi {include}"), "not a form of {value}"),
        (changed("positive", "train", "{a values}"), "lacks its placeholder"),
        (changed("positive", "train", "bring {VALUE}"), "lacks its placeholder"),
        (changed("positive", "unseen", "i want: {a value}"), "positive.train has the same frame"),
        (changed("negative", "unseen", "I want {value}"), "positive.train has the same frame"),
        ({**SMALL, "held_out": ["craving", False]}, "held_out: False is no text; put it in quotes"),
        ({**SMALL, "names": {False: "a"}}, "names: False is no text; put it in quotes"),
        ({**SMALL, "held_out": ["want"]}, "'I want {values}.' holds 'want'"),
        ({**SMALL, "names": {"A": "beer", "B": "Beer"}}, "'B' and 'A' are both called 'Beer'"),
        ({**SMALL, "names": {"A": "c d"}}, "'c_D' and 'A' are both called 'c d'"),
        ({**SMALL, "names": {"A": {"one": "an apple"}}}, "names, 'A' lacks 'name'"),
        ({**SMALL, "names": {"A": {"name": "a", "plural": "b"}}}, "unknown key 'plural'"),
        ({**SMALL, "names": {"A": {"name": 7}}}, "names, 'A', name: 7 is no text"),
        ({**SMALL, "names": {"A": {"name": "a", "synonyms": {"train": "b"}}}}, "must be a list"),
        (
            {**SMALL, "names": {"A": {"name": "a", "synonyms": {"unseen": ["beer"]}}, "B": "beer"}},
            "'B' and 'A' are both called 'beer'",
        ),
        ({**SMALL, "sampling": {"train": {"typos": 1}}}, "did you mean 'typo'"),
        ({**SMALL, "sampling": {"train": {"typo": 2}}}, "sampling.train.typo must be a number"),
        ({**SMALL, "noun": {"one": 3}}, "noun, one: 3 is no text"),
        ({**SMALL, "read_as": {"ab": {"one": "apple beer"}}}, "read_as, 'ab' lacks 'many'"),
        ({**SMALL, "read_as": {"ab": "apple beer"}}, "read_as, 'ab' must hold 'key: value' pairs"),
    ],
)
def test_a_wrong_entry_is_named(content, message):
    with pytest.raises(DPRError, match=re.escape(message)) as error:
        Phrasebook(content, ["A", "B", "c_D"], "small.yaml")
    assert "small.yaml" in str(error.value) and "\n" not in str(error.value)


def test_values_of_two_columns_are_named():
    with pytest.raises(DPRError, match=r"^'A' stands in two of the prompt_fields"):
        small(values=["A", "B", "A"])
    with pytest.raises(DPRError, match=r"^'A', 'B' stand in two of the prompt_fields"):
        small(values=["A", "B", "A", "B"])


def test_values_that_differ_by_case_or_underscore_alone_are_all_named():
    # Words that a data set writes in two ways are not the fault of the file that it is read with.
    words = ("War", "Crime", "Film_Noir", "Horror", "Music")
    values = [*words, *(word.lower().replace("_", " ") for word in words)]
    with pytest.raises(DPRError) as error:
        Phrasebook.load("generic", values)
    message = str(error.value)
    assert message.startswith("'war' and 'War' are both called 'war', 'crime' and 'Crime' are")
    assert "'film noir' and 'Film_Noir' are both called 'film noir' and 2 more: merge" in message
    assert "in the .item file" in message and "a phrasebook of your own" in message
    apart = {"war": "warfare", "War": "war"}
    assert small(values=["War", "war"], names=apart).readable == ["war", "warfare"]


def test_a_misspelt_value_is_named_and_one_that_the_data_lack_is_not(caplog):
    names = {"Kookbooks": "cooking", "SciFi": "science fiction", "Novels": "novel", "Drama": "play"}
    small(values=["Cookbooks", "Sci_Fi", "Novels", "Novellas"], names=names)
    assert (
        "'Kookbooks' (did you mean 'Cookbooks'?), 'SciFi' (did you mean 'Sci_Fi'?)" in caplog.text
    )
    assert "small.yaml" in caplog.text
    assert "Drama" not in caplog.text  # no value is like it
    assert "Novel" not in caplog.text  # has a name of its own
    caplog.clear()
    Phrasebook.load("movies", [value for value in ML_1M if value != "Musical"])
    assert not caplog.text


def test_words_that_are_read_as_others_come_in_all_their_spellings(movies):
    for written in ("rom-com", "rom com", "romcom"):
        assert movies.read_as[written] == "romantic comedy"
        assert movies.read_as[f"{written}s"] == "romantic comedies"
    assert movies.read_as["dramedies"] == "comedy dramas"


def test_a_value_needs_letters():
    with pytest.raises(DPRError, match="names, '_'"):
        small(values=["A", "_"])


def test_a_file_is_loaded_by_path_and_a_missing_one_is_named(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(SMALL))
    book = Phrasebook.load(str(path), ["A"])
    assert book.prompt(Intent((0,)), "train", rng()) == "I want apples."
    with pytest.raises(DPRError, match=r"'movie' is neither .* did you mean 'movies'"):
        Phrasebook.load("movie", ["A"])
    for broken in ("positive: [", "positive: {}\npositive: {}", "names: {A: \x00}"):
        path.write_text(broken)
        with pytest.raises(DPRError, match=r"mine\.yaml(, line \d+)? is not valid yaml"):
            Phrasebook.load(str(path), ["A"])


def test_the_documented_example_is_a_phrasebook():
    page = Path(__file__).parents[2] / "docs" / "phrasebooks.md"
    content = yaml.safe_load(page.read_text().split("```yaml")[1].split("```")[0])
    book = Phrasebook(content, ["Cookbooks", "SciFi"], "docs")
    assert book.prompt(Intent((0,)), "unseen", rng()) == "I'm craving cookbooks."
    assert book.prompt(Intent((1,), (0,)), "unseen", rng()) == "science fiction minus cookbooks"


def test_values_that_differ_in_punctuation_alone_are_said(caplog):
    Phrasebook.load("generic", ["Hip-Hop", "Hip_Hop", "C", "C++", "Jazz"])
    assert "of 'Hip-Hop' and 'Hip_Hop', 'C' and 'C++' differ in punctuation alone" in caplog.text
    caplog.clear()
    Phrasebook.load("generic", ["Hip-Hop", "Jazz"])
    assert not caplog.text
