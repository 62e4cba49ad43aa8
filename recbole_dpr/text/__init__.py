"""Text in, tensors out: the frozen language model that reads prompts and item texts."""

from recbole_dpr.text.encoder import TextEncoder

__all__ = ["TextEncoder"]
