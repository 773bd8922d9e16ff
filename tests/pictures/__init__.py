"""Tests of the pictures: what they say is true, and can be read."""
