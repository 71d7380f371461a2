"""Tests of msport.convert."""
