"""What the shipped reader makes of sentences that differ in little but mean something else."""

from pathlib import Path

import pytest
import torch

from recbole_dpr.data.intent import Intent
from recbole_dpr.data.phrasebook import Phrasebook
from recbole_dpr.data.phrasefile import NEEDED, Slot, frame, parse
from recbole_dpr.files import properties_dir, read_yaml
from recbole_dpr.model.pretrained import SHIPPED_STATES, make_reader
from recbole_dpr.model.reader import read_intents
from recbole_dpr.text import TextEncoder

PAIRS = read_yaml(Path(__file__).with_name("minimal_pairs.yaml"))["pairs"]
BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
GENRES = list(read_yaml(BENCHMARKS / "reader" / "implied.yaml"))
TITLE = "Casablanca"
SIDES = ("want", "reject", "neither")


@pytest.fixture(scope="module")
def read():
    """From texts to intents over the genres of MovieLens."""
    encoder = TextEncoder(max_length=64, states_layer=SHIPPED_STATES)
    book = Phrasebook.load("movies", GENRES)
    reader = make_reader(encoder.vectors(book.readable), "shipped").eval()

    @torch.no_grad()
    def read(texts):
        include, exclude = read_intents(reader(*encoder.token_states(texts)))
        return [
            Intent(*(tuple(row.nonzero()[:, 0].tolist()) for row in rows))
            for rows in zip(include, exclude, strict=True)
        ]

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


@pytest.mark.xfail(strict=True, reason="the shipped reader tells about four pairs in five apart")
def test_nine_pairs_in_ten_are_told_apart(wrong):
    assert len(PAIRS) == 60
    assert len({number for number, _ in wrong}) <= 6, wrong


def test_most_sentences_of_the_pairs_are_read_right(wrong):
    assert len(wrong) / sum(side in pair for pair in PAIRS for side in SIDES) < 0.2, wrong


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
