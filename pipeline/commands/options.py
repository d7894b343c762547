"""Options that several commands take, in the same words."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from cache.errors import ConfigError

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
    return people_options(command)


def people_options(command: Command) -> Command:
    """Where people are and how their joints are read, given to the command together as overrides `people`."""

    @functools.wraps(command)
    def with_people(
        *,
        whole_frame: bool,
        boxes: Path | None,
        detector: str | None,
        detector_weights: str | None,
        codec: str | None,
        flip_test: bool,
        **others: Any,  # noqa: ANN401 (the options of any command)
    ) -> Any:  # noqa: ANN401
        people = people_overrides(boxes, detector, detector_weights, whole_frame)
        people += [] if codec is None else [_override("codec", codec)]
        people += ["extract.pose.flip_test=true"] if flip_test else []
        return command(people=people, **others)

    decorated: Any = with_people
    for option in (
        click.option("--flip-test", is_flag=True, help="Average joints with those of the mirror image; costs twice."),
        click.option("--codec", type=click.Choice(["msra", "dark", "udp"]), help="How HRNet's weights were trained."),
        click.option("--detector-weights", metavar="PATH", help="Its weights, or none for random ones. [released]"),
        click.option("--detector", metavar="NAME", help="Find people with it, as fasterrcnn_resnet50_fpn."),
        click.option("--boxes", type=PATH, help="File of person boxes, a JSON line per clip."),
        click.option("--whole-frame", is_flag=True, help="The one person fills the whole frame, in every frame."),
    ):
        decorated = option(decorated)
    return decorated


def people_overrides(
    boxes: Path | None, detector: str | None, detector_weights: str | None, whole_frame: bool
) -> list[str]:
    """Where people are for the stream joints, as overrides of the configuration; empty where no option was given.

    Raises:
        ConfigError: two of the three sources, or weights without a detector.
    """
    flags = {"--whole-frame": whole_frame, "--boxes": boxes is not None, "--detector": detector is not None}
    given = [flag for flag, is_given in flags.items() if is_given]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} both say where people are: give one of {', '.join(flags)}")
    if detector_weights is not None and detector is None:
        raise ConfigError("--detector-weights needs --detector NAME: the network that they belong to")
    if whole_frame:
        return ["extract.pose.boxes=whole_frame"]
    if boxes is not None:
        return ["extract.pose.boxes=file", _override("boxes_file", str(boxes))]
    if detector is None:
        return []
    weights = [] if detector_weights is None else [_override("detector_weights", detector_weights)]
    return ["extract.pose.boxes=detector", _override("detector", detector), *weights]


def _override(key: str, text: str) -> str:
    return f"extract.pose.{key}={json.dumps(text, ensure_ascii=False)}"
