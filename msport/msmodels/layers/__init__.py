"""Parts that several architectures share; attributes are named as in Transformers, so parameters bear Hub names."""
