"""Tests of msport.architectures."""
