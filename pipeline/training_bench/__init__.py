"""How fast training from a cache is, against training that decodes the videos and runs the frozen models again."""
