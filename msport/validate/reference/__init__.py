"""Runs PyTorch: Transformers' model layer by layer, and a second time to measure its own rounding."""
