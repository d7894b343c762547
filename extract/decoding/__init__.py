"""Decode processes: a video in, its clips out, ready for the models."""
