"""What the shipped reader makes of sentences that differ in little but mean something else."""

from pathlib import Path

import numpy as np
import pytest

from recbole_dpr.data.intent import Intent
from recbole_dpr.data.phrasebook import Phrasebook
from recbole_dpr.data.phrasefile import NEEDED, Slot, frame, parse
from recbole_dpr.files import properties_dir, read_yaml
from recbole_dpr.model.build import make_encoder, reading_encoder
from recbole_dpr.model.pretrained import make_reader
from recbole_dpr.model.reading import read_texts
from recbole_dpr.text.mentions import Mentions

PAIRS = read_yaml(Path(__file__).with_name("minimal_pairs.yaml"))["pairs"]
BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
GENRES = list(read_yaml(BENCHMARKS / "reader" / "implied.yaml"))
TITLE = "Casablanca"
SIDES = ("want", "reject", "neither")


def reading(book, readers=("shipped",)):
    """Readers over a phrasebook's values, deciding together, from texts to intents."""
    config = read_yaml(properties_dir() / "model" / "DPR.yaml")
    config |= {"reader": list(readers), "text_cache_dir": None, "device": "cpu"}
    mentions, made = Mentions(book.called, book.read_as), []
    for name in readers:
        encoder = reading_encoder(config, make_encoder(config), name)
        made.append((encoder, make_reader(encoder.vectors(book.readable), config, name).eval()))

    def read(texts):
        include, exclude = read_texts(texts, made, mentions)
        return list(map(Intent.of, include, exclude))

    return read


@pytest.fixture(scope="module")
def read(request):
    book = Phrasebook.load("movies", GENRES)
    read = reading(book, request.config.getoption("reader"))
    read.names = file_names(book)
    return read


def file_names(book):
    return {value: book._names[i] for i, value in enumerate(GENRES)}


def sentence(pattern, name):
    filled = [
        piece.fill([name], "or") if isinstance(piece, Slot) else piece for piece in parse(pattern)
    ]
    text = "".join(filled).replace("{title}", TITLE)
    return text[0].upper() + text[1:]


def right(side, value, intent):
    """`want` and `reject` are read exactly; `neither` need only not be taken for a rejection."""
    if side == "neither":
        return not intent.exclude
    return intent == (Intent((value,), ()) if side == "want" else Intent((), (value,)))


@pytest.fixture(scope="module")
def wrong(read):
    """What was read of the sentences that were not read right, by (number of the pair, side)."""
    asked = [
        (number, side, GENRES.index(pair["value"]), sentence(pair[side], read.names[pair["value"]]))
        for number, pair in enumerate(PAIRS)
        for side in SIDES
        if side in pair
    ]
    intents = read([text for *_, text in asked])
    return {
        (number, side): (text, intent)
        for (number, side, value, text), intent in zip(asked, intents, strict=True)
        if not right(side, value, intent)
    }


@pytest.mark.xfail(strict=True, reason="52 by the shipped reader, 50 with the large one beside it")
def test_nine_pairs_in_ten_are_told_apart(wrong):
    assert len(PAIRS) == 60
    assert len({number for number, _ in wrong}) <= 6, wrong


def test_most_sentences_of_the_pairs_are_read_right(wrong):
    assert len(wrong) / sum(side in pair for pair in PAIRS for side in SIDES) < 0.2, wrong


def test_a_wish_at_the_end_of_a_long_story_is_heard(read):
    story = (
        "Hello there. I spent the whole day painting the fence in the garden with my neighbour, who told me about his "
        "trip to Portugal and the food that they had there, and how the car broke down on the way back. We were both "
        "tired, and then it started to rain, so that we sat down under the old tree and waited. Anyway."
    )
    assert read([story]) == [Intent()]
    wished = Intent((GENRES.index("Comedy"),), (GENRES.index("Horror"),))
    assert read([f"{story} Please give me a comedy, and no horror."]) == [wished]


@pytest.fixture(scope="module")
def beauty():
    values = (BENCHMARKS.parent / "tests" / "data" / "beauty_values.txt").read_text().splitlines()
    return Phrasebook.load("beauty", values)


