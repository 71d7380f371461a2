"""What is known of a quantised folder before a run: its encodings, its source, its unquantised original."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from msport.architectures import ModelConfig
from msport.checkpoint import Manifest, open_checkpoint
from msport.convert.matching import match_checkpoint
from msport.encodings import Grouped, Plain, Regroupable
from msport.errors import MsportError, UsageError, parameter
from msport.hub import Source, find_reference, resolve
from msport.validate.reference.cost import CostPlan
from msport.validate.request import Request, check_no_effect, check_same_sizes
from msport.validate.texts import choose_texts


def encodings_of(folder: Path) -> dict[str, int]:
    """How many weights of the converted `folder` lie in each encoding that is not plain, the most frequent first."""
    with open_checkpoint(folder) as checkpoint:
        _, matches, _ = match_checkpoint(checkpoint)
    found = Counter(
        encoding.description if isinstance(encoding, Grouped) else encoding.name
        for match in matches
        for encoding in match.encodings
        if not isinstance(encoding, Plain)
    )
    return dict(found.most_common())


def is_quantised(folder: Path) -> bool:
    """Whether weights of `folder` are integers in groups, of msport or of another library."""
    with open_checkpoint(folder) as checkpoint:
        _, matches, _ = match_checkpoint(checkpoint)
    return any(isinstance(encoding, (Grouped, Regroupable)) for match in matches for encoding in match.encodings)


def check_quantised(request: Request, *, quantised: bool) -> None:
    """Raises `UsageError` for arguments that have an effect on a quantised folder alone."""
    if not quantised:
        check_no_effect(request, f"{request.folder} holds no int4 or int8 weights", "original", "text", "max_kl")


def find_source(request: Request, manifest: Manifest) -> Source | None:
    """What a quantised folder was made from, if it is named or a folder of this machine; nothing is downloaded
    unasked.
    """
    if request.reference is not None:
        return resolve(request.reference)
    remembered = Path(manifest.source)
    return find_reference(None, manifest.source, None) if remembered.is_dir() else None


def plan_cost(request: Request, config: ModelConfig, source: Source | None) -> tuple[CostPlan | None, str]:
    """How the cost of quantisation is measured; or None and the reason why it is not, with the remedy."""
    original, reason = _find_original(request, source)
    texts = choose_texts(request.folder, config, request.text, request.prompts)
    if original is not None and not texts:
        original, reason = None, "there is no tokenizer for a text; give prompts as token ids"
    if original is not None:
        return CostPlan(original.folder, original.id, texts, request.max_kl), ""
    why = f"the cost of quantisation was not measured: {reason}"
    for name, value in (("text", request.text), ("max_kl", request.max_kl)):
        if value is not None:
            raise UsageError(f"{parameter(name)} has nothing to measure: {reason}")
    return None, why


def _find_original(request: Request, source: Source | None) -> tuple[Source | None, str]:
    remedy = f"name the unquantised model by {parameter('original')}"
    if request.original is not None:
        original = resolve(request.original)
        check_same_sizes(request.folder, original, "original")
        if is_quantised(original.folder):
            raise UsageError(f"{original.id}: is quantised itself; {remedy}")
        return original, ""
    if source is None:
        return None, f"what {request.folder} was made from is no folder here; {remedy}"
    try:
        quantised = is_quantised(source.folder)
    except MsportError as error:
        return None, f"{error}; {remedy}"
    return (None, f"{source.id} is quantised itself; {remedy}") if quantised else (source, "")
