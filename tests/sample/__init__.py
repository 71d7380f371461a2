"""Tests of msport.sample."""
