import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cache.manifest import Clip, Dataset, Task
from pipeline.commands.validation import validate

ROOT = Path(__file__).parent.parent.parent


def run(*words: object) -> Result:
    return CliRunner().invoke(validate, [str(word) for word in words], catch_exceptions=False)


def make_dataset(folder: Path, *videos: str, prompts: tuple[str, str] = ("tea", "egg")) -> Path:
    (folder / "videos").mkdir(exist_ok=True)
    clips = tuple(
        Clip(
            id=str(number),
            video=video,
            splits={"default": "train"},
            labels={"action": (("tea", "egg")[number % 2],)},
        )
        for number, video in enumerate(videos)
    )
    Dataset(
        name="toy",
        version="1",
        tasks=(Task(name="action", kind="single", class_names=("tea", "egg"), prompts=prompts),),
        protocols={"default": ("train",)},
        clips=clips,
        video_root=folder / "videos",
    ).write(folder / "dataset")
    return folder / "dataset"


def test_a_sound_dataset_exits_with_0(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, "a.mp4", "b.mp4")
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / "videos" / name).write_bytes(b"video")
    result = run(dataset)
    assert result.exit_code == 0
    assert result.stdout == "dataset toy: 2 clips of 2 videos\nnothing found\n"


def test_every_kind_of_unreadable_video_is_told(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    names = ["sound.mp4", "gone.mp4", "folder.mp4", "empty.mp4", "outside.mp4", "loop.mp4", "away/x.mp4", "inside.mp4"]
    dataset = make_dataset(tmp_path, *names)
    (videos / "sound.mp4").write_bytes(b"video")
    (videos / "folder.mp4").mkdir()
    (videos / "empty.mp4").touch()
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "x.mp4").write_bytes(b"video")
    (videos / "outside.mp4").symlink_to(tmp_path / "secret" / "x.mp4")
    (videos / "loop.mp4").symlink_to(videos / "loop.mp4")
    (videos / "away").symlink_to(tmp_path / "secret")
    (videos / "inside.mp4").symlink_to(videos / "sound.mp4")
    result = run(dataset, "--json")
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    lines = {
        finding["code"]: [example["lines"] for example in finding["examples"]]
        for finding in report["findings"]
        if finding["code"].startswith("video_")
    }
    assert lines == {
        "video_missing": [[2]],
        "video_outside_root": [[5], [7]],
        "video_not_a_file": [[3]],
        "video_loop": [[6]],
        "video_empty": [[4]],
    }


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_video_that_may_not_be_read_is_told(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "videos" / "a.mp4").write_bytes(b"video")
    (tmp_path / "videos" / "b.mp4").write_bytes(b"video")
    (tmp_path / "videos" / "b.mp4").chmod(0)
    assert "video_permission" in run(dataset).stdout


def test_a_name_that_is_too_long_is_told_and_ends_nothing(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, "x" * 300 + ".mp4", "gone.mp4")
    result = run(dataset)
    assert result.exit_code == 0
    assert "video_missing   warning      2" in result.stdout
    assert "cannot be reached" in result.stdout


def test_a_folder_that_may_not_be_entered_is_told_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = make_dataset(tmp_path, "closed/a.mp4", "gone.mp4")
    lstat = os.lstat

    def denied(path: str | Path, **options: int) -> os.stat_result:
        if "closed" in str(path):
            raise PermissionError(errno.EACCES, "denied", str(path))
        return lstat(path, **options)

    monkeypatch.setattr(os, "lstat", denied)
    monkeypatch.setattr(Path, "lstat", denied)
    report = json.loads(run(dataset, "--json").stdout)
    assert {finding["code"]: finding["examples"][0]["lines"] for finding in report["findings"]} == {
        "video_permission": [1],
        "video_missing": [2],
    }


def test_what_utf8_cannot_write_is_printed_with_escapes(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, "a\udcff.mp4", prompts=("tea \ud800" * 20, "egg"))
    header = json.loads((dataset / "dataset.json").read_text())
    (dataset / "dataset.json").write_text(json.dumps(header | {"name": "bad\ud800"}))
    result = run(dataset)
    assert result.stdout.startswith("dataset bad\\ud800: 1 clips of 1 videos\n")
    assert r"'a\udcff.mp4' no such file" in result.stdout


def test_a_videos_folder_given_by_hand_must_be_there(tmp_path: Path) -> None:
    from cache.errors import ConfigError

    dataset = make_dataset(tmp_path, "a.mp4", "b.mp4")
    with pytest.raises(ConfigError, match=r"--videos .*nowhere is not a folder"):
        run(dataset, "--videos", tmp_path / "nowhere")


def test_errors_exit_with_4_and_name_their_lines(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, "a.mp4", "b.mp4")
    with (dataset / "clips.jsonl").open("a") as file:
        for number in range(12):
            file.write(json.dumps({"id": "0", "video": f"{number}.mp4"}) + "\n")
    (tmp_path / "videos").rmdir()
    result = run(dataset)
    assert result.exit_code == 4
    text = result.stdout.splitlines()
    assert text[:6] == [
        "dataset toy: 14 clips of 14 videos",
        "finding        severity  count",
        "duplicate_id      error     12",
        "no_video_root   warning      1",
        "in_no_split        note     12",
        "",
    ]
    assert text[6:9] == [
        "error: duplicate_id: ids given before, also in another Unicode form",
        "  line 3: '0' was given in line 1",
        "  line 4: '0' was given in line 1",
    ]
    assert "  ... and 2 more" in text
    assert "  lines 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, ...: 12 of 14 clips" in text


def test_a_prompt_longer_than_the_text_encoder_reads_is_told(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, "a.mp4", prompts=("word " * 76, "a characteristically " + "incomprehensible " * 5))
    result = run(dataset)
    assert "task 'action', class 'tea': 78 tokens, 77 are read" in result.stdout
    assert "class 'egg'" not in result.stdout


def test_short_prompts_need_no_torch(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, "a.mp4", "b.mp4")
    program = (
        "import sys; from pipeline.commands.validation import validate; "
        f"validate.main([{str(dataset)!r}], standalone_mode=False); sys.exit(50 + ('torch' in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=False).returncode == 50


def test_a_folder_that_is_no_dataset_is_refused(tmp_path: Path) -> None:
    from cache.errors import ManifestError

    with pytest.raises(ManifestError, match="deconfound prepare"):
        run(tmp_path)
