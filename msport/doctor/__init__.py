"""Checks this machine: versions, device, CANN, memory, disk, compiler, and a small training step.

Everything that could crash or hang runs in a child process with a time limit. Nothing here needs a working MindSpore or
NumPy, because the checks must also work on a broken installation. With a converted checkpoint, it also checks whether
that fits.
"""

from msport.doctor.check import Check, Status
from msport.doctor.diagnosis import Diagnosis, diagnose

__all__ = ["Check", "Diagnosis", "Status", "diagnose"]
