"""Messages speak the language of whoever reads them: of Python, or of the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

import msport
from msport.cli import main
from msport.errors import parameter


def test_a_caller_from_python_reads_the_argument_and_a_user_of_the_command_line_the_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(msport.UsageError, match=r"leave `revision` \(--revision\) out$"):
        msport.convert_checkpoint(tmp_path, tmp_path / "out", revision="main")
    with pytest.raises(SystemExit):
        main(["convert", str(tmp_path), "-o", str(tmp_path / "out"), "--revision", "main"])
    assert capsys.readouterr().err.endswith("; leave --revision out\n")


def test_an_option_of_another_name_is_shown_beside_the_argument() -> None:
    assert parameter("max_length") == "`max_length` (--max-length)"
    assert parameter("output", "-o") == "`output` (-o)"
