"""The arguments of a run, and the checks that refuse them before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from msport.architectures import ModelConfig, load_config
from msport.errors import ConfigError, UsageError, parameter
from msport.hub import Source
from msport.report.document import utc_now
from msport.validate.golden import is_golden
from msport.validate.precision import SIGNIFICAND
from msport.validate.verdict.rules import RULES

Level = Literal["logits", "layers", "weights"]
Rule = Literal["rounding", "tolerance"]

LEVELS = get_args(Level)
REFERENCE_DTYPES = (*SIGNIFICAND, "model")
# Fields of the config that must be equal in two models that are compared.
_SIZES = ("architecture", "vocab_size", "hidden_size", "num_hidden_layers")


@dataclass(frozen=True, slots=True)
class Request:
    """The arguments of `validate_model` with its defaults, and when it was called."""

    folder: Path
    reference: str | Path | None = None
    tol: float | None = None
    level: Level = "logits"
    rule: Rule = "rounding"
    dtype: str | None = None
    reference_dtype: str = "float32"
    stream: bool | None = None
    prompts: Sequence[str | Sequence[int]] | None = None
    max_length: int | None = None
    seed: int = 0
    save_reference: Path | None = None
    original: str | Path | None = None
    text: Path | None = None
    max_kl: float | None = None
    date: str = field(default_factory=utc_now)

    @property
    def default_prompts(self) -> bool:
        """Whether the default prompts are used: neither the user's own nor those of golden values."""
        return self.prompts is None and not is_golden(self.reference)


def check_request(request: Request) -> None:
    """Raises `UsageError` for an argument out of range."""
    if request.level not in LEVELS:
        raise UsageError(f"level {request.level!r} is not one of {', '.join(LEVELS)}")
    if request.rule not in RULES:
        raise UsageError(f"rule {request.rule!r} is not one of {', '.join(RULES)}")
    if request.reference_dtype not in REFERENCE_DTYPES:
        raise UsageError(f"reference_dtype {request.reference_dtype!r} is not one of {', '.join(REFERENCE_DTYPES)}")
    if request.tol is not None and not 0.0 <= request.tol < float("inf"):
        raise UsageError(f"the tolerance is {request.tol}; give a number from 0 up, such as 1e-2")
    if request.max_length is not None and request.max_length < 1:
        raise UsageError(f"max_length is {request.max_length}; give a positive number of tokens")
    if request.max_kl is not None and not 0.0 <= request.max_kl < float("inf"):
        raise UsageError(f"{parameter('max_kl')} is {request.max_kl}; give a number of nats from 0 up, such as 0.05")
    if request.seed < 0:
        raise UsageError(f"seed is {request.seed}; give 0 or a positive integer")


def check_no_effect(request: Request, why: str, *names: str) -> None:
    """Raises `UsageError` for arguments among `names` that were given but would be ignored; `why` is the reason."""
    defaults = {argument.name: argument.default for argument in fields(Request)}
    given = [
        name
        for name in names
        if getattr(request, name) is not None and (defaults[name] is None or getattr(request, name) != defaults[name])
    ]
    if given:
        flags = ", ".join(parameter(name, "--" + name.removesuffix("s").replace("_", "-")) for name in given)
        raise UsageError(f"{why}, so {flags} would have no effect; leave it out")


def check_same_sizes(folder: Path, source: Source, argument: str = "reference") -> None:
    """Raises `ConfigError` if the two folders hold models of different sizes; `argument` is the one that names the
    right one. Other differences are left to the comparison.
    """
    ours, theirs = (sizes_of(load_config(each)) for each in (folder, source.folder))
    for name, size in ours.items():
        if theirs[name] != size:
            raise ConfigError(
                f"{source.folder}: not the model that {folder} was converted from: {name} is"
                f" {theirs[name]}, not {size}; give the original by {parameter(argument)}"
            )


def sizes_of(config: ModelConfig) -> dict[str, Any]:
    """The fields of `config` that must be equal in two models that are compared."""
    return {name: getattr(config, name) for name in _SIZES}
