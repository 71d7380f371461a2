"""What ``msport generate`` prints while it generates, and the line after that."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Collection, Iterable, Sequence

import click

from msport.msmodels.channels import Piece
from msport.msmodels.tokenizer import Tokenizer

# The channel of the answer to the user. Text without channels is all answer.
FINAL = "final"


class Answer:
    """Prints tokens as text: the answer on stdout, reasoning and other channels on stderr under their names.

    Without a tokenizer it prints ids. `times` holds the time of each token in seconds, `channel` is the channel of the
    last text.
    """

    def __init__(self, tokenizer: Tokenizer | None, prompt: Sequence[int]) -> None:
        self.times: list[float] = []
        self.tokens: list[int] = []
        self.channel: str | None = None
        self._stream = tokenizer.channels(prompt) if tokenizer is not None else None
        self._message: int | None = None
        self._ended = True  # the last line shown
        for screen in (sys.stdout, sys.stderr):
            if isinstance(screen, io.TextIOWrapper):  # GBK, the encoding of many Chinese terminals, has no emoji
                screen.reconfigure(errors="replace")

    def show(self, generated: Iterable[int], stop_ids: Collection[int]) -> None:
        """Prints all tokens except a stop id. Ends the line even if it is interrupted."""
        try:
            for token in generated:
                self.times.append(time.perf_counter())
                self.tokens.append(token)
                if self._stream is None:
                    self._print(f"{',' if len(self.tokens) > 1 else ''}{token}")
                elif token not in stop_ids:
                    self._show(self._stream.add(token))
        finally:
            if self._stream is not None:
                self._show(self._stream.finish())
            self._end_line()

    def _show(self, piece: Piece) -> None:
        if not piece.text:
            return
        if piece.message != self._message:
            self._head(piece.channel)
            self._message = piece.message
        self._print(piece.text)

    def _head(self, channel: str | None) -> None:
        first = self._message is None
        self._end_line()
        self.channel = channel
        # If stdout is a file of its own, the answer needs no line break before it.
        shown = not first and sys.stdout.isatty() if self._is_answer else True
        if shown and channel is not None:
            click.secho(f"[{channel}]", dim=True, err=True)

    @property
    def _is_answer(self) -> bool:
        return self.channel in (None, FINAL)

    def _print(self, text: str) -> None:
        self._ended = text.endswith("\n")
        if self._is_answer:
            click.echo(text, nl=False, color=True)  # as the model wrote it: click would take escapes out of a file
        else:
            click.secho(text, nl=False, dim=True, err=True)

    def _end_line(self) -> None:
        if not self._ended:
            self._print("\n")
