"""A recording gives back what was written, as a folder and packed into one file."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest

from msport.errors import OutputError
from msport.validate import recording
from msport.validate.operations import CHOSEN, OUTPUT, ROUTER
from msport.validate.prompts import Prompt
from msport.validate.recording import Recording, RecordingWriter, layer_name, pack

PROMPTS = (Prompt("one", tuple(range(5))), Prompt("two", tuple(range(3))))
VOCAB, HIDDEN = 20, 8


def _logits(number: int) -> np.ndarray:
    return np.random.default_rng(number).standard_normal((len(PROMPTS[number].ids), VOCAB)).astype(np.float32)


def _states(number: int) -> np.ndarray:
    return np.random.default_rng(9 + number).standard_normal((len(PROMPTS[number].ids), HIDDEN)).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "recorded"
    path.mkdir()
    with RecordingWriter(path, PROMPTS, VOCAB) as writer:
        writer.add("embed_tokens", {f"embed_tokens.{n}": _states(n) for n in (0, 1)})
        layer = {layer_name(0, OUTPUT, n): _states(n) + 1 for n in (0, 1)}
        layer |= {layer_name(0, CHOSEN, n): np.full((len(PROMPTS[n].ids), 2), n, np.int32) for n in (0, 1)}
        writer.add("layers.0", layer)
        for number, prompt in reversed(list(enumerate(PROMPTS))):
            for start in range(0, len(prompt.ids), 2):
                writer.add_logits(number, start, _logits(number)[start : start + 2])
    return path


@pytest.mark.parametrize("packed", [False, True])
def test_what_was_written_comes_back_in_pieces_too(packed: bool, folder: Path, tmp_path: Path) -> None:
    path = folder
    if packed:
        path = tmp_path / "golden.safetensors"
        with Recording(folder) as recorded:
            pack(recorded, path, {"made": "here"})
    with Recording(path) as read:
        for number, prompt in enumerate(PROMPTS):
            np.testing.assert_array_equal(read.logits(number, 1, len(prompt.ids)), _logits(number)[1:])
            np.testing.assert_array_equal(read.hidden_states(number, 0), _states(number))
            np.testing.assert_array_equal(read.hidden_states(number, 1), _states(number) + 1)
            chosen = read.read(layer_name(0, CHOSEN, number))
            assert chosen.dtype == np.int32
            assert (chosen == number).all()
        assert read.features(0).keys() == {OUTPUT, CHOSEN}
        assert layer_name(0, ROUTER, 0) not in read
        assert read.shape(layer_name(0, OUTPUT, 1)) == (3, HIDDEN)


def test_a_full_disk_is_reported_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, layout: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(recording, "ShardWriter", full)
    with pytest.raises(OutputError, match="TMPDIR"):
        RecordingWriter(tmp_path, PROMPTS, VOCAB)
