"""Tests of msport.validate.reference."""
