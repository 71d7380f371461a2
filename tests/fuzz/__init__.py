"""Fuzzers for everything that reads other people's bytes; `python -m fuzz --help` in the folder above."""
