"""What each model family is: the fields of its ``config.json`` and the table of its tensors.

Pure data without a framework. The converter plans from these tables, ``inspect`` and ``sample`` read them, and the
graph-mode models take their sizes from the same configs. So a family is described only once.
"""

from msport.architectures.architecture import Architecture
from msport.architectures.config import ModelConfig, SparseConfig
from msport.architectures.registry import ARCHITECTURES, get_architecture, load_config, read_config
from msport.architectures.rope import RopeConfig
from msport.architectures.tensors import QUANTISED, Dropped, Form, Matrix, Role, Weight

__all__ = [
    "ARCHITECTURES",
    "QUANTISED",
    "Architecture",
    "Dropped",
    "Form",
    "Matrix",
    "ModelConfig",
    "Role",
    "RopeConfig",
    "SparseConfig",
    "Weight",
    "get_architecture",
    "load_config",
    "read_config",
]
