"""Typed access to the fields of a ``config.json``, with errors that name the file and the field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msport.errors import ConfigError, UnsupportedError, quote

_REQUIRED = object()

# Several times the largest value of any published model. The table of tensors grows with some of these numbers, so a
# wrong one must be refused before it fills the memory.
LARGEST = {
    "head_dim": 8192,
    "hidden_size": 1 << 17,
    "intermediate_size": 1 << 20,
    "moe_intermediate_size": 1 << 20,
    "num_attention_heads": 4096,
    "num_experts": 4096,
    "num_hidden_layers": 1000,
    "num_key_value_heads": 4096,
    "num_local_experts": 4096,
    "vocab_size": 1 << 20,
}
# In all layers together, if the Hub has separate tensors for each expert.
MOST_EXPERTS = 50_000
# All other numbers are positions or counts of positions, which devices store in 32 bits.
_LARGEST_OTHER = 2**31 - 1


@dataclass(frozen=True, slots=True)
class ConfigFields:
    """The JSON object `data` from the file `where`; `prefix` is the path to a nested object.

    `silent` holds the family's values for absent fields; a field that is null is not absent. The methods below return
    the field `name`, or `default` if it is null or absent. They raise `ConfigError`, which names file and field, for a
    value of a wrong type or out of range, and for a missing field without a default.
    """

    data: Mapping[str, Any]
    where: Path
    prefix: str = ""
    silent: Mapping[str, Any] = field(default_factory=dict)

    def value(self, name: str) -> Any:
        """The field's value in the file; None if it is null or absent."""
        return self.data[name] if name in self.data else self.silent.get(name)

    def integer(self, name: str, default: Any = _REQUIRED, *, minimum: int = 1, maximum: int | None = None) -> int:
        """An integer from `minimum` to `maximum` (None: the limit of the field in `LARGEST`)."""
        value = self._get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            raise self.error(name, f"must be an integer of at least {minimum}, not {quote(value)}")
        most = LARGEST.get(name, _LARGEST_OTHER) if maximum is None else maximum
        if value > most:
            raise self.error(name, f"must be at most {most}, not {quote(value)}")
        return value

    def optional_integer(self, name: str, *, minimum: int = 1) -> int | None:
        """As `integer`, but None if the field is null or absent."""
        return None if self.value(name) is None else self.integer(name, minimum=minimum)

    def integers(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """A list of integers."""
        value = self._get(name, list(default))
        if not isinstance(value, list) or any(isinstance(item, bool) or not isinstance(item, int) for item in value):
            raise self.error(name, f"must be a list of integers, not {quote(value)}")
        return tuple(value)

    def experts(self, name: str, default: Any = _REQUIRED, *, layers: int) -> int:
        """The number of experts per layer, in `layers` layers, if the Hub has separate tensors for each expert."""
        value = self.integer(name, default)
        if value * layers > MOST_EXPERTS:
            raise self.error(name, f"is {value} in {layers} layers; msport takes at most {MOST_EXPERTS} experts in all")
        return value

    def number(self, name: str, default: Any = _REQUIRED, *, above: float = 0.0) -> float:
        """A finite number greater than `above`."""
        value = self._get(name, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > above or value == float("inf"):
            raise self.error(name, f"must be finite and above {above:g}, not {quote(value)}")
        return float(value)

    def optional_number(self, name: str, *, above: float = 0.0) -> float | None:
        """As `number`, but None if the field is null or absent."""
        return None if self.value(name) is None else self.number(name, above=above)

    def boolean(self, name: str, default: Any = _REQUIRED) -> bool:
        """True or false."""
        value = self._get(name, default)
        if not isinstance(value, bool):
            raise self.error(name, f"must be true or false, not {quote(value)}")
        return value

    def text(self, name: str, default: Any = _REQUIRED) -> str:
        """A string."""
        value = self._get(name, default)
        if not isinstance(value, str):
            raise self.error(name, f"must be a string, not {quote(value)}")
        return value

    def nested(self, name: str) -> ConfigFields | None:
        """The fields of a nested object; None if it is null or absent."""
        value = self.value(name)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise self.error(name, f"must be an object, not {quote(value)}")
        return ConfigFields(value, self.where, f"{self.prefix}{name}.")

    def choice(self, name: str, allowed: tuple[str, ...], default: Any = _REQUIRED) -> str:
        """A string that is one of `allowed`."""
        value = self.text(name, default)
        if value not in allowed:
            raise self.error(name, f"is {quote(value)}; msport implements {', '.join(map(repr, allowed))}")
        return value

    def fixed(self, name: str, value: Any, reason: str) -> None:
        """Raises `UnsupportedError` if field `name` differs from `value`, the only one that msport implements."""
        found = self.value(name)
        if found is not None and found != value:
            raise UnsupportedError(f"{self.where}: '{self.prefix}{name}' is {quote(found)}: {reason}")

    def layer_types(self, name: str, num_hidden_layers: int, default: tuple[str, ...]) -> tuple[str, ...]:
        """The type of each layer: ``full_attention`` or ``sliding_attention``."""
        value = self.value(name)
        if value is None:
            return default
        known = ("full_attention", "sliding_attention")
        if not isinstance(value, list) or any(kind not in known for kind in value):
            raise self.error(name, f"must be a list of {' and '.join(known)}")
        if len(value) != num_hidden_layers:
            raise self.error(name, f"has {len(value)} entries for {num_hidden_layers} layers")
        return tuple(value)

    def error(self, name: str, problem: str) -> ConfigError:
        """The error that says `problem` about the field `name`."""
        return ConfigError(f"{self.where}: '{self.prefix}{name}' {problem}")

    def _get(self, name: str, default: Any) -> Any:
        value = self.value(name)
        if value is not None:
            return value
        if default is _REQUIRED:
            raise self.error(name, "is missing; take config.json from the model's repository again")
        return default
