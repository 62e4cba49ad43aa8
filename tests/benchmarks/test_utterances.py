"""Whole utterances that readers learn from: what they ask for, and the same about other values."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest

from recbole_dpr.data.intent import Intent
from recbole_dpr.data.phrasebook import Phrasebook
from recbole_dpr.files import read_yaml
from recbole_dpr.text.mentions import Mentions

REQUESTS = Path(__file__).resolve().parents[2] / "benchmarks" / "requests.tsv"
GENRES = ["Comedy", "Horror", "Western", "War"]
COMEDY, HORROR, WESTERN, WAR = range(4)


@pytest.fixture(scope="module")
def book():
    return Phrasebook.load("movies", GENRES)


def drawn(book, text, intent, times=60):
    from reader.utterances import Utterances

    rng = np.random.default_rng(0)
    said = Utterances([(text, intent)], book)
    return [said.draw(rng) for _ in range(times)]


def test_an_utterance_is_said_as_it_is_or_about_other_values(book):
    text, intent = "Anything but comedies; a western, say.", Intent((WESTERN,), (COMEDY,))
    mentions = Mentions(book.called)
    made = drawn(book, text, intent)
    assert (text, intent) in made and len(set(made)) > 2
    for said, asked in made:
        first, second = (value for *_, value in mentions.spans(said))
        assert asked == Intent((second,), (first,))
        assert {first, second} in ({COMEDY, WESTERN}, {HORROR, WAR})


def test_a_value_that_is_not_spelled_stays(book):
    text, intent = "I want to be scared, not another western", Intent((HORROR,), (WESTERN,))
    for said, asked in drawn(book, text, intent):
        assert said.startswith("I want to be scared, not another")
        assert asked.include == (HORROR,) and asked.exclude[0] in (WESTERN, COMEDY, WAR)


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        ("a western tonight", {"a comedy tonight", "a horror movie tonight"}),
        ("Western films!", {"Comedy films!", "Horror films!", "War films!"}),
        ("so many westerns", {"so many comedies", "so many horror movies"}),
    ],
)
def test_another_value_takes_the_form_that_stood_there(book, text, shapes):
    assert shapes <= {said for said, _ in drawn(book, text, Intent((WESTERN,)), 400)}


@pytest.mark.parametrize(("domain", "least"), [("movies", 11_000), ("generic", 1_900)])
def test_every_utterance_asks_for_values_of_its_domain(domain, least):
    from reader.sentences import HERE
    from reader.utterances import utterances, uttered_values

    values = uttered_values(domain)
    if domain == "movies":
        assert set(values) == set(read_yaml(HERE / "implied.yaml"))
    said = utterances(domain, values)
    assert len({text.casefold() for text, _ in said}) == len(said) >= least
    share = {kind: np.mean([i.kind == kind for _, i in said]) for kind in ("positive", "negative")}
    assert all(0.25 < part < 0.5 for part in share.values())


def test_no_reader_learns_from_the_requests_that_it_is_asked():
    from reader.utterances import utterances, uttered_values

    def words(text):
        return tuple(re.findall(r"\w+", text.casefold()))

    with REQUESTS.open(encoding="utf-8", newline="") as file:
        asked = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    kinds = {kind: sum(row["kind"] == kind for row in asked) for kind in ("positive", "negative")}
    assert len(asked) == 400 and kinds == {"positive": 140, "negative": 110}
    learned = {words(text) for text, _ in utterances("movies", uttered_values("movies"))}
    assert not learned & {words(row["text"]) for row in asked}


def test_a_prompt_of_several_utterances_does_not_gainsay_itself():
    from reader.sentences import Sentences

    genres = list(read_yaml(REQUESTS.with_name("reader") / "implied.yaml"))
    domain = Sentences("movies", genres, ["Heat"], share=1.0)
    rng = np.random.default_rng(0)
    said = [domain.draw(rng) for _ in range(300)]
    assert not any({*asked.include} & {*asked.exclude} for _, asked in said)
    whole = {utterance.text for utterance in domain.utterances.all}
    held = [sum(utterance in text for utterance in whole) for text, _ in said]
    assert 20 < sum(n > 1 for n in held) < 150
