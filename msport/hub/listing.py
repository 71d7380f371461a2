"""The files that a Hub lists for a model at one commit."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from msport.checkpoint.index import INDEX_NAME
from msport.checkpoint.strict_json import MAX_NBYTES, MAX_SETTINGS_NBYTES
from msport.errors import HubError, enumerate_some, quote

_log = logging.getLogger(__name__)

# The files that a model needs besides its weights, and the largest accepted size of each in bytes.
SMALL_FILES = {
    "config.json": MAX_SETTINGS_NBYTES,
    "generation_config.json": MAX_SETTINGS_NBYTES,
    "tokenizer.json": MAX_NBYTES,
    "tokenizer_config.json": MAX_SETTINGS_NBYTES,
    "tokenizer.model": MAX_NBYTES,
    "special_tokens_map.json": MAX_SETTINGS_NBYTES,
    "added_tokens.json": MAX_SETTINGS_NBYTES,
    "vocab.json": MAX_NBYTES,
    "merges.txt": MAX_NBYTES,
    "chat_template.jinja": MAX_SETTINGS_NBYTES,
    "chat_template.json": MAX_SETTINGS_NBYTES,
}
NEEDED_FILES = (*SMALL_FILES, "model*.safetensors", INDEX_NAME)
WEIGHTS = ".safetensors"
_SHA256 = re.compile("[0-9a-f]{64}")
_SHA1 = re.compile("[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of `nbytes` bytes at `url`. `sha256` and `git_sha1` (of the git blob) are the Hub's, in hex, or None.

    `model` is the Hub id, for messages.
    """

    model: str
    name: str
    nbytes: int
    url: str
    sha256: str | None = None
    git_sha1: str | None = None

    @property
    def version(self) -> str:
        """Text that changes when the file changes; empty if the Hub states no hash."""
        if self.sha256:
            return f"sha256:{self.sha256}"
        return f"git:{self.git_sha1}" if self.git_sha1 else ""

    @property
    def check(self) -> str:
        """How the whole file can be checked: by its ``sha256``, by the SHA-1 of its ``git`` blob, or ``no-hash``."""
        return "sha256" if self.sha256 else "git" if self.git_sha1 else "no-hash"

    @property
    def is_weights(self) -> bool:
        """Whether the file holds weights."""
        return self.name.endswith(WEIGHTS)

    def __str__(self) -> str:
        return f"{self.model}/{self.name}"


@dataclass(frozen=True, slots=True)
class Hub:
    """A Hub at the address `endpoint`. `credentials` are HTTP headers that may be sent only to that address.

    `explain` says what a refusal means, from the response's status and headers; each hub has its own.
    """

    endpoint: str
    credentials: dict[str, str]
    explain: Callable[[int, Any], str]


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of the model `id` at the commit `revision` that a conversion needs. The manifest stores `id`."""

    id: str
    revision: str
    files: tuple[RemoteFile, ...]
    hub: Hub


def needed_entries(entries: Iterable[Any], name_key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The `entries` of a Hub's list that describe files a conversion needs, each with its name, under `name_key`."""
    for entry in entries:
        name = entry.get(name_key) if isinstance(entry, dict) else None
        if isinstance(name, str) and _is_needed(name):
            yield name, entry


def _is_needed(name: str) -> bool:
    """Whether a conversion needs a file of this name.

    Only files at the top level are needed: ``original/`` and ``metal/`` hold the same weights in other layouts. A name
    that leaves the folder is never accepted.
    """
    plain = not name.startswith(".") and not any(mark in name for mark in "/\\:\0")
    return plain and any(fnmatchcase(name, pattern) for pattern in NEEDED_FILES)


def with_weights(files: Iterable[RemoteFile], model: str) -> tuple[RemoteFile, ...]:
    """`files` by name, each once. Raises HubError if there are no weights."""
    chosen = {file.name: file for file in files}
    if not any(file.is_weights for file in chosen.values()):
        raise HubError(f"{model}: has no model*.safetensors; choose a repository that ships safetensors")
    return tuple(file for _, file in sorted(chosen.items()))


def listed_nbytes(model: str, name: str, nbytes: Any) -> int:
    """The size in bytes that a Hub lists for a needed file. Raises HubError if it is no size or too large."""
    if type(nbytes) is not int or nbytes < 0:
        raise HubError(f"{model}: the Hub says that {name} has {quote(nbytes)} bytes; try again or use another mirror")
    most = SMALL_FILES.get(name, MAX_NBYTES)
    if nbytes > most and not name.endswith(WEIGHTS):
        raise HubError(f"{model}/{name}: has {nbytes} bytes, more than {most}; choose another repository")
    return nbytes


def warn_of_unchecked(listing: Listing, files: Sequence[RemoteFile]) -> None:
    """Warn about the `files` for which the Hub states no hash."""
    names = [file.name for file in files if file.check == "no-hash"]
    if names:
        _log.warning(
            "%s: %s states no hash of %s: only their length is checked, a damaged byte would go unnoticed",
            listing.id,
            listing.hub.endpoint,
            enumerate_some(names),
        )


def hexadecimal(value: Any, digits: int) -> str | None:
    """`value` in lower case if it has `digits` hexadecimal digits (64 for SHA-256, 40 for SHA-1), else None."""
    pattern = _SHA256 if digits == 64 else _SHA1
    return value.lower() if isinstance(value, str) and pattern.fullmatch(value.lower()) else None


class Checker:
    """Hashes a file that is read in order, and compares the result with the Hub's hash."""

    def __init__(self, file: RemoteFile) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        if file.check == "git":
            self._hash = hashlib.sha1(b"blob %d\0" % file.nbytes)  # noqa: S324  git identifies content by SHA-1

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """The next bytes of the file."""
        if self._file.check != "no-hash":
            self._hash.update(data)

    def finish(self) -> str:
        """How the file was checked, as in `RemoteFile.check`. Raises HubError if its hash differs."""
        expected = self._file.sha256 or self._file.git_sha1
        if expected and self._hash.hexdigest() != expected:
            raise HubError(
                f"{self._file}: its hash {self._hash.hexdigest()} is not {expected}, which the Hub states; it was"
                " damaged on the way or on the server, try again or use another mirror"
            )
        return self._file.check
