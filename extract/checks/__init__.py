"""Frames held against another decoder."""
