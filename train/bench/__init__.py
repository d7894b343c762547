"""How fast training and what it reads from are on this machine."""
