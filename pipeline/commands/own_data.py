"""`prepare folder`, `prepare lists`, `prepare table`: own videos to a dataset, with the report that benchmarks get."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.commands.datasets import write_and_report
from pipeline.commands.options import PATH, Command, json_option, out_option, prompt_option

if TYPE_CHECKING:
    from pipeline.datasets.own.clips import Wishes


def _dataset_options(command: Command) -> Command:
    for option in (
        json_option,
        prompt_option("{}, the class name with blanks for '_'"),
        click.option("--name", help="Name of the dataset. [the name of the videos' folder]"),
        out_option,
    ):
        command = option(command)
    return command


def _label_options(command: Command) -> Command:
    for option in (
        click.option("--multi-label", is_flag=True, help="Clips have any number of classes, not exactly one."),
        click.option("--classes", type=PATH, help="Class names: a table 'id,name', or one a line [those in training]."),
        click.option("--videos", type=PATH, required=True, help="Folder that the paths start from."),
    ):
        command = option(command)
    return command


@click.command("folder", short_help="Own videos: sub-folders are classes.")
@click.option("--videos", type=PATH, required=True, help="Sub-folders are classes; a flat folder is one split.")
@_dataset_options
@click.option("--test-fraction", type=float, help="Share of each class held out where no folders are splits. [0.2]")
def folder_command(
    videos: Path, out: Path, name: str | None, prompt: str | None, as_json: bool, test_fraction: float | None
) -> None:
    """A folder of videos: DIR/<class>/*.mp4, DIR/<split>/<class>/*.mp4, or DIR/*.mp4 without labels."""
    from pipeline.datasets.own.folder import prepare_folder

    wishes = _wishes(name=name, prompt=prompt)
    write_and_report(lambda found: prepare_folder(found, wishes, test_fraction=test_fraction), videos, out, as_json)


@click.command("lists", short_help="Own videos: Kinetics-style lists.")
@click.option("--train", type=PATH, help="List of training videos: a path and a label a line.")
@click.option("--validation", type=PATH, help="List of validation videos.")
@click.option("--test", type=PATH, help="List of test videos.")
@_label_options
@_dataset_options
def lists_command(
    train: Path | None,
    validation: Path | None,
    test: Path | None,
    videos: Path,
    classes: Path | None,
    multi_label: bool,
    out: Path,
    name: str | None,
    prompt: str | None,
    as_json: bool,
) -> None:
    """Kinetics-style lists, one for each split: `path label`, `path,label`, several labels with --multi-label."""
    from pipeline.datasets.own.lists import prepare_lists

    given = {"train": train, "validation": validation, "test": test}
    lists = {split: path for split, path in given.items() if path is not None}
    if not lists:
        raise click.UsageError("give at least one list: --train, --validation or --test")
    wishes = _wishes(classes=classes, name=name, prompt=prompt, multi_label=multi_label)
    write_and_report(lambda found: prepare_lists(lists, found, wishes), videos, out, as_json)


@click.command("table", short_help="Own videos: a csv or jsonl with labels and splits.")
@click.argument("table", type=PATH)
@_label_options
@click.option("--group", "groups", multiple=True, metavar="NAME", help="Keep this column, as groups of clips.")
@_dataset_options
def table_command(
    table: Path,
    videos: Path,
    classes: Path | None,
    multi_label: bool,
    groups: tuple[str, ...],
    out: Path,
    name: str | None,
    prompt: str | None,
    as_json: bool,
) -> None:
    """A csv with columns video, label, split (and id, start, end), or jsonl with these keys."""
    from pipeline.datasets.own.tables import prepare_table

    wishes = _wishes(classes=classes, name=name, prompt=prompt, multi_label=multi_label)
    write_and_report(lambda found: prepare_table(table, found, wishes, groups=groups), videos, out, as_json)


def _wishes(
    *, name: str | None, prompt: str | None, classes: Path | None = None, multi_label: bool = False
) -> "Wishes":
    from pipeline.datasets.own.class_list import read_classes
    from pipeline.datasets.own.clips import Wishes

    known = None if classes is None else read_classes(classes)
    return Wishes(classes=known, name=name, prompt="{}" if prompt is None else prompt, multi_label=multi_label)


OWN_DATA = (folder_command, lists_command, table_command)
