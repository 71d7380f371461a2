"""Converts tokens to text, one token at a time.

A character may span up to four tokens, and the text of a token may depend on those before it (a leading space, several
byte tokens). So the stream decodes a short window: the last emitted group of tokens as context, and the tokens since
then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Bytes, and so tokens, of an incomplete character; a decoder may show each as a replacement character.
_LONGEST_PARTIAL = 3
_MAX_WINDOW = 32
_CONTEXT = 8


class TextStream:
    """Emits the text of `decode` piece by piece, never half a character, with bounded work per token."""

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._tokens: list[int] = []
        self._context = 0  # number of completely emitted tokens in the window
        self._emitted = 0  # number of emitted characters of the window's text

    def add(self, token: int) -> str:
        """The text that `token` completes; empty while a character is incomplete."""
        self._tokens.append(token)
        text = self._decode(self._tokens)
        piece = self._emit(text, self._complete(text))
        if piece and not text.endswith(_REPLACEMENT):
            self._start_group()
        elif len(self._tokens) > _MAX_WINDOW:
            self._shorten(len(text) - self._emitted)
        return piece

    def finish(self) -> str:
        """The rest of the text; an incomplete character becomes U+FFFD. The stream then starts again."""
        text = self._decode(self._tokens)
        piece = self._emit(text, len(text))
        self._tokens, self._context, self._emitted = [], 0, 0
        return piece

    def _complete(self, text: str) -> int:
        """The number of characters of the window's text that no further token can change."""
        trailing = len(text) - len(text.rstrip(_REPLACEMENT))
        pending = len(self._tokens) - self._context
        if trailing and pending <= _LONGEST_PARTIAL:
            return self._emitted
        return len(text) - min(trailing, _LONGEST_PARTIAL)

    def _emit(self, text: str, end: int) -> str:
        piece = text[self._emitted : end]
        self._emitted = max(self._emitted, end)
        return piece

    def _start_group(self) -> None:
        self._tokens = self._tokens[self._context :]
        self._context = len(self._tokens)
        self._emitted = len(self._decode(self._tokens))

    def _shorten(self, pending: int) -> None:
        self._tokens, self._context = self._tokens[-_CONTEXT:], 0
        self._emitted = max(0, len(self._decode(self._tokens)) - pending)
