"""The tokenizer of a checkpoint: ``tokenizer.json`` with the additions of ``tokenizer_config.json`` and the chat
template.

It encodes and decodes as Transformers' fast tokenizers do, without Transformers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers.processors import TemplateProcessing

from msport.architectures import ModelConfig
from msport.checkpoint import strict_json
from msport.checkpoint.regular_files import read_whole
from msport.errors import CheckpointError, ConfigError, MsportError, UsageError, quote
from msport.msmodels import chat_template
from msport.msmodels.channels import CONTROLS, ChannelStream
from msport.msmodels.chat_template import ChatTemplate
from msport.msmodels.text_stream import TextStream

# Transformers rebuilds the post-processor of these classes from add_bos_token and add_eos_token.
_CLASSES_WITH_OWN_BOS = ("LlamaTokenizer", "LlamaTokenizerFast", "GemmaTokenizer", "GemmaTokenizerFast")
_TOKEN_FIELDS = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
_SPECIAL_TOKEN_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class Tokenizer:
    """Text to token ids and back; made by `load_tokenizer`.

    `special_tokens` maps names such as ``eos_token`` to their text; `special_ids` holds the ids that `decode` leaves
    out.
    """

    def __init__(
        self, backend: Any, special_tokens: Mapping[str, Any], template: ChatTemplate | None, where: Path
    ) -> None:
        self._backend = backend
        self._template = template
        self._where = where
        self.special_tokens = dict(special_tokens)
        self.special_ids = frozenset(
            token for token, added in backend.get_added_tokens_decoder().items() if added.special
        )

    @property
    def vocab_size(self) -> int:
        """Number of tokens, added ones included. A model's embedding may have more rows."""
        return int(self._backend.get_vocab_size(with_added_tokens=True))

    @property
    def has_chat_template(self) -> bool:
        """Whether the checkpoint has a chat template."""
        return self._template is not None

    def token_id(self, text: str) -> int | None:
        """The id of the token with the text `text`, or None."""
        token: int | None = self._backend.token_to_id(text)
        return token

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids of `text`; with `add_special_tokens`, including the checkpoint's special tokens (such as a leading
        bos).

        A rendered chat template already contains its special tokens: encode it with `add_special_tokens=False`. Raises
        `UsageError` for text that is not valid Unicode, for example bytes of another encoding.
        """
        _refuse_bytes(text)
        with self._failing_clearly():
            ids: list[int] = self._backend.encode(text, add_special_tokens=add_special_tokens).ids
        return ids

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """The text of `ids` as the model wrote it: without Transformers' `clean_up_tokenization_spaces`."""
        with self._failing_clearly():
            text: str = self._backend.decode(list(ids), skip_special_tokens=skip_special_tokens)
        return text

    @contextmanager
    def _failing_clearly(self) -> Iterator[None]:
        """Names the file in the error if encoding or decoding fails; the tokenizers library detects some faults
        late.
        """
        try:
            yield
        except (KeyboardInterrupt, SystemExit, TypeError, OverflowError):  # the last two errors come from the caller
            raise
        except BaseException as error:  # tokenizers raises plain Exception, and a Rust panic is not even an Exception
            raise CheckpointError(
                f"{self._where}: the tokenizer fails ({error}); take it from the model's repository again"
            ) from error

    def stream(self, *, skip_special_tokens: bool = True) -> TextStream:
        """A decoder for tokens that come one at a time: ``.add(token)`` and ``.finish()`` return text."""
        return TextStream(lambda ids: self.decode(ids, skip_special_tokens=skip_special_tokens))

    def channels(self, prompt: Sequence[int]) -> ChannelStream:
        """The same for a model that writes in channels, as gpt-oss does: text comes with the name of its channel.

        `prompt` are the tokens that the model continues.
        """
        return ChannelStream(self.stream(), self._channel_controls(), prompt)

    def _channel_controls(self) -> dict[int, str]:
        """The control tokens of channels by id; empty if one of them is no special token here."""
        found: dict[int, str] = {}
        for text in CONTROLS:
            token = self.token_id(text)
            if token is None or token not in self.special_ids:
                return {}
            found[token] = text
        return found

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        seconds: float = chat_template.SECONDS,
        memory: int = chat_template.MEMORY,
    ) -> str:
        """The prompt for `messages`, each ``{"role": ..., "content": ...}``; raises `UsageError` without a template.

        A template is a program: it runs in its own process, limited to `seconds` and `memory` bytes.
        """
        if self._template is None:
            raise UsageError(f"{self._where.parent}: the checkpoint has no chat template; use --raw")
        for value in (value for message in messages for value in message.values() if isinstance(value, str)):
            _refuse_bytes(value)
        return self._template.render(
            messages, add_generation_prompt=add_generation_prompt, seconds=seconds, memory=memory
        )


def load_tokenizer(folder: Path) -> Tokenizer | None:
    """The tokenizer in `folder`, or None without ``tokenizer.json``. Raises `CheckpointError` if it is malformed."""
    where = folder / "tokenizer.json"
    if not where.exists():
        return None
    backend, settings = _read_backend(where), _read_settings(folder)
    try:
        special_tokens = _special_tokens(settings)
        _add_tokens(backend, settings, special_tokens)
        _frame(backend, settings, special_tokens)
        template = _find_chat_template(folder, settings)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = str(error) if isinstance(error, ValueError) else repr(error)
        raise CheckpointError(
            f"{folder / 'tokenizer_config.json'}: malformed ({reason}); take it from the model's repository again"
        ) from None
    return Tokenizer(
        backend, special_tokens, None if template is None else ChatTemplate(*template, special_tokens), where
    )


