"""All files below a folder, as people arrange them: through links to folders too, each folder once.

Links can lead in a circle, so that a folder is known by what it is and not by its path. Hidden files and folders are
somebody's leftovers (`.cache`, `._a.mp4`) and are left out.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn


def walk_files(root: Path) -> Iterator[str]:
    """Paths relative to `root`, with '/', in no particular order.

    Raises:
        OSError: a folder may not be read: leaving it out would make what is in it "missing".
    """
    seen = set()
    for folder, children, names in os.walk(root, followlinks=True, onerror=_fail):
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in seen:
            children.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        children[:] = sorted(name for name in children if not name.startswith(".") and name != "lost+found")
        prefix = Path(folder).relative_to(root).as_posix()
        yield from (name if prefix == "." else f"{prefix}/{name}" for name in names if not name.startswith("."))


def _fail(error: OSError) -> NoReturn:
    raise error
