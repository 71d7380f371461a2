"""Tests of msport.validate."""
