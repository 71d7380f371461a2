"""Native implementations of the models in MindSpore's graph mode. They load a converted checkpoint and generate text.

``load_model`` is imported at first use, because `tokenizer` and `check_ascend` also serve processes without MindSpore.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msport.msmodels.ascend_check import check_ascend
    from msport.msmodels.loading import load_model
    from msport.msmodels.model import LanguageModel

# If MindSpore fails to compile a graph, it writes its analysis to rank_0/ below this folder, by default the current
# one.
os.environ.setdefault("MS_OM_PATH", os.devnull)

_HOMES = {"LanguageModel": "model", "check_ascend": "ascend_check", "load_model": "loading"}

__all__ = ["LanguageModel", "check_ascend", "load_model"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"msport.msmodels.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
