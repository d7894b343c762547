"""`evaluate` and `compare` as commands: options, exit codes, JSON."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cache import atomic
from tests.evaluate import toy_runs
from tests.evaluate.toy_frames import frames_cache

ROOT = Path(__file__).parent.parent.parent


def deconfound(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("commands")
    toy_runs.run(folder / "a", splits=("iid",))
    toy_runs.run(folder / "b", splits=("iid",), seed=1)
    toy_runs.run(folder / "atomic", kind="multi", splits=("iid",))
    frames_cache(folder / "frames", [f"iid-{number:03d}" for number in range(60)])
    return folder


def test_compare_prints_one_json_object_with_its_details(folder: Path) -> None:
    done = deconfound("compare", folder / "a", folder / "b", "--json")
    assert done.returncode == 0
    (row,) = json.loads(done.stdout)["comparisons"]
    assert {"per_class", "groups", "changed", "differences"} <= row.keys()


def test_compare_writes_its_report_with_pictures_from_another_cache(folder: Path, tmp_path: Path) -> None:
    report = tmp_path / "out"
    done = deconfound("compare", folder / "a", folder / "b", "--report", report, "--cache", folder / "frames")
    assert done.returncode == 0
    assert f"report: {report / 'index.html'}" in done.stdout
    assert "clips fixed" in done.stdout
    assert "data:image/jpeg" in (report / "index.html").read_text()
    assert {path.name for path in report.iterdir()} == {"index.html", "metrics.json", "per_class.csv", "report.md"}


@pytest.mark.parametrize("words", [["a", "atomic"], ["a"], ["a", "b", "--split", "test"]])
def test_compare_refuses_what_cannot_be_compared_with_exit_code_2(folder: Path, words: list[str]) -> None:
    words = [str(folder / word) if (folder / word).exists() else word for word in words]
    done = deconfound("compare", *words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_evaluate_draws_subjects_whole_unless_told_otherwise(folder: Path, tmp_path: Path) -> None:
    for words, expected in (((), "subject"), (("--cluster", "none"), None), (("--cluster", "subject"), "subject")):
        done = deconfound("evaluate", folder / "a", "--report", tmp_path / "out", *words)
        assert done.returncode == 0
        body = atomic.read_json(tmp_path / "out" / "metrics.json")
        assert body["runs"][0]["splits"]["iid"]["cluster"] == expected
    assert deconfound("evaluate", folder / "a", "--cluster", "camera").returncode == 2


def test_reports_and_comparisons_are_made_without_torch(folder: Path, tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from cache.run import Run\n"
        "from evaluate.comparison_report import write_comparison\n"
        "from evaluate.report import write_report\n"
        f"runs = [Run.open(Path({str(folder)!r}) / name) for name in 'ab']\n"
        f"for write in (write_report, write_comparison): write(runs, Path({str(tmp_path)!r}), num_resamples=10)\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0
