"""Tests of msport.bench."""
