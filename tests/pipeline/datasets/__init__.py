"""Tests of the controlled world."""
