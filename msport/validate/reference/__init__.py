"""How PyTorch is asked: Transformers' model is run layer by layer, and a second time to measure its own rounding."""
