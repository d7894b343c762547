"""Tests of extract.pose."""
