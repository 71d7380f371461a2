"""How results are shown, the same for every command. Nothing here knows what was measured."""
