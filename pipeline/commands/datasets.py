"""`prepare`: videos and annotations to a dataset."""

import json
from pathlib import Path

import click

from pipeline.commands.options import PATH, json_option
from pipeline.commands.own_data import OWN_DATA

_BENCHMARKS = {
    "breakfast": "Breakfast: 10 activities, 48 atomic actions.",
    "coin": "COIN: 180 tasks and 778 steps of instructional videos.",
    "charades": "Charades: 157 actions at home.",
    "diving48": "Diving48: 48 classes of dives.",
    "finegym": "FineGym: Gym99 and Gym288, elements of gymnastics.",
    "haa500": "HAA500: 500 atomic actions of humans.",
    "toyota-smarthome": "Toyota-Smarthome, trimmed: 31 daily actions.",
}


@click.group()
def prepare() -> None:
    """Make a dataset (dataset.json and clips.jsonl) from videos and annotations."""


def _benchmark_command(name: str, summary: str) -> click.Command:
    @click.option("--annotations", type=PATH, required=True, help="Folder of the official files, at any depth.")
    @click.option("--videos", type=PATH, required=True, help="Folder of the videos, however it is arranged inside.")
    @click.option("--out", type=PATH, required=True, help="Dataset folder to write.")
    @click.option("--version", help="Of the annotations, where there are several; an unknown one lists them.")
    @click.option("--prompt", help="Template of the class prompts; {} is the class text. [the paper's]")
    @json_option
    def command(
        annotations: Path, videos: Path, out: Path, version: str | None, prompt: str | None, as_json: bool
    ) -> None:
        from pipeline.datasets.benchmarks import prepare_benchmark
        from pipeline.datasets.preparation import to_text, write
        from pipeline.datasets.videos import VideoFolder

        folder = VideoFolder(videos)
        preparation = prepare_benchmark(name, annotations, folder, prompt=prompt, version=version)
        description = write(preparation, folder, out)
        click.echo(json.dumps(description) if as_json else to_text(description))

    return click.command(name, help=f"{summary} From the official annotation files.")(command)


for _name, _summary in _BENCHMARKS.items():
    prepare.add_command(_benchmark_command(_name, _summary))

for _command in OWN_DATA:
    prepare.add_command(_command)
