"""Tests of msport.checkpoint, one file for each module, and hostile files in ``attacks``."""
