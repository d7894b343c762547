"""Joints of a cache drawn for people: pictures, films, and sheets of the clips that went worst."""
