"""How a matrix is stored: which tensors hold it, how they are decoded, how many bytes they take.

One file per encoding. Everything else asks an `Encoding` and knows no format by name.
"""

from msport.encodings.encoding import Encoding, Part, Shape, nbytes
from msport.encodings.find import find
from msport.encodings.fp8 import Fp8Blocks
from msport.encodings.grouped import Grouped
from msport.encodings.methods import check_method
from msport.encodings.mxfp4 import MXFP4, refuse_overflow
from msport.encodings.packed_words import Regroupable
from msport.encodings.plain import Plain, stored_shape
from msport.encodings.quantization_config import Quantization, read_quantization, undeclared
from msport.encodings.transposed import Transposed

__all__ = [
    "MXFP4",
    "Encoding",
    "Fp8Blocks",
    "Grouped",
    "Part",
    "Plain",
    "Quantization",
    "Regroupable",
    "Shape",
    "Transposed",
    "check_method",
    "find",
    "nbytes",
    "read_quantization",
    "refuse_overflow",
    "stored_shape",
    "undeclared",
]
