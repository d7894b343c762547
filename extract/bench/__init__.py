"""How fast extraction is, against what its parts allow."""
