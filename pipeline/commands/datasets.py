"""`prepare`: videos and annotations to a dataset."""

from collections.abc import Callable
from pathlib import Path

import click

from pipeline.commands.options import PATH, Command, json_option
from pipeline.commands.own_data import OWN_DATA, out_option, prompt_option, write_and_report

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

for _command in OWN_DATA:
    prepare.add_command(_command)
