"""Runs a network's compiled graphs: prompts in fixed chunks, then one token at a time, over static caches."""

from msport.msmodels.engine.graphs import Graphs
from msport.msmodels.engine.turns import TURN, Sequences

__all__ = ["TURN", "Graphs", "Sequences"]
