"""The bytes that weights, caches and a run need, and the bytes that are free. Does not import MindSpore.

``free``: memory and disk that this process may still use. ``process``: its current and peak memory. ``costs``: bytes
and operations of a model, from its config and its table of weights. ``fit``: the memory that a run needs, and what
fits. ``units``: sizes as text.
"""
