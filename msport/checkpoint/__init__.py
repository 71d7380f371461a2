"""Checkpoints as bytes: safetensors, MindSpore's ``.ckpt``, dtypes, MXFP4, indices and the manifest.

This is the lowest layer of msport. It does not import MindSpore, torch or Transformers, and never loads a whole
checkpoint. A header says where each tensor is in a file. A layout fixes every byte of an output file except those of
the tensors. Readers and writers then move ranges of rows.

Tensors travel in *storage form*: NumPy arrays of ``DType.storage``, in which bfloat16 is raw ``uint16`` and float8
raw ``uint8``.
"""

from msport.checkpoint.atomic import write_atomically
from msport.checkpoint.dtypes import DType
from msport.checkpoint.index import Checkpoint, index_document, open_checkpoint
from msport.checkpoint.layout import Header, Layout, TensorInfo
from msport.checkpoint.manifest import Manifest, TensorRecord, read_manifest, write_manifest
from msport.checkpoint.reader import TensorFile
from msport.checkpoint.writer import ShardWriter

__all__ = [
    "Checkpoint",
    "DType",
    "Header",
    "Layout",
    "Manifest",
    "ShardWriter",
    "TensorFile",
    "TensorInfo",
    "TensorRecord",
    "index_document",
    "open_checkpoint",
    "read_manifest",
    "write_atomically",
    "write_manifest",
]
