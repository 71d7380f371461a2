"""Tests of msport.sizing."""
