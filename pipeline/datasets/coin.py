"""To be written."""

from pipeline.datasets.preparation import Benchmark, Preparation, Request


def prepare(request: Request) -> Preparation:
    """Reads the official files."""
    raise NotImplementedError


BENCHMARK = Benchmark(name="coin", prompt="{}", prepare=prepare)
