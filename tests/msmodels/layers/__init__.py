"""Tests of msport.msmodels.layers."""
