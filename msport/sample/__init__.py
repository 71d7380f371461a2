"""Tiny random checkpoints in the Hub's exact layout, for the demo, the tests and the benchmarks.

All families use the same code. The sample config and the table of tensors give names and shapes; ``random_weights``
gives values for which each feature of the model has an effect; ``tokenizers`` makes a real tokenizer with the family's
special tokens. With `overrides`, the same code writes synthetic checkpoints of any size, piece by piece.
"""

from msport.sample.write import write_sample

__all__ = ["write_sample"]
