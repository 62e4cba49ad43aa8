"""From prompts to what they ask for: with one reader, or with several that decide together."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from recbole_dpr.model.pretrained import fingerprint
from recbole_dpr.model.reader import PromptReader, read_intents
from recbole_dpr.text import TextEncoder
from recbole_dpr.text.mentions import Mentions

READ_AT_ONCE = 256  # prompts that the readers see in one go at most,
READ_PAIRS = 1 << 16  # of as many prompts and values as these

# What other code made of the same text and weights must not be answered from a cache.
CODE = "".join(
    inspect.getsource(sys.modules[name])
    for name in (Mentions.__module__, PromptReader.__module__, __name__)
)

Readers = Sequence[tuple[TextEncoder, PromptReader]]


def read_texts(texts: Sequence[str], readers: Readers, mentions: Mentions) -> tuple[Tensor, Tensor]:
    """Which values texts want and reject, two bool ``[n, V]`` on the CPU; a blank text asks for nothing.

    Parameters
    ----------
    texts : sequence of str
    readers : sequence of (TextEncoder, PromptReader)
        Each with the encoder that it reads. What they have read is kept where the first encoder keeps
        what it has encoded, if they come trained: it holds for other runs, too.
    mentions : Mentions
        Finds the values' names in a text, and rewrites what says them in other words.
    """
    read = partial(_read, readers=readers, mentions=mentions)
    encoder = readers[0][0]
    if not (encoder.keeps and all(reader.comes_trained for _, reader in readers)):
        return read(texts)
    marks = [
        f"{of.version}-{of.precision}-{fingerprint(reader, mentions)}" for of, reader in readers
    ]
    mark = hashlib.blake2b(" ".join([CODE, *marks]).encode(), digest_size=8).hexdigest()
    return encoder.kept(f"intents-{mark}", texts, read)


@torch.no_grad()
def _read(texts: Sequence[str], readers: Readers, mentions: Mentions) -> tuple[Tensor, Tensor]:
    texts = [mentions.rewrite(text) for text in texts]
    # Asking costs nothing; going through all layers to set what is set takes a millisecond of every request.
    training = [reader for _, reader in readers if reader.training]
    for reader in training:
        reader.eval()
    n_values = len(readers[0][1].names)
    # Each once, those of about one length together, a few at a time: a million states are gigabytes.
    asked = sorted({text for text in texts if text.strip()}, key=lambda text: (len(text), text))
    intents = torch.zeros(2, len(asked) + 1, n_values, dtype=torch.bool)
    at_once = max(1, min(READ_AT_ONCE, READ_PAIRS // n_values))
    for begin in range(0, len(asked), at_once):
        some = asked[begin : begin + at_once]
        logits = [
            reader(*_seen(some, encoder, mentions, reader.names.device))
            for encoder, reader in readers
        ]
        intents[:, begin : begin + len(some)] = torch.stack(read_intents(*logits))
    for row, text in enumerate(asked):
        if named := mentions.alone(text):  # as typed into a search box, whatever it reads like
            intents[:, row] = False
            intents[0, row, named] = True
    for reader in training:
        reader.train()
    place = {text: row for row, text in enumerate(asked)}
    rows = torch.tensor([place.get(text, len(asked)) for text in texts], dtype=torch.long)
    return intents[0, rows], intents[1, rows]


def _seen(
    texts: list[str], encoder: TextEncoder, mentions: Mentions, device: torch.device
) -> list[Tensor]:
    """What a reader sees of texts."""
    return [x.to(device) for x in (*encoder.token_states(texts), mentions.owners(texts, encoder))]
