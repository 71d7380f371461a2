"""Tests of msport.validate.views."""
