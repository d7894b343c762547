"""Before any command: the floors must be ours, and logs must go where the person asked.

The packages are installed under their flat folder names, and other distributions own some of those names too
(`evaluate` is one). A shadowed package would fail far from its cause, so it is named here.
"""

import importlib.util
import logging
import sys
from pathlib import Path

from cache.errors import ConfigError
from cache.log_level import NOTE

_FLOORS = ("cache", "evaluate", "extract", "train")


def check_packages() -> None:
    """Refuses to start when another distribution shadows one of the floors.

    Raises:
        ConfigError: names the package and the folder that was found instead.
    """
    home = Path(__file__).resolve().parent.parent
    for name in _FLOORS:
        spec = importlib.util.find_spec(name)
        found = Path(spec.origin).resolve().parent if spec and spec.origin else None
        if found != home / name:
            raise ConfigError(
                f"the package {name!r} is {found}, not {home / name}: another distribution has the same name. "
                "Install deconfound into a virtual environment of its own"
            )


def configure_logging(*, verbose: bool, log_file: Path | None) -> None:
    """Logs to stderr (notes and warnings, or everything with `verbose`), and all of it to `log_file`."""
    console = logging.StreamHandler(sys.stderr)
    console.setLevel(logging.INFO if verbose else NOTE)
    console.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    handlers: list[logging.Handler] = [console]
    if log_file is not None:
        log_file.parent.mkdir(parents=True, exist_ok=True)
        file = logging.FileHandler(log_file, encoding="utf-8", errors="backslashreplace")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        handlers.append(file)
    logging.basicConfig(level=logging.WARNING, handlers=handlers, force=True)
    for package in (*_FLOORS, "pipeline"):
        logging.getLogger(package).setLevel(logging.INFO)