def test_names_of_common_words_are_heard_among_hundreds(beauty):
    said = ["I want a face product.", "No body products, please.", "How about some face products?"]
    face, body = (beauty.readable.index(name) for name in ("face", "body"))
    intents = [Intent((face,), ()), Intent((), (body,)), Intent((face,), ())]
    assert reading(beauty)(said) == intents


def test_the_names_of_a_large_catalogue_are_told_apart(beauty):
    values, book = beauty.readable, beauty
    rng = np.random.default_rng(1)
    intents = [
        intent
        for value in rng.choice(len(values), 100, replace=False).tolist()
        for intent in (Intent((value,)), Intent((), (value,)))
    ]
    read = reading(book)([book.prompt(intent, "unseen", rng) for intent in intents])
    right = [found == intent for found, intent in zip(read, intents, strict=True)]
    assert sum(right) / len(right) > 0.9


def test_no_phrasebook_and_no_training_text_holds_the_pairs():
    books = [properties_dir() / "phrasebook" / f"{name}.yaml" for name in ("movies", "generic")]
    held = {
        frame(pattern)
        for book in books
        for kind in NEEDED
        for patterns in read_yaml(book)[kind].values()
        for pattern in patterns
    }
    for name in ("phrases", "idioms"):
        more = read_yaml(BENCHMARKS / "reader" / f"{name}.yaml")
        held |= {frame(pattern) for patterns in more.values() for pattern in patterns}
    pairs = {frame(text) for pair in PAIRS for side, text in pair.items() if side != "value"}
    assert not pairs & held
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        from reader.sentences import Sentences
        from reader.utterances import Utterances

        said = Sentences("movies", GENRES, [TITLE])
    uttered = [*said.utterances.all, *Utterances(said.uttered, said.book).all]
    assert len(uttered) > 7000
    assert not pairs & {frame(utterance.pattern) for utterance in uttered}


WISHES = [
    "{one}",
    "{many}",
    "a {one}",
    "a {one} tonight",
    "I love {many}",
    "any good {many}?",
    "I want a {one}",
    "my wife loves {many}, so one of those please",
    "looking for {many} like Notting Hill",
    "recommend me a nice {one}",
    "in the mood for a {one}",
    "something like a {one} for date night",
    "how about a {one}",
    "{many} are my favorite",
]
REJECTIONS = [
    "anything but another {one}",
    "no {many}",
    "I hate {many}",
    "not a {one}",
    "enough of {many}",
    "I can't stand {many}",
    "please no more {many}",
    "{many} bore me",
    "never liked {many}",
    "I don't like {many} at all",
    "not in the mood for a {one}",
    "less {many}",
]
MEANT = {
    "rom-com": {"Comedy", "Romance"},
    "dark comedy": {"Comedy"},
    "period piece": {"Drama"},
    "space opera": {"Sci-Fi"},
    "creature feature": {"Horror"},
    "swashbuckler": {"Adventure"},
    "spy movie": {"Thriller"},
    "comic-book movie": {"Action"},
}


@pytest.mark.parametrize("word", MEANT)
def test_words_that_the_reader_was_not_taught_are_read_as_ones_that_it_was(read, word):
    """Of the 26 sentences one at most is misread; docs/prompts.md gives the figures."""
    values = tuple(sorted(map(GENRES.index, MEANT[word])))
    plural = f"{word[:-1]}ies" if word.endswith("y") else f"{word}s"
    for frames, meant in ((WISHES, Intent(values, ())), (REJECTIONS, Intent((), values))):
        intents = read([frame.format(one=word, many=plural) for frame in frames])
        assert intents.count(meant) >= len(frames) - 1


def test_a_minus_before_a_name_is_a_rejection(read):
    names = [read.names[value].name for value in GENRES]
    asked = [(a, b) for a in range(len(names)) for b in range(len(names)) if a != b]
    intents = read([f"{names[a]} -{names[b]}" for a, b in asked])
    right = sum(found == Intent((a,), (b,)) for found, (a, b) in zip(intents, asked, strict=True))
    assert right >= 0.98 * len(asked)
    alone = read([f"-{name}" for name in names])
    assert alone == [Intent((), (value,)) for value in range(len(names))]
