"""Tests of msport.msmodels."""
