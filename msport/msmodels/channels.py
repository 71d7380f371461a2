"""Answers in channels, as gpt-oss writes them: reasoning is separate from the answer to the user.

    <|start|>assistant<|channel|>analysis<|message|>...<|end|><|start|>assistant<|channel|>final<|message|>...<|return|>

Format: https://cookbook.openai.com/articles/openai-harmony. A model is assumed to write in channels if its tokenizer
has the four control tokens. They are recognised by their ids, so text that looks like one stays text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from msport.msmodels.text_stream import TextStream

CONTROLS = START, CHANNEL, MESSAGE, END = "<|start|>", "<|channel|>", "<|message|>", "<|end|>"
# In tokens. An untrained model may never end a header; its output is then shown as text.
_LONGEST_HEADER = 32


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of text, its channel (None: no channel is named), and the number of its message."""

    channel: str | None
    text: str
    message: int


class ChannelStream:
    """Converts tokens, one at a time, to text with its channel; never returns half a character.

    `text` decodes the tokens. `controls` maps ids to the `CONTROLS` that they are; without them all text has no
    channel. `prompt` holds the tokens before, which may have begun a message.
    """

    def __init__(self, text: TextStream, controls: Mapping[int, str], prompt: Sequence[int]) -> None:
        self._text = text
        self._controls = controls
        self._channel: str | None = None
        self._message = 0
        # The control token that began a header (None in the text of a message), and the header so far.
        self._header_of: str | None = None
        self._header, self._header_length = "", 0
        self._silent = True
        self._begin(prompt)

    def add(self, token: int) -> Piece:
        """The text that `token` completes; empty for a control token, in a header, and while a character is partial."""
        control = self._controls.get(token)
        if control is not None:
            piece = self._piece(self._text.finish())
            self._turn(control)
            return piece
        return self._piece(self._text.add(token))

    def finish(self) -> Piece:
        """The rest of the text. An unfinished header is shown only if there is no other text."""
        piece = self._piece(self._text.finish())
        if self._header_of == START and self._silent:
            return self._header_as_text()
        return piece

    def _begin(self, prompt: Sequence[int]) -> None:
        starts = [place for place, token in enumerate(prompt) if self._controls.get(token) == START]
        if not starts:
            return
        for token in prompt[starts[-1] :]:
            self.add(token)
        self._silent = True
        if self._header_of == START:
            self._header = ""  # the prompt contains the role

    def _turn(self, control: str) -> None:
        if control == MESSAGE and self._header_of is None:
            return  # without meaning in the middle of a message
        names = self._header.split() if self._header_of == CHANNEL else []
        self._header_of = control if control in (START, CHANNEL) else None
        self._header, self._header_length = "", 0
        if self._header_of is None:
            self._channel = names[0] if names and control == MESSAGE else None
            self._message += 1

    def _piece(self, text: str) -> Piece:
        if self._header_of is None:
            self._silent = self._silent and not text
            return Piece(self._channel, text, self._message)
        self._header += text
        self._header_length += 1
        if self._header_length > _LONGEST_HEADER:
            return self._header_as_text()
        return Piece(self._channel, "", self._message)

    def _header_as_text(self) -> Piece:
        text, self._header, self._header_of, self._channel = self._header, "", None, None
        self._message += 1
        return Piece(None, text, self._message)
