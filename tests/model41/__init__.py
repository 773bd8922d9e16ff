"""Tests of the composed V4.1 model."""
