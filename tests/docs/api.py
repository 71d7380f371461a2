"""The signatures that docs/api.md shows, from the code: ``python tests/docs/api.py`` prints them."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields, is_dataclass
from typing import Any

import msport
from msport import errors
from msport.bench import BenchReport
from msport.checkpoint import Manifest, TensorRecord
from msport.hub import Network
from msport.msmodels.channels import ChannelStream, Piece
from msport.msmodels.model import LanguageModel
from msport.msmodels.text_stream import TextStream
from msport.msmodels.tokenizer import Tokenizer
from msport.progress import Step
from msport.validate import Report

# What the functions give and take, beside plain values.
TYPES = (
    Manifest,
    TensorRecord,
    Step,
    Network,
    LanguageModel,
    Tokenizer,
    TextStream,
    ChannelStream,
    Piece,
    Report,
    BenchReport,
)
WIDTH = 100


def exported() -> dict[str, Any]:
    """What `msport` exports, its version left out."""
    return {name: getattr(msport, name) for name in msport.__all__ if name != "__version__"}


def raised() -> list[str]:
    return [name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Exception)]


def members(owner: type) -> list[str]:
    """A line for each public field, property and method of `owner`, those that it inherits from msport's included."""
    own = [base for base in reversed(owner.__mro__) if base.__module__.startswith("msport.")]
    lines = {name: shown for base in own for name, shown in _members(base)}
    return list(lines.values())


def _members(owner: type) -> list[tuple[str, str]]:
    stated = [(field.name, f"{field.name}: {field.type}") for field in fields(owner)] if is_dataclass(owner) else []
    for name, value in vars(owner).items():
        if name.startswith("_") or name in dict(stated):
            continue
        if isinstance(value, property):
            assert value.fget is not None
            stated.append((name, f"{name}: {inspect.signature(value.fget).return_annotation}"))
        elif isinstance(value, classmethod):
            stated.append((name, f"{owner.__name__}.{signature(value.__func__, name)}"))
        elif inspect.isfunction(value):
            stated.append((name, signature(value, name)))
    return stated


def signature(function: Any, name: str) -> str:
    """``name(argument: type = default, ...) -> type``, over several lines where one would be too long."""
    found = inspect.signature(function)
    listed = []
    for parameter in found.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in listed:
            listed.append("*")
        if parameter.name not in ("self", "cls"):
            default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}".replace("'", '"')
            listed.append(f"{parameter.name}: {parameter.annotation}{default}")
    tail = f") -> {found.return_annotation}"
    line = f"{name}({', '.join(listed)}{tail}"
    return line if len(line) <= WIDTH else f"{name}(\n" + "".join(f"    {item},\n" for item in listed) + tail


def attributes(owner: type) -> set[str]:
    """What the constructor of a class that is no dataclass sets."""
    if is_dataclass(owner):
        return set()
    return set(re.findall(r"self\.([a-z]\w*)(?:: [^=\n]+)? = ", inspect.getsource(owner.__init__)))


if __name__ == "__main__":
    for name, value in exported().items():
        if inspect.isfunction(value):
            print(f"### {name}\n\n{signature(value, name)}\n\n{inspect.getdoc(value)}\n")
    for owner in TYPES:
        print(f"### {owner.__name__}\n\n{inspect.getdoc(owner)}\n")
        print("\n".join(members(owner)), end="\n\n")
