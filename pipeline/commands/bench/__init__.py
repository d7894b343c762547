"""`bench`: how fast a stage is on this machine, against its parts or another implementation; a file per stage."""

import click

from pipeline.commands.bench.cache import cache_command
from pipeline.commands.bench.evaluate import evaluate_command
from pipeline.commands.bench.extract import extract_command
from pipeline.commands.bench.train import train_command


@click.group()
def bench() -> None:
    """Measure how fast a stage is on this machine, against its parts or another implementation."""


for command in (extract_command, cache_command, train_command, evaluate_command):
    bench.add_command(command)
