"""The parameters of rotary position embedding in a config; ``msmodels.layers.rope`` computes the frequencies."""

from __future__ import annotations

from dataclasses import dataclass

from msport.architectures.fields import ConfigFields
from msport.errors import UnsupportedError, quote

ROPE_TYPES = ("default", "linear", "llama3", "yarn")

# The parameters of all variants. Transformers warns about those of another variant and ignores them.
_PARAMETERS = {
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "factor",
    "finetuned",  # a remark in YaRN's own checkpoints without effect
    "high_freq_factor",
    "low_freq_factor",
    "mscale",
    "mscale_all_dim",
    "original_max_position_embeddings",
    "partial_rotary_factor",
    "rope_theta",
    "rope_type",
    "truncate",
    "type",
}
_LENGTH = "its frequencies depend on the length of each prompt, which a graph of fixed shapes cannot follow"
_REASONS = {"dynamic": _LENGTH, "longrope": _LENGTH}


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeConfig:
    """Parameters of one RoPE variant; unused ones keep their neutral value.

    `attention_factor` multiplies cos and sin (YaRN); if None, it follows from `factor`, `mscale` and `mscale_all_dim`.
    Source: ``transformers/modeling_rope_utils.py`` and https://arxiv.org/abs/2309.00071.
    """

    theta: float
    rope_type: str = "default"
    factor: float = 1.0
    original_max_position_embeddings: int = 0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    attention_factor: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0


def parse_rope(fields: ConfigFields, *, default_theta: float, max_position_embeddings: int) -> RopeConfig:
    """Reads `rope_theta` with `rope_scaling` (Hub, Transformers 4) or `rope_parameters` (Transformers 5).

    Raises `ConfigError`, and `UnsupportedError` for anything that changes the frequencies and is not implemented here.
    """
    theta = fields.number("rope_theta", default_theta, above=1.0)
    scaling = _scaling(fields)
    if scaling is None:
        return RopeConfig(theta=theta)
    theta = scaling.number("rope_theta", theta, above=1.0)
    rope_type = _rope_type(scaling)
    if rope_type == "default":
        return RopeConfig(theta=theta)
    factor = scaling.number("factor")
    if rope_type == "linear":
        return RopeConfig(theta=theta, rope_type=rope_type, factor=factor)
    original = scaling.integer("original_max_position_embeddings", max_position_embeddings)
    fields.fixed("original_max_position_embeddings", original, f"'{scaling.prefix[:-1]}' implies {original}")
    if rope_type == "llama3":
        low = scaling.number("low_freq_factor")
        return RopeConfig(
            theta=theta,
            rope_type=rope_type,
            factor=factor,
            original_max_position_embeddings=original,
            low_freq_factor=low,
            high_freq_factor=scaling.number("high_freq_factor", above=low),
        )
    return RopeConfig(
        theta=theta,
        rope_type=rope_type,
        factor=factor,
        original_max_position_embeddings=original,
        beta_fast=scaling.number("beta_fast", 32.0),
        beta_slow=scaling.number("beta_slow", 1.0),
        truncate=scaling.boolean("truncate", True),
        attention_factor=scaling.optional_number("attention_factor"),
        mscale=scaling.optional_number("mscale"),
        mscale_all_dim=scaling.optional_number("mscale_all_dim"),
    )


def _scaling(fields: ConfigFields) -> ConfigFields | None:
    """The object that describes the variant, which has two possible names."""
    new, old = fields.nested("rope_parameters"), fields.nested("rope_scaling")
    if new and old and new.data != old.data:
        raise fields.error("rope_parameters", "and 'rope_scaling' disagree; delete the one that is wrong")
    return new or old


def _rope_type(scaling: ConfigFields) -> str:
    """The variant, after all other fields are known; older configs call it `type`."""
    rope_type = scaling.text("rope_type", scaling.text("type", "default"))
    if scaling.text("type", rope_type) != rope_type:
        raise scaling.error("type", f"and 'rope_type' disagree ({quote(rope_type)}); delete the one that is wrong")
    if rope_type not in ROPE_TYPES:
        reason = _REASONS.get(rope_type, "msport does not implement it")
        known = ", ".join(ROPE_TYPES)
        raise UnsupportedError(
            f"{scaling.where}: '{scaling.prefix}rope_type' is {quote(rope_type)}: {reason}; use {known}"
        )
    if "factor" in scaling.data and not {"rope_type", "type"} & set(scaling.data):
        raise scaling.error("rope_type", f"is missing; it is one of {', '.join(ROPE_TYPES)}")
    scaling.fixed("partial_rotary_factor", 1.0, "msport rotates whole heads only")
    for name in sorted(set(scaling.data) - _PARAMETERS):
        scaling.fixed(name, None, "msport does not know how it changes the frequencies")
    return rope_type
