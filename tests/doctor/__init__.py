"""Tests of msport.doctor."""
