"""Trainable encoders of frames, adapted image towers and joint tokens."""
