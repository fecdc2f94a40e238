"""Tests of vitals."""
