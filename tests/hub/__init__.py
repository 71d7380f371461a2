"""Tests of msport.hub."""
