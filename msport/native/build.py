"""Compiles the C++ sources of this folder once per machine and source text, and finds the library again afterwards.

Shipping source rather than binaries keeps one wheel for x86 and the Arm hosts of Ascend machines, and lets the
compiler use the vector unit that is there.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).parent
_FLAGS = ("-std=c++17", "-O3", "-march=native", "-shared", "-fPIC", "-pthread")
_TIMEOUT_SECONDS = 120

_log = logging.getLogger(__name__)


@cache
def library() -> Path | None:
    """The compiled kernels, or None, with one warning, where there is no working compiler.

    ``MSPORT_NATIVE=0`` disables them, ``CXX`` names the compiler, ``MSPORT_CACHE`` the folder of the library (default
    ``~/.cache/msport``), ``MSPORT_THREADS`` bounds the threads that a kernel uses.
    """
    if os.environ.get("MSPORT_NATIVE") == "0":
        return None
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++") or shutil.which("c++")
    if compiler is None:
        _log.warning("no C++ compiler found: the slower portable operators are used; install g++ to speed up the CPU")
        return None
    try:
        target = _folder() / f"kernels-{_fingerprint(compiler)}.so"
        if not target.exists():
            _compile(compiler, target)
    except (OSError, subprocess.SubprocessError) as error:
        output = getattr(error, "stderr", None) or str(error)
        _log.warning("%s: %s: the slower portable operators are used", compiler, " ".join(output.split())[:200])
        return None
    return target


def _folder() -> Path:
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "msport"
    return Path(os.environ.get("MSPORT_CACHE") or default)


def _fingerprint(compiler: str) -> str:
    """Differs wherever a library compiled elsewhere might not run here: sources, flags, compiler, processor."""
    digest = hashlib.sha256()
    for path in sorted([*_FOLDER.glob("*.cpp"), *_FOLDER.glob("*.h")]):
        digest.update(path.read_bytes())
    digest.update("\0".join((compiler, *_FLAGS, platform.machine(), _processor())).encode())
    return digest.hexdigest()[:16]


def _processor() -> str:
    """The processor's feature flags: a home folder may be shared by machines of several generations."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def _compile(compiler: str, target: Path) -> None:
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(suffix=".so", dir=target.parent)
    os.close(handle)
    try:
        sources = sorted(str(path) for path in _FOLDER.glob("*.cpp"))
        command = [compiler, *_FLAGS, *sources, "-o", temporary]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS)  # noqa: S603
        os.replace(temporary, target)  # two processes may compile at once: the last one wins, and both are whole
    finally:
        Path(temporary).unlink(missing_ok=True)
