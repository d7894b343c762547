"""Options that several commands take, in the same words."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])
PATH = click.Path(path_type=Path)
EXIT_USAGE, EXIT_FAILED_ITEMS, EXIT_VERIFICATION, EXIT_INTERRUPT = 2, 3, 4, 130

cache_option = click.option("--cache", "cache", type=PATH, required=True, help="Folder of the feature cache.")
videos_option = click.option("--videos", type=PATH, help="Video root on this machine, instead of the stored one.")
set_option = click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change one recipe key.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
device_option = click.option("--device", default="auto", help="cpu, cuda, cuda:1; auto takes a GPU if there is one.")
token_cache_option = click.option("--token-cache", type=PATH, help="Folder of a frozen encoder's tokens [in CACHE].")

out_option = click.option("--out", type=PATH, required=True, help="Dataset folder to write.")


def prompt_option(default: str) -> Callable[[Command], Command]:
    """The template of the prompts; `default` says what is taken without it."""
    return click.option("--prompt", help=f"Template of the class prompts; {{}} is the class text. [{default}]")


def extraction_options(command: Command) -> Command:
    """What `plan` and `extract` both take, in the same words: the one previews the other."""
    for option in (
        set_option,
        click.option("--allow-outside", is_flag=True, help="Read also videos that links lead to outside the root."),
        videos_option,
        click.option("--shards", help="Part of the work: 17-32 (numbers), 2/8 (the third of eight), auto."),
        click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Decode processes."),
        click.option("--streams", help="Comma-separated: frames, visual_prompts, joints, text."),
        click.option("--recipe", help="Recipe whose [extract] section to use."),
        cache_option,
        click.argument("dataset", type=PATH),
    ):
        command = option(command)
    return command
