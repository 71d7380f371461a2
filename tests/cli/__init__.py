"""Tests of msport.cli."""
