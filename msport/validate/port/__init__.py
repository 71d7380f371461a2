"""Our side, which is judged: the converted model in MindSpore, loaded whole or one layer at a time."""
