"""Whether this machine can do the work: versions, device, CANN, memory, disk, compiler, and a small model step.

Everything that could crash or hang runs in a child process with a time limit, and nothing here needs a working
MindSpore or NumPy: it is there to say what is broken. With a converted checkpoint it also says whether that fits.
"""

from msport.doctor.check import Check, Status
from msport.doctor.diagnosis import Diagnosis, diagnose

__all__ = ["Check", "Diagnosis", "Status", "diagnose"]
