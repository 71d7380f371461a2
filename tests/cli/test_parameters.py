"""Options that would have no effect are refused before anything runs."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from cli.command import Run

WITHOUT_EFFECT = {
    "convert HUB --dry-run --verify": "--dry-run writes nothing: --verify would be ignored; leave that out",
    "convert org/model --dry-run --keep-source": "--dry-run writes nothing: --keep-source would be ignored",
    "convert HUB --revision main": "is a folder, which has no revision 'main'",
    "convert HUB --source modelscope": "is a folder, which is on no hub",
    "convert HUB --keep-source": "is a folder, of which no copy is downloaded",
    "convert modelscope:org/model --source huggingface": "names ModelScope itself; leave the source 'huggingface' out",
    "inspect DIR --tensors --json": "--json lists every tensor: --tensors would be ignored",
    "sample gpt-oss new --set hidden_sise=8": "is not a field of gpt-oss, and would have no effect",
    "sample gpt-oss new --set hidden_size=8 --set hidden_size=16": "--set hidden_size is given twice",
    "doctor --batch 2": "without DIR no model is fitted: --batch would be ignored; leave that out",
    "doctor --max-length 8 --batch 1": "without DIR no model is fitted: --max-length, --batch would be ignored",
    "generate DIR -p a -p b": "generate takes one prompt, not 2",
    "generate DIR --ids 1 -p a": "--ids goes to the model as it is: --prompt would be ignored; leave that out",
    "generate DIR --ids 1 --system a --chat": "--ids goes to the model as it is: --system, --chat would be ignored",
    "generate DIR -p a --raw --system b": "--system needs a chat",
    "generate DIR -p a --max-length 999999": "more than the 131072 positions",
    "bench DIR --reference HUB": "only --baseline torch has a reference: --reference would be ignored",
    "bench DIR --suite mixed --prompt 8": "the prompts of --suite mixed are texts: --prompt would be ignored",
    "bench DIR --suite mixed --seed 8": "the prompts of --suite mixed are texts: --seed would be ignored",
    "bench DIR --suite memory --prompt 8,16": "the suite 'memory' takes one length of prompts",
    "bench DIR --published --json -": "JSON and CSV cannot hold published figures: --published",
    "bench DIR --published --csv -": "JSON and CSV cannot hold published figures: --published",
    "bench DIR --processes 4 --repeats 3": "processes is 4, more than the 3 repeats",
    "bench DIR --max-length 999999": "--max-length 999999 is more than the 131072 positions",
    "bench --compare a b --dtype float32 --warmup 1": "--compare measures nothing: --dtype, --warmup would be ignored",
    "bench --compare a b --csv c": "--compare writes no CSV",
    "validate DIR --level weights --tol 1e-3": "does not run the model, so --tol would have no effect",
    "validate DIR --level weights --seed 3": "does not run the model, so --seed would have no effect",
    "validate DIR --level weights --dtype float32": "does not run the model, so --dtype would have no effect",
    "validate DIR --level weights --no-stream": "does not run the model, so --stream would have no effect",
    "validate DIR --level weights --ids 1 --max-length 8": "so --prompt, --max-length would have no effect",
    "validate DIR --level weights --reference-dtype model": "so --reference-dtype would have no effect",
    "validate DIR --level weights --save-reference g.safetensors": "so --save-reference would have no effect",
    "validate DIR --level weights --rule tolerance": "so --rule would have no effect",
    "validate DIR --ids 1 --seed 3": "given prompts need no random numbers, so --seed would",
    "validate DIR --max-length 999999": "--max-length 999999 is more than the 131072 positions",
}


@pytest.mark.parametrize("line", WITHOUT_EFFECT)
def test_an_option_without_effect_is_refused(
    msport: Run, line: str, sample: Path, converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if line.startswith("validate"):
        pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    folders = {"HUB": str(sample), "DIR": str(converted)}
    result = msport(*(folders.get(word, word) for word in shlex.split(line)))
    assert (result.status, result.out, result.err.count("\n")) == (2, "", 1)
    assert result.err.startswith("msport: error: ")
    assert "internal error" not in result.err
    assert WITHOUT_EFFECT[line] in result.err
    assert list(tmp_path.iterdir()) == []
