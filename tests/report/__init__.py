"""Tests of msport.report."""
