"""Compiles the C++ sources of this folder once per machine and source text, and finds the libraries again afterwards.

Shipping source rather than binaries keeps one wheel for x86 and the Arm hosts of Ascend machines, and lets the
compiler use the vector unit that is there. There are two libraries, so that a conversion need not wait for operators
that it does not call: ``mxfp4`` is one file, ``operators`` all others.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import threading
from functools import cache
from pathlib import Path
from typing import Literal

from msport.cache_folder import cache_folder

_FOLDER = Path(__file__).parent
_FLAGS = ("-std=c++17", "-O3", "-march=native", "-shared", "-fPIC", "-pthread")
_TIMEOUT_SECONDS = 600  # eight seconds on an idle machine
_LONGEST_OUTPUT = 200
# Files that are a library of their own.
_ALONE = {"mxfp4"}
_SLOWER = {
    "operators": "the slower portable operators are used",
    "mxfp4": "MXFP4 is decoded by NumPy, several times slower",
}

_log = logging.getLogger(__name__)
_lock = threading.Lock()


def library(name: Literal["operators", "mxfp4"] = "operators") -> Path | None:
    """The compiled library, or None, with one warning, where there is no working compiler.

    ``MSPORT_NATIVE=0`` disables them, ``CXX`` is the compiler's command, ``MSPORT_CACHE`` the folder of the libraries
    (default ``~/.cache/msport``), ``MSPORT_THREADS`` bounds the threads that an operator uses. Safe to call from
    several threads and several processes.
    """
    with _lock:
        return _find(name)


@cache
def _find(name: str) -> Path | None:
    if os.environ.get("MSPORT_NATIVE") == "0":
        return None
    slower = _SLOWER[name]
    try:
        compiler = _compiler()
        if compiler is None:
            _log.warning("no C++ compiler found: %s; install g++ to speed up the CPU", slower)
            return None
        sources = _sources(name)
        target = cache_folder() / f"{name}-{_fingerprint(compiler, sources)}.so"
        if not target.exists():
            _compile(compiler, sources, target)
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a user without a home; ValueError: CXX
        _log.warning("the C++ kernels cannot be compiled: %s; %s", error, slower)
        return None
    return target


def _compiler() -> list[str] | None:
    """The command that ``CXX`` names, with its arguments, as make takes it; else the first compiler that is found."""
    if stated := os.environ.get("CXX", "").strip():
        try:
            return shlex.split(stated)
        except ValueError as error:
            raise ValueError(f"CXX={stated}: {error}") from None
    found = shutil.which("g++") or shutil.which("clang++") or shutil.which("c++")
    return None if found is None else [found]


def _sources(name: str) -> list[Path]:
    if name in _ALONE:
        return [_FOLDER / f"{name}.cpp"]
    return sorted(path for path in _FOLDER.glob("*.cpp") if path.stem not in _ALONE)


def _fingerprint(compiler: list[str], sources: list[Path]) -> str:
    """Differs wherever a library compiled elsewhere might not run here: sources, flags, compiler, processor."""
    digest = hashlib.sha256()
    for path in [*sources, *sorted(_FOLDER.glob("*.h"))]:
        digest.update(path.read_bytes())
    digest.update("\0".join((*compiler, *_FLAGS, platform.machine(), _processor())).encode())
    return digest.hexdigest()[:16]


def _processor() -> str:
    """The processor's feature flags: a home folder may be shared by machines of several generations."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def _compile(compiler: list[str], sources: list[Path], target: Path) -> None:
    """Compiles `sources` to `target`; raises OSError or RuntimeError with what failed: the folder, or which command."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(suffix=".so", dir=target.parent)
    os.close(handle)
    try:
        _run([*compiler, *_FLAGS, *map(str, sources), "-o", temporary])
        os.replace(temporary, target)  # two processes may compile at once: the last one wins, and both are whole
    finally:
        Path(temporary).unlink(missing_ok=True)


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_SECONDS
        )
    except OSError as error:
        raise RuntimeError(f"{command[0]} cannot be run ({error.strerror})") from None
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{command[0]} did not end within {_TIMEOUT_SECONDS} s") from None
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split())[:_LONGEST_OUTPUT]
        raise RuntimeError(f"{command[0]} failed with exit code {done.returncode}: {said or 'it said nothing'}")
