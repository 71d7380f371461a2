"""From a Hub checkpoint to a MindSpore checkpoint, slab by slab within bounded memory.

``plan`` fixes every byte of the output from headers alone, ``transforms`` defines how each tensor is made, ``execute``
makes them in parallel, ``verify`` checks the result. Neither MindSpore nor torch is imported, so a checkpoint can be
converted on any machine.
"""

from msport.convert.conversion import Conversion, Options, convert_checkpoint, prepare, run
from msport.convert.inspection import Inspection, inspect_path
from msport.convert.plan import Plan, make_plan
from msport.convert.tensors import OutputTensor
from msport.convert.verify import verify_folder

__all__ = [
    "Conversion",
    "Inspection",
    "Options",
    "OutputTensor",
    "Plan",
    "convert_checkpoint",
    "inspect_path",
    "make_plan",
    "prepare",
    "run",
    "verify_folder",
]
