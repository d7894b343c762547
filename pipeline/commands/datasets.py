"""`prepare`: official annotation files and videos to a dataset."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.commands.options import PATH, Command, json_option, out_option, prompt_option

if TYPE_CHECKING:
    from pipeline.datasets.preparation import Preparation
    from pipeline.datasets.videos import VideoFolder

_BENCHMARKS = {
    "breakfast": "Breakfast: 10 activities, 48 atomic actions.",
    "coin": "COIN: 180 tasks and 778 steps of instructional videos.",
    "charades": "Charades: 157 actions at home.",
    "diving48": "Diving48: 48 classes of dives.",
    "finegym": "FineGym: Gym99 and Gym288, elements of gymnastics; v1.0 and v1.1 are protocols of one dataset.",
    "haa500": "HAA500: 500 atomic actions of humans.",
    "toyota-smarthome": "Toyota-Smarthome, trimmed: 31 daily actions.",
}
VERSIONS = {"diving48": ("V2", "V1")}
"""Of the annotations, the default first; here too, so that `--help` need not import the benchmarks."""


@click.group()
def prepare() -> None:
    """Make a dataset (dataset.json and clips.jsonl) from videos and annotations."""


def write_and_report(prepare: "Callable[[VideoFolder], Preparation]", videos: Path, out: Path, as_json: bool) -> None:
    """Looks the videos up, writes the dataset made of them, and prints what is in it."""
    from cache.validation.findings import printable
    from pipeline.datasets.preparation import to_text, write
    from pipeline.datasets.videos import VideoFolder

    found = VideoFolder(videos)
    description = write(prepare(found), found, out)
    click.echo(json.dumps(description) if as_json else printable(to_text(description)))


def _benchmark_command(name: str, summary: str) -> click.Command:
    @click.option("--annotations", type=PATH, required=True, help="Folder of the official files, at any depth.")
    @click.option("--videos", type=PATH, required=True, help="Folder of the videos, however it is arranged inside.")
    @out_option
    @_version_option(VERSIONS.get(name, ()))
    @prompt_option("the paper's")
    @json_option
    def command(
        annotations: Path, videos: Path, out: Path, prompt: str | None, as_json: bool, version: str | None = None
    ) -> None:
        from pipeline.datasets.benchmarks import prepare_benchmark

        write_and_report(
            lambda found: prepare_benchmark(name, annotations, found, prompt=prompt, version=version),
            videos,
            out,
            as_json,
        )

    return click.command(name, help=f"{summary} From the official annotation files.")(command)


def _version_option(versions: tuple[str, ...]) -> Callable[[Command], Command]:
    if not versions:
        return lambda command: command
    return click.option("--version", type=click.Choice(versions), help=f"Of the annotations. [{versions[0]}]")


for _name, _summary in _BENCHMARKS.items():
    prepare.add_command(_benchmark_command(_name, _summary))
