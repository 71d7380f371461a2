"""Tests of msport.validate.port."""
