"""How many bytes weights, caches and a run take, and how many are free. Imports no MindSpore.

``free``: what this process may still take. ``process``: what it holds, and the most it held. ``costs``: bytes and
operations of a model, from its config and its table of weights. ``fit``: what a run needs, and the most that fits.
``units``: sizes as people write them.
"""
