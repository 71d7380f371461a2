"""Tests of msport.validate.compare."""
