"""What the prompts of requests ask for; each text is read once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock

import torch
from torch import Tensor

from recbole_dpr.errors import DPRError, did_you_mean, some_of
from recbole_dpr.model.dpr import DPR
from recbole_dpr.serving.histories import texts_in

REMEMBERED = 10_000  # readings that are kept, the least recently used ones going first
LONGEST = 2_000  # characters of a prompt worth remembering

Prompt = str | None | Sequence[str | None]


class PromptMemory:
    """Reads prompts with a model's reader and remembers what they ask for. Thread-safe.

    Parameters
    ----------
    model : DPR
    readable : list of str ``[V]``
        What each attribute value is called.
    """

    def __init__(self, model: DPR, readable: Sequence[str]) -> None:
        self.model = model
        self._known: OrderedDict[str, Tensor] = OrderedDict()  # bool [2, V]
        # What is known changes in no time; the model reads one prompt at a time, for milliseconds.
        self._lock, self._reading = Lock(), Lock()
        self._names: dict[str, int] = {}
        # What is written exactly so goes first ("LEGO" beside "Lego"), and values before what others are called.
        values = model.attributes.values
        folded = [[name.casefold() for name in names] for names in (values, readable)]
        for names in (values, readable, *folded):
            for i, name in enumerate(names):
                self._names.setdefault(name, i)

    def intents(
        self,
        prompts: Sequence[Prompt],
        include: Sequence[str] | None = None,
        exclude: Sequence[str] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """What prompts ask for, two bool ``[n, V]``.

        Parameters
        ----------
        prompts : sequence
            A text, None, or the turns of a conversation, whose later ones overrule the earlier.
        include, exclude : sequence of str, optional
            Attribute values that every request wants or rejects whatever its prompt says, by the names
            that they have in the data, or by what `readable` calls them.

        Raises
        ------
        DPRError
            If a prompt is no text, or a value is unknown or both wanted and rejected.
        """
        rows, texts = [], []
        for row, prompt in enumerate(prompts):
            for turn in texts_of(row, prompt):
                rows.append(row)
                texts.append(turn)
        wanted, rejected = (
            self._chosen(n, v) for n, v in (("include", include), ("exclude", exclude))
        )
        for both in (wanted & rejected).nonzero()[:1, 0].tolist():
            raise DPRError(f"{self.model.attributes.values[both]!r} is both wanted and rejected")
        shape = (2, len(prompts), len(wanted))
        found = torch.zeros(shape, dtype=torch.bool, device=self.model.device)
        if any(texts):
            unique = list(dict.fromkeys(texts))
            place = {text: i for i, text in enumerate(unique)}
            read = self._read(unique)[:, [place[text] for text in texts]]
            if len(set(rows)) == len(rows):
                found[:, rows] = read
            else:
                for i, row in enumerate(rows):
                    found[:, row] = _overruled(found[:, row], read[:, i])
        chosen = torch.stack([wanted, rejected])[:, None].to(found.device)
        found = _overruled(found, chosen)
        return found[0], found[1]

    def _read(self, texts: list[str]) -> Tensor:
        """Readings of texts: ``[2, n, V]``."""
        readings = self._remembered(texts)
        if len(readings) < len(texts):
            # One at a time; what is remembered does not wait for it.
            with self._reading:
                readings |= self._remembered(texts)
                missing = [text for text in texts if text not in readings]
                if missing:
                    with torch.inference_mode():
                        both = torch.stack(self.model.read(missing), dim=1)
                    # Each a copy: a view would keep what was read along with it.
                    fresh = [reading.clone() for reading in both]
                    self._remember(dict(zip(missing, fresh, strict=True)))
                    readings |= zip(missing, fresh, strict=True)
        return torch.stack([readings[text] for text in texts], dim=1)

    def _remembered(self, texts: list[str]) -> dict[str, Tensor]:
        with self._lock:
            known = {text: self._known[text] for text in texts if text in self._known}
            for text in known:
                self._known.move_to_end(text)
        return known

    def _remember(self, readings: dict[str, Tensor]) -> None:
        with self._lock:
            self._known |= {text: r for text, r in readings.items() if len(text) <= LONGEST}
            while len(self._known) > REMEMBERED:
                self._known.popitem(last=False)

    def _chosen(self, side: str, values: Sequence[str] | None) -> Tensor:
        chosen = torch.zeros(len(self.model.attributes), dtype=torch.bool)
        for value in [] if values is None else texts_in(values, side, "attribute values"):
            known = self._names.get(value, self._names.get(value.casefold()))
            if known is None:
                there = self.model.attributes.values
                hint = did_you_mean(value, there) or f"; there are {some_of(there)}"
                raise DPRError(f"{side} holds {value!r}, which is no attribute value{hint}")
            chosen[known] = True
        return chosen


def texts_of(row: int, prompt: Prompt) -> list[str]:
    """The turns of a prompt that say something: none where it is None or blank.

    Raises
    ------
    DPRError
        If it is no prompt; `row` is the number that the message gives it.
    """
    turns = [prompt] if prompt is None or isinstance(prompt, str) else prompt
    if not isinstance(turns, (list, tuple)) or not all(
        turn is None or isinstance(turn, str) for turn in turns
    ):
        kind = type(prompt).__name__
        raise DPRError(f"prompt {row} must be a text or None, or a list of these, not {kind}")
    return [text for text in ((turn or "").strip() for turn in turns) if text]


def _overruled(before: Tensor, after: Tensor) -> Tensor:
    """Intents ``[2, ..., V]`` of two turns in one: the later turn wins where they differ."""
    return (before & ~after.flip(0)) | after
