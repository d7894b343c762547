import os
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from cache.errors import FailureCode, VideoError
from extract.video.decode import decode
from extract.video.probe import probe
from extract.video.source_file import source_identity
from tests.extract.ffmpeg_program import convert
from tests.extract.videos import all_frames, copy_from, make_sound, make_video


def code_of(path: Path) -> FailureCode:
    with pytest.raises(VideoError) as caught:
        probe(path)
    return caught.value.code


def test_a_plain_video_is_described(tmp_path: Path) -> None:
    info = probe(make_video(tmp_path / "plain.mp4", num_frames=60, rate=30, size=(96, 128)))
    assert (info.height, info.width, info.codec, info.rotation) == (96, 128, "h264", 0)
    assert info.num_frames == info.nominal_num_frames == 60
    assert info.duration_seconds == pytest.approx(2.0)
    np.testing.assert_allclose(info.frame_seconds, np.arange(60) / 30, atol=1e-9)
    assert not any((info.has_edit_list, info.is_variable_rate, info.has_missing_pts))


def test_no_such_file_is_missing(tmp_path: Path) -> None:
    assert code_of(tmp_path / "absent.mp4") == FailureCode.MISSING


def test_a_dangling_link_is_missing_and_says_so(tmp_path: Path) -> None:
    link = tmp_path / "link.mp4"
    link.symlink_to(tmp_path / "gone.mp4")
    with pytest.raises(VideoError, match="link to a file that does not exist") as caught:
        probe(link)
    assert caught.value.code == FailureCode.MISSING


def test_a_link_to_itself_is_a_loop(tmp_path: Path) -> None:
    link = tmp_path / "loop.mp4"
    link.symlink_to(link)
    assert code_of(link) == FailureCode.LOOP


def test_a_directory_and_a_fifo_are_not_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    assert code_of(tmp_path) == FailureCode.NOT_A_FILE
    assert code_of(tmp_path / "pipe.mp4") == FailureCode.NOT_A_FILE


def test_zero_bytes_are_empty(tmp_path: Path) -> None:
    (tmp_path / "zero.mp4").touch()
    assert code_of(tmp_path / "zero.mp4") == FailureCode.EMPTY


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read every file")
def test_an_unreadable_file_is_a_matter_of_permission(tmp_path: Path) -> None:
    path = make_video(tmp_path / "secret.mp4")
    path.chmod(0)
    assert code_of(path) == FailureCode.PERMISSION


def test_a_refused_open_is_a_matter_of_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    path = make_video(tmp_path / "secret.mp4")
    monkeypatch.setattr(os, "open", refuse)
    assert code_of(path) == FailureCode.PERMISSION


@pytest.mark.parametrize("name", ["text.mp4", "text.txt", "noise.mp4", "list.m3u8"])
def test_text_noise_and_playlists_are_not_videos(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(0).bytes(5000)
    content = {"noise.mp4": noise, "list.m3u8": b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n"}.get(name, b"hello\n" * 500)
    (tmp_path / name).write_bytes(content)
    assert code_of(tmp_path / name) == FailureCode.NOT_A_VIDEO


def test_sound_alone_has_no_video_stream(tmp_path: Path) -> None:
    assert code_of(make_sound(tmp_path / "sound.mp4")) == FailureCode.NO_VIDEO_STREAM


@pytest.mark.parametrize("kind", ["gif", "png"])
def test_a_picture_named_mp4_is_an_unsupported_codec(tmp_path: Path, kind: str) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "picture.mp4", format=kind)
    assert code_of(tmp_path / "picture.mp4") == FailureCode.UNSUPPORTED_CODEC


def test_an_mp4_without_its_index_is_truncated(tmp_path: Path) -> None:
    path = make_video(tmp_path / "cut.mp4")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])  # moov stands at the end
    assert code_of(path) == FailureCode.TRUNCATED


@pytest.mark.parametrize(
    ("name", "options"), [("cut.mkv", {}), ("cut.avi", {}), ("cut.mp4", {"movflags": "faststart"})]
)
def test_half_a_video_is_truncated_in_every_container(tmp_path: Path, name: str, options: dict[str, str]) -> None:
    path = make_video(tmp_path / f"whole-{name}", container_options=options)
    (tmp_path / name).write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert code_of(tmp_path / name) == FailureCode.TRUNCATED


def test_a_frame_above_the_limit_is_too_large(tmp_path: Path) -> None:
    path = make_video(tmp_path / "big.mp4", size=(96, 128))
    with pytest.raises(VideoError, match="max_pixels = 1000") as caught:
        probe(path, max_pixels=1000)
    assert caught.value.code == FailureCode.TOO_LARGE


def test_a_variable_rate_is_noticed_and_every_time_is_kept(tmp_path: Path) -> None:
    times = [33 * index if index < 40 else 1320 + 200 * (index - 40) for index in range(60)]
    info = probe(make_video(tmp_path / "vfr.mp4", times_ms=times))
    assert info.is_variable_rate
    np.testing.assert_allclose(info.frame_seconds, np.array(times) / 1000, atol=1e-3)


