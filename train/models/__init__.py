"""One file per method; each reads like its figure in the paper."""
