"""How a matrix is stored: which tensors hold it, how they are decoded, how many bytes they take.

One file per encoding. Everything else asks an `Encoding` and knows no format by name.
"""

from msport.encodings.encoding import Encoding, Part, Shape, nbytes
from msport.encodings.find import find
from msport.encodings.grouped import Grouped
from msport.encodings.methods import check_method, check_use
from msport.encodings.mxfp4 import MXFP4
from msport.encodings.plain import Plain, stored_shape

__all__ = [
    "MXFP4",
    "Encoding",
    "Grouped",
    "Part",
    "Plain",
    "Shape",
    "check_method",
    "check_use",
    "find",
    "nbytes",
    "stored_shape",
]