VARYING = {
    "slower at the end": [33 * index if index < 40 else 1320 + 200 * (index - 40) for index in range(60)],
    "a slide show at the end": [33 * index if index < 40 else 1320 + 1000 * (index - 40) for index in range(60)],
    "two slides": [0, 5000],
    "late": [5000 + (40 * index if index < 20 else 800 + 100 * (index - 20)) for index in range(40)],
}


@pytest.mark.parametrize("times", VARYING.values(), ids=VARYING.keys())
@pytest.mark.parametrize(("name", "codec"), [("v.mkv", "libx264"), ("v.webm", "libvpx-vp9"), ("v.ts", "libx264")])
def test_a_variable_rate_is_not_truncated_where_no_count_is_stored(
    tmp_path: Path, name: str, codec: str, times: list[int]
) -> None:
    path = make_video(tmp_path / name, codec=codec, times_ms=times, num_frames=len(times))
    info = probe(path, min_decodable=1.0)
    assert info.num_frames == info.nominal_num_frames == len(times)
    np.testing.assert_allclose(info.frame_seconds, (np.array(times) - times[0]) / 1000, atol=2e-3)


@pytest.mark.parametrize("kind", ["slower at the end", "late"])
@pytest.mark.parametrize(("name", "codec"), [("v.mkv", "libx264"), ("v.webm", "libvpx-vp9"), ("v.flv", "libx264")])
def test_half_a_video_of_variable_rate_is_truncated(tmp_path: Path, name: str, codec: str, kind: str) -> None:
    path = make_video(tmp_path / name, codec=codec, times_ms=VARYING[kind], num_frames=len(VARYING[kind]))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert code_of(path) == FailureCode.TRUNCATED


def test_rounded_times_of_a_constant_rate_are_not_a_variable_rate(tmp_path: Path) -> None:
    assert not probe(make_video(tmp_path / "plain.mkv", rate=30)).is_variable_rate


def test_rotation_swaps_the_displayed_size(tmp_path: Path) -> None:
    info = probe(make_video(tmp_path / "turned.mp4", rotation=90, size=(96, 128)))
    assert (info.height, info.width, info.rotation) == (128, 96, 90)


def test_a_cut_without_decoding_leaves_an_edit_list(tmp_path: Path) -> None:
    source = make_video(tmp_path / "source.mp4", num_frames=60, gop=60)
    info = probe(copy_from(source, tmp_path / "cut.mp4", 0.5))
    assert info.has_edit_list
    assert info.num_frames == 45
    assert info.nominal_num_frames == 60


def test_avi_has_no_presentation_times(tmp_path: Path) -> None:
    assert probe(make_video(tmp_path / "old.avi", codec="mpeg4")).has_missing_pts


def test_frames_of_vp8_that_are_never_shown_are_not_counted(tmp_path: Path) -> None:
    path, log = tmp_path / "hidden.webm", tmp_path / "passes"
    source = ["-f", "lavfi", "-i", "testsrc2=size=128x96:rate=30:duration=6"]
    for number in (1, 2):  # only the second pass makes frames to predict from
        options = ["-c:v", "libvpx", "-b:v", "100k", "-auto-alt-ref", 1, "-lag-in-frames", 25, "-g", 128]
        convert(*source, *options, "-pass", number, "-passlogfile", log, path)
    with av.open(str(path)) as container:
        assert sum(packet.size > 0 for packet in container.demux(video=0)) > 180
    info = probe(path)
    assert info.num_frames == len(info.frame_seconds) == len(all_frames(path)) == 180
    clip = decode(path, info, info.frame_seconds[[0, 100, 179]])
    assert clip.frame_index.tolist() == [0, 100, 179]


@pytest.mark.parametrize("name", ["a b.mp4", "-dash.mp4", "50%:x.mp4", "煮.mp4", "new\nline.mp4", "concat:a.mp4"])
def test_odd_names_are_only_names(tmp_path: Path, name: str) -> None:
    path = make_video(tmp_path / "plain.mp4").rename(tmp_path / name)
    assert probe(path).num_frames == 60


def test_a_name_that_is_not_utf8_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"bad\xff.mp4")
    make_video(tmp_path / "plain.mp4").rename(path)
    assert probe(path).num_frames == 60


def test_the_identity_of_a_source_survives_copying_and_sees_both_ends(tmp_path: Path) -> None:
    content = bytearray(np.random.default_rng(0).bytes(3 << 20))
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(content)
    identity = source_identity(tmp_path / "one")
    assert identity == source_identity(tmp_path / "two")
    assert identity[0] == 3 << 20
    for position in (0, -1):
        changed = bytearray(content)
        changed[position] ^= 1
        (tmp_path / "two").write_bytes(changed)
        assert source_identity(tmp_path / "two") != identity
