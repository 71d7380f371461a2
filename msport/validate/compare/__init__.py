"""Measures the errors of the port: logits, operations of layers, choices of experts, weights."""
