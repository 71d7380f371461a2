"""Tests of msport.validate.verdict."""
