"""`prepare`: videos and annotations to a dataset."""

import json
from pathlib import Path

import click

from pipeline.commands.options import PATH, json_option
from pipeline.tables import format_table

_BENCHMARKS = {
    "breakfast": "Breakfast: 10 activities and 48 atomic actions of 52 persons.",
    "coin": "COIN: 180 tasks and 778 steps of instructional videos.",
    "charades": "Charades: 157 actions at home, several per video.",
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


@prepare.command("folder")
@click.option("--videos", type=PATH, required=True, help="Sub-folders are classes; a flat folder is one split.")
@click.option("--out", type=PATH, required=True, help="Dataset folder to write.")
@click.option("--name", help="Name of the dataset [the folder's name].")
@click.option("--prompt", default="{}", show_default=True, help="Text template; {} is the class name.")
@click.option("--test-fraction", default=0.2, show_default=True, help="Share held out where no folder is `test`.")
def prepare_folder_command(videos: Path, out: Path, name: str | None, prompt: str, test_fraction: float) -> None:
    """A folder of videos: DIR/<class>/*.mp4, DIR/<split>/<class>/*.mp4, or DIR/*.mp4 without labels."""
    from pipeline.datasets.folder import prepare_folder

    dataset = prepare_folder(videos, name=name, prompt=prompt, test_fraction=test_fraction)
    dataset.write(out)
    rows = [
        (protocol, split, len(dataset.select(protocol, split)))
        for protocol, splits in dataset.protocols.items()
        for split in splits
    ]
    click.echo(format_table(("protocol", "split", "clips"), rows))
    for task in dataset.tasks:
        click.echo(f"task {task.name}: {task.num_classes} classes, {task.kind} label")
