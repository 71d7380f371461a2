"""From a Hub checkpoint to a MindSpore checkpoint, slab by slab within bounded memory.

A conversion passes through these modules in this order, and none calls back:

- ``conversion`` opens the model, asks for the plan, and carries it out.
- ``plan`` fixes every byte of the output from headers alone. ``matching`` finds the sources of each parameter,
  ``shards`` gives each tensor a place in a file.
- ``budget`` divides the memory among the workers.
- ``output_folder`` locks the place of the output. ``resume`` reads in its ``journal`` what is done already, and
  ``damage`` checks that.
- ``execute`` starts ``workers``. They make tensors with ``transforms``, in the memory of an ``arena``, and hand them
  slab by slab to ``shard_sink``, which writes them and the journal.
- ``verify`` reads the result back. The manifest is written last.

``inspection`` is used by ``msport inspect`` alone.

Neither MindSpore nor torch is imported, so a checkpoint can be converted on any machine.
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
