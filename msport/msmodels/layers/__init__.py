"""Layers that several architectures share. Attributes have Transformers' names, so parameters have the Hub's names."""
