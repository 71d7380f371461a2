"""Models in MindSpore's graph mode, written natively: they load a converted checkpoint and generate.

``load_model`` is imported on first use: `tokenizer` and `check_ascend` serve processes without MindSpore too.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msport.msmodels.ascend_check import check_ascend
    from msport.msmodels.loading import load_model
    from msport.msmodels.model import LanguageModel

# MindSpore writes its view of a graph that it failed to compile to rank_0/ below this, by default the current folder.
os.environ.setdefault("MS_OM_PATH", os.devnull)

_HOMES = {"LanguageModel": "model", "check_ascend": "ascend_check", "load_model": "loading"}

__all__ = ["LanguageModel", "check_ascend", "load_model"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"msport.msmodels.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