def encode_for_model(tokenizer: Tokenizer, text: str, config: ModelConfig, **options: bool) -> list[int]:
    """`tokenizer.encode`; raises `ConfigError` if the model has no row for one of the ids."""
    ids = tokenizer.encode(text, **options)
    if ids and max(ids) >= config.vocab_size:
        raise ConfigError(
            f"tokenizer.json gives id {max(ids)}, but config.json has vocab_size {config.vocab_size};"
            " the two are not of the same model: take both from its repository again"
        )
    return ids


def _read_backend(where: Path) -> Any:
    try:
        backend = tokenizers.Tokenizer.from_buffer(read_whole(where, strict_json.MAX_NBYTES))
    except MsportError:
        raise
    except Exception as error:  # tokenizers raises plain Exception
        raise CheckpointError(
            f"{where}: not a tokenizer ({error}); take it from the model's repository again"
        ) from None
    backend.no_truncation()
    backend.no_padding()
    return backend


def _read_settings(folder: Path) -> dict[str, Any]:
    settings = _read_object(folder / "tokenizer_config.json")
    if "added_tokens_decoder" not in settings:  # otherwise tokenizer_config.json is complete
        settings |= _read_object(folder / "special_tokens_map.json")
    return settings


def _read_object(where: Path) -> dict[str, Any]:
    try:
        return strict_json.load_settings(where)
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise CheckpointError(f"{where}: {error}; take it from the model's repository again") from None


def _special_tokens(settings: Mapping[str, Any]) -> dict[str, Any]:
    named: dict[str, Any] = {name: _text(settings[name]) for name in _SPECIAL_TOKEN_NAMES if settings.get(name)}
    others = settings.get("additional_special_tokens")
    if others:
        named["additional_special_tokens"] = [_text(token) for token in _checked(others, list)]
    return named


def _text(token: Any) -> str:
    """The text of a token given as a string or as a serialised AddedToken."""
    text: str = _checked(token["content"] if isinstance(token, Mapping) else token, str)
    return text


def _checked(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"{quote(value)} is not a {'string' if kind is str else kind.__name__}")
    return value


def _add_tokens(backend: Any, settings: Mapping[str, Any], special_tokens: Mapping[str, Any]) -> None:
    """Adds the tokens that tokenizer_config.json names and tokenizer.json lacks, in Transformers' order.

    All tokens of one kind are added in one call, because each call rebuilds the search for all added tokens.
    """
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    stated = settings.get("added_tokens_decoder") or {}
    lacking: dict[str, Any] = {}
    for _, entry in sorted(stated.items(), key=lambda item: int(item[0])):
        if entry["content"] not in known:
            flags = {key: value for key, value in entry.items() if key in _TOKEN_FIELDS}
            lacking.setdefault(entry["content"], tokenizers.AddedToken(**flags))
    if lacking:
        backend.add_tokens(list(lacking.values()))
    named = [text for value in special_tokens.values() for text in (value if isinstance(value, list) else [value])]
    known |= lacking.keys()
    unknown = [text for text in named if text not in known]
    if unknown:
        backend.add_special_tokens(unknown)


def _frame(backend: Any, settings: Mapping[str, Any], special_tokens: Mapping[str, Any]) -> None:
    """Adds bos and eos to prompts for the tokenizer classes whose tokenizer.json does not define this."""
    if settings.get("tokenizer_class") not in _CLASSES_WITH_OWN_BOS:
        return
    bos = special_tokens.get("bos_token") if settings.get("add_bos_token", True) else None
    eos = special_tokens.get("eos_token") if settings.get("add_eos_token", False) else None
    backend.post_processor = TemplateProcessing(
        single=" ".join(part for part in (bos, "$A", eos) if part),
        special_tokens=[(token, backend.token_to_id(token)) for token in (bos, eos) if token],
    )


def _find_chat_template(folder: Path, settings: Mapping[str, Any]) -> tuple[str, Path] | None:
    """The template's source and its file; if there are several named templates, the default one."""
    where = folder / "chat_template.jinja"
    if where.exists():
        return _read_template(where), where
    source = settings.get("chat_template")
    if isinstance(source, list):
        source = {entry["name"]: entry["template"] for entry in source}.get("default")
    return None if source is None else (_checked(source, str), folder / "tokenizer_config.json")


def _read_template(where: Path) -> str:
    try:
        return read_whole(where, strict_json.MAX_SETTINGS_NBYTES).decode("utf-8")
    except ValueError as error:
        raise CheckpointError(f"{where}: {error}; take it from the model's repository again") from None


def _refuse_bytes(text: str) -> None:
    """Raises `UsageError` if `text` holds a surrogate, which Python uses for a byte that it could not decode."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        code, place = ord(text[error.start]), f"(character {error.start + 1})"
        if not 0xDC80 <= code <= 0xDCFF:
            raise UsageError(f"the text holds half a surrogate pair, U+{code:04X} {place}; remove it") from None
        raise UsageError(
            f"the text is not UTF-8: it holds the byte 0x{code - 0xDC00:02X} {place};"
            " convert it first, for example with iconv -f GBK -t UTF-8"
        ) from None
