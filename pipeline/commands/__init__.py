"""The commands of `deconfound`, a file per part of the line; `pipeline/cli.py` gathers them."""
