"""The command `deconfound`: one click group that gathers `pipeline/commands`.

Stages are imported inside the commands: `--help`, `status` and `evaluate` start without torch.
stdout carries the result, stderr logs and progress bars, and the exit code says how it went (see `cache/errors.py`).
"""

import json
import sys
from pathlib import Path

import click

from cache.errors import DeconfoundError
from pipeline.commands.bench import bench
from pipeline.commands.caches import drop, status, verify
from pipeline.commands.datasets import prepare
from pipeline.commands.evaluation import compare, evaluate
from pipeline.commands.extraction import extract, plan
from pipeline.commands.joints import joints
from pipeline.commands.options import EXIT_INTERRUPT, EXIT_USAGE, PATH, json_option
from pipeline.commands.own_data import OWN_DATA
from pipeline.commands.study import study
from pipeline.commands.training import ablate, cost, predict, recognise, train
from pipeline.commands.validation import validate
from pipeline.startup import check_packages, configure_logging


def main() -> None:
    """Runs the command line; the only place that turns errors into exit codes."""
    try:
        check_packages()
        code = cli.main(prog_name="deconfound", standalone_mode=False)
    except DeconfoundError as error:
        click.echo(f"error: {error}", err=True)
        code = error.exit_code
    except OSError as error:
        click.echo(f"error: {error.strerror or error}: {error.filename or ''}".rstrip(": "), err=True)
        code = EXIT_USAGE
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; the same command continues", err=True)
        code = EXIT_INTERRUPT
    sys.exit(code or 0)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="deconfound")
@click.option("--verbose", "-v", is_flag=True, help="Log what happens, not only notes and warnings.")
@click.option("--log-file", type=PATH, help="Keep the whole log in this file.")
def cli(verbose: bool, log_file: Path | None) -> None:
    """Recognise long and fine-grained human actions in video, and ask whether for the right reasons."""
    configure_logging(verbose=verbose, log_file=log_file)


@cli.command()
@click.option("--folder", type=PATH, default=Path("deconfound-demo"), show_default=True, help="Where to work.")
@click.option("--quick", is_flag=True, help="Fewer videos and epochs: under one and a half minutes.")
@click.option("--seed", default=0, show_default=True, help="Seed of the heads.")
@click.option(
    "--seeds",
    "num_seeds",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Train every variant with this many seeds.",
)
@click.option("--all-variants", is_flag=True, help="Also train the textual and the visual intervention alone.")
@click.option("--train-frozen-models", is_flag=True, help="Make the tiny frozen models again (minutes), then stop.")
@json_option
def demo(
    folder: Path,
    quick: bool,
    seed: int,
    num_seeds: int,
    all_variants: bool,
    train_frozen_models: bool,
    as_json: bool,
) -> None:
    """The controlled world, from rendered videos to a report: offline, on a CPU, in minutes."""
    if train_frozen_models:
        from pipeline.demo.frozen_models import train_all

        click.echo(f"{train_all(folder)}: checked; the package ships such files in pipeline/demo/weights")
        return
    from pipeline.demo.demo import run_demo

    seeds = tuple(range(seed, seed + num_seeds))
    summary = run_demo(folder, quick=quick, seeds=seeds, all_variants=all_variants)
    click.echo(json.dumps(summary) if as_json else f"report: {folder / 'report' / 'index.html'}")


@cli.command()
@json_option
def doctor(as_json: bool) -> None:
    """Say what this machine has, and what is missing for which command."""
    from pipeline.doctor import examine

    findings = examine()
    click.echo(json.dumps(findings.to_json()) if as_json else findings.to_text())


for command in OWN_DATA:
    prepare.add_command(command)
for command in (
    *(prepare, validate, plan, extract, joints, status, verify, drop),
    *(train, predict, recognise, ablate, study, cost, evaluate, compare, bench),
):
    cli.add_command(command)
