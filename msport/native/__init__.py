"""C++ kernels for CPU, compiled on first use with the machine's own compiler; each has a portable equivalent."""

from msport.native.build import library

__all__ = ["library"]
