"""How fast training is, against what its parts allow."""
