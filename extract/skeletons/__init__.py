"""Skeletons that other tools made: their files, and the way from them to rows of the stream of joints."""
