"""How far the port is from the reference: logits, operations of layers, choices of experts, weights."""
