"""Tests of msport.bench.measure."""
