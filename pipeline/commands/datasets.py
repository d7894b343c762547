"""`prepare`: videos and annotations to a dataset."""

from pathlib import Path

import click

from pipeline.commands.options import PATH
from pipeline.tables import format_table


@click.group()
def prepare() -> None:
    """Make a dataset (dataset.json and clips.jsonl) from videos and annotations."""


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
