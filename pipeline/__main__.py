"""`python -m pipeline` is `deconfound`."""

from pipeline.cli import main

main()
