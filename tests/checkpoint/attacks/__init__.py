"""Hostile checkpoints, built in code: each module maps a name to what is wrong and what the refusal must mention."""
