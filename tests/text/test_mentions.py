"""Names are found where a text spells them, and nowhere else."""

import pytest
import torch

from recbole_dpr.text import TextEncoder
from recbole_dpr.text.bert import BertEncoder
from recbole_dpr.text.mentions import NOBODY, Mentions

CALLED = [
    ["hair styling", "a hair styling product", "hair styling products"],
    ["hair styling tool"],
    ["berry"],
    ["sci-fi", "science fiction"],
    ["kids'", "children's"],
    ["news"],
    ["new"],
]


@pytest.fixture(scope="module")
def mentions():
    return Mentions(CALLED)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a hair styling tool", [("hair styling tool", 1)]),
        ("Hair  Styling Tools!", [("Hair  Styling Tools", 1)]),
        ("a hair styling product and a tool", [("hair styling product", 0)]),
        ("hairstyling, no tool", []),
        ("berries, not berry", [("berries", 2), ("berry", 2)]),
        ("strawberry, berry-like", [("berry", 2)]),
        ("SCI FI or Science-Fiction", [("SCI FI", 3), ("Science-Fiction", 3)]),
        ("for kids and children's", [("kids", 4), ("children's", 4)]),
        ("new news", [("new", 6), ("news", 5)]),  # as written goes before another's singular
        ("", []),
    ],
)
def test_the_longest_name_that_stands_there_is_found(mentions, text, found):
    assert [(text[begin:end], value) for begin, end, value in mentions.spans(text)] == found


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("Hair styling tools.", [1]),
        ("a berry", [2]),
        ("kids!", [4]),
        ("new", [6]),
        ('"Sci-Fi"', [3]),
        ("kids berry", [4, 2]),
        ("berries & sci-fi, or news", [2, 3, 5]),
        *((text, []) for text in ("berry?", "berry?!", '"berry?"', "-berry", "- berry", "~berry")),
        *(
            (text, [])
            for text in ("!!berry - kids", "¬berry", "berry :(", "berry \N{THUMBS DOWN SIGN}")
        ),
        *((text, []) for text in ("no berry", "berry, not kids", "berry > kids", "")),
    ],
)
def test_a_text_that_is_names_and_nothing_else(mentions, text, values):
    assert mentions.alone(text) == values


def test_words_that_are_read_as_others():
    mentions = Mentions(CALLED, {"romcom": "romantic comedy", "romcoms": "romantic comedies"})
    assert mentions.rewrite("No RomComs; a romcom-like romcomedy") == (
        "No romantic comedies; a romantic comedy-like romcomedy"
    )
    assert Mentions(CALLED).rewrite("romcom") == "romcom"
    spies = Mentions(CALLED, {"spy film": "thriller"})
    assert spies.rewrite("SPY FILM, SPY F\u0130LM") == "thriller, SPY F\u0130LM"
    assert repr(mentions) != repr(Mentions(CALLED))  # what was read is kept apart


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("-berry", "no berry"),
        ("kids -berry", "kids, no berry"),
        ("kids, -berries -sci-fi!", "kids, no berries, no sci-fi!"),
        ("kids \N{MINUS SIGN}news", "kids, no news"),
        ("a sci-fi kids-berry", "a sci-fi kids-berry"),
        ("kids - berry", "kids - berry"),
        ("kids -especially that", "kids -especially that"),
    ],
)
def test_a_minus_before_a_name_says_no(mentions, text, read):
    assert mentions.rewrite(text) == read


@pytest.mark.parametrize("kind", [TextEncoder, BertEncoder])
def test_tokens_belong_to_the_value_whose_name_they_spell(mentions, kind):
    encoder = kind(max_length=16)
    texts = ["no hair styling tools", "so \x00 a sci-fi", ""]
    owners = mentions.owners(texts, encoder)
    _, mask = encoder.token_states(texts)
    assert owners.shape == mask.shape
    assert owners[0].tolist()[:7] == [NOBODY, NOBODY, 1, 1, 1, NOBODY, NOBODY]
    # [CLS] so a sci - fi [SEP]
    assert owners[1].tolist()[:7] == [NOBODY, NOBODY, NOBODY, 3, 3, 3, NOBODY]
    assert (owners[~mask] == NOBODY).all()
    assert mentions.owners([], encoder).shape == (0, 0)


def test_what_only_looks_like_a_plural_has_no_singular():
    mentions = Mentions([["news", "a news item", "news items"], ["blues"], ["comics"]])
    assert not list(mentions.spans("something new and blue"))
    found = [value for *_, value in mentions.spans("News, the blues, a comic, a news item")]
    assert found == [0, 1, 2, 0]


def test_places_are_those_of_the_text_where_lower_case_is_longer():
    text = "\u0130\u0130 a berry"  # dotted capitals, two characters each in lower case
    (found,) = Mentions([["berry"]]).spans(text)
    assert text[found[0] : found[1]] == "berry"


def test_names_of_nothing_are_never_found():
    assert list(Mentions([["", "a", "!"], []]).spans("a ! an")) == []


def test_a_tokenizer_that_does_not_tell_places_leaves_the_tokens_to_nobody(mentions, monkeypatch):
    encoder = TextEncoder()
    tokenizer = encoder._loaded[0]
    monkeypatch.setattr(type(tokenizer), "is_fast", False)
    texts = ["a hair styling tool"]
    owners = mentions.owners(texts, encoder)
    assert owners.shape == encoder.token_states(texts)[1].shape
    assert torch.equal(owners, torch.full_like(owners, NOBODY))


def test_what_several_values_are_called_names_none():
    mentions = Mentions([["C"], ["C++"], ["Rust"]])
    assert [value for *_, value in mentions.spans("no C, no C++, but Rust")] == [2]
    hyphened = Mentions([["hip-hop"], ["hip hop"]])
    assert not [*hyphened.spans("hip-hop, hip hop, hip-hops")]
