"""Tiny random checkpoints in the Hub's exact layout, for the demo, the tests and the benchmarks.

Every family takes the same road: its sample config and table of tensors give names and shapes, ``distributions`` gives
values that make each feature of the model matter, ``tokenizers`` gives a real tokenizer with the family's special
tokens. With `overrides` the same code writes synthetic checkpoints of any size, a piece at a time.
"""

from msport.sample.write import write_sample

__all__ = ["write_sample"]
