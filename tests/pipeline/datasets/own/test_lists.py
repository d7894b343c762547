import os
from pathlib import Path

import pytest

from cache.errors import ManifestError
from pipeline.datasets.own.class_list import ClassList, read_classes
from pipeline.datasets.own.clips import Wishes
from pipeline.datasets.own.lists import prepare_lists
from pipeline.datasets.preparation import Preparation
from pipeline.datasets.videos import VideoFolder

CLASSES = ClassList(Path("classes.csv"), {0: "brush hair", 1: "catch", 2: "chew, slowly"})


@pytest.fixture(scope="module")
def real() -> Path:
    """List files of mmaction2 and Text4Vis."""
    folder = Path(os.environ.get("DECONFOUND_TEST_DATA", "")) / "annotations" / "kinetics_style"
    if not folder.is_dir():
        pytest.skip("DECONFOUND_TEST_DATA names no folder with annotations/kinetics_style")
    return folder


def prepared(
    folder: Path,
    train: str | bytes,
    *videos: str,
    test: str | None = None,
    classes: ClassList | None = CLASSES,
    multi_label: bool = False,
) -> Preparation:
    """Writes the lists and the (empty) videos, then reads them."""
    for name in videos:
        (folder / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "videos" / name).touch()
    (folder / "videos").mkdir(exist_ok=True)
    (folder / "train.txt").write_bytes(train if isinstance(train, bytes) else train.encode())
    lists = {"train": folder / "train.txt"}
    if test is not None:
        lists["test"] = folder / "test.txt"
        lists["test"].write_text(test)
    wishes = Wishes(classes=classes, multi_label=multi_label)
    return prepare_lists(lists, VideoFolder(folder / "videos"), wishes)


def found(preparation: Preparation) -> list[tuple[str, tuple[str, ...]]]:
    return [(clip.video, clip.labels["action"]) for clip in preparation.dataset.clips]


@pytest.mark.parametrize(
    "text",
    [
        "a/x 1.mp4 0\na/y,2.mp4 2\n",
        "a/x 1.mp4\t0\na/y,2.mp4\t2\n",
        'a/x 1.mp4,0\n"a/y,2.mp4",2\n',
        "a/x 1.mp4,0\na/y,2.mp4,2\n",
        "path label\na/x 1.mp4 0\na/y,2.mp4 2\n",
        "video_id,Class\na/x 1.mp4,0\na/y,2.mp4,2\n",
        'Filename,Class\n./a/x 1.mp4,brush hair\na/y,2.mp4,"chew, slowly"\n',
        "a/x 1.mp4 brush hair\na/y,2.mp4  chew, slowly\n",
        b"\xef\xbb\xbfa/x 1.mp4 0 \r\n\r\na/y,2.mp4 2\r\n  \r\n",
    ],
)
def test_every_form_says_the_same(tmp_path: Path, text: str | bytes) -> None:
    preparation = prepared(tmp_path, text, "a/x 1.mp4", "a/y,2.mp4")
    assert found(preparation) == [("a/x 1.mp4", ("brush hair",)), ("a/y,2.mp4", ("chew, slowly",))]
    assert preparation.dataset.task("action").class_names == ("brush hair", "catch", "chew, slowly")
    assert preparation.notes == ()


@pytest.mark.parametrize("text", ["a b.mp4 0 2\nc.mp4 1\n", 'a b.mp4,brush hair,"chew, slowly"\nc.mp4,catch\n'])
def test_several_labels_make_a_multi_label_task(tmp_path: Path, text: str) -> None:
    preparation = prepared(tmp_path, text, multi_label=True)
    assert found(preparation) == [("a b.mp4", ("brush hair", "chew, slowly")), ("c.mp4", ("catch",))]
    assert preparation.dataset.task("action").kind == "multi"


def test_without_a_list_of_classes_they_are_the_names_of_training(tmp_path: Path) -> None:
    preparation = prepared(tmp_path, "1.mp4,stir_tea\n2.mp4,pour\n", test="3.mp4,pour\n", classes=None)
    task = preparation.dataset.task("action")
    assert task.class_names == ("pour", "stir_tea")
    assert task.prompts == ("pour", "stir tea")
    assert preparation.dataset.protocols == {"default": ("train", "test")}


def test_a_path_without_an_ending_takes_that_of_its_file(tmp_path: Path) -> None:
    preparation = prepared(tmp_path, "a/-x_1 0\na/y.mp4 1\nz 2\n", "a/-x_1.mkv", "a/y.webm", "b/z.mp4")
    clips = preparation.dataset.clips
    assert [clip.id for clip in clips] == ["a/-x_1", "a/y.mp4", "z"]
    assert [clip.video for clip in clips] == ["a/-x_1.mkv", "a/y.webm", "z"]
    assert preparation.notes == ("clips with another ending than listed: 1 (a/y.mp4 is a/y.webm)",)


def test_a_path_may_be_written_in_another_unicode_form_than_its_file(tmp_path: Path) -> None:
    preparation = prepared(tmp_path, "caf\u00e9 0\nth\u00e9.mp4 1\n", "cafe\u0301.mkv", "the\u0301.mp4")
    assert [clip.video for clip in preparation.dataset.clips] == ["cafe\u0301.mkv", "the\u0301.mp4"]
    assert preparation.notes == ()


def test_files_that_differ_by_their_ending_are_not_chosen_between(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"train\.txt, line 2: 'b' may be b\.mkv or b\.webm: write the ending"):
        prepared(tmp_path, "a.mp4 0\nb 1\n", "a.mp4", "a.webm", "b.webm", "b.mkv")


def test_namesakes_in_several_other_folders_stop_nothing(tmp_path: Path) -> None:
    preparation = prepared(tmp_path, "1.mp4 0\nx 1\n", "a/1.mp4", "b/1.mp4", "a/x.mp4", "b/x.mp4")
    assert [clip.video for clip in preparation.dataset.clips] == ["1.mp4", "x"]
    assert "1.mp4 is listed, a/1.mp4 is there" in preparation.notes[0]


def test_a_list_of_test_videos_alone_is_a_dataset(tmp_path: Path) -> None:
    (tmp_path / "test.txt").write_text("a.mp4 pour\nb.mp4 stir\n")
    dataset = prepare_lists({"test": tmp_path / "test.txt"}, VideoFolder(tmp_path), Wishes()).dataset
    assert dataset.protocols == {"default": ("test",)}
    assert dataset.task("action").class_names == ("pour", "stir")


def test_videos_that_lie_elsewhere_are_not_taken_but_hinted_at(tmp_path: Path) -> None:
    preparation = prepared(tmp_path, "1.mp4 0\n2.mp4 1\n", "train/1.mp4", "train/2.mp4")
    assert [clip.video for clip in preparation.dataset.clips] == ["1.mp4", "2.mp4"]
    assert "1.mp4 is listed, train/1.mp4 is there" in preparation.notes[0]


def test_absolute_paths_below_the_folder_become_relative(tmp_path: Path) -> None:
    preparation = prepared(tmp_path, f"{tmp_path}/videos/a/1.mp4 0\n")
    assert preparation.dataset.clips[0].id == preparation.dataset.clips[0].video == "a/1.mp4"
    with pytest.raises(ManifestError, match=r"line 1: '/data/1\.mp4' is not below --videos"):
        prepared(tmp_path, "/data/1.mp4 0\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.mp4\nb.mp4\n", r"line 1: expected a path and a label separated by a tab, a comma or blanks, got 'a\.mp4'"),
        ("a.mp4 0\nb.mp4\n", r"train\.txt, line 2: expected a path and a label separated by blanks"),
        ("a.mp4,0\nb.mp4,1\nc.mp4 2\n", r"train\.txt, line 3: expected a path and a label separated by commas"),
        ("a.mp4 0\n\nb.mp4 x\n", r"train\.txt, line 3: label 'x' is not one of the 3 classes of classes\.csv"),
        ("a.mp4 catsh\n", "is it 'catch'"),
        ("a.mp4 3\n", "line 1: label '3' is not one of the 3 classes"),
        ("a.mp4 -1\n", "label '-1'"),
        ("a.mp4 0 1\n", r"several labels follow 'a\.mp4' .*--multi-label; if the first number is that of a frame"),
        ("a.mp4,0,1\n", "several labels .*--multi-label; if the first number is that of a frame"),
        ("a.mp4 0 1 2\n", "several labels .*: give --multi-label$"),
        ("a.mp4,catch,brush hair\n", "several labels .*: give --multi-label$"),
        ("path,label\n\n", r"train\.txt has a header and no clips"),
        ("video_id,label,time\nx,catch,3\n", "line 1: the header is 'video_id, label, time'.*prepare table"),
        ("label,youtube_id,time_start,time_end,split\ncatch,--a_1,3,13,train\n", "line 1: .*list of downloads.*table"),
        ('"label","youtube_id","time_start"\n"catch","--a_1",3\n', "line 1: .*list of downloads"),
        ("a b catch\n", "nobody can tell where the path ends"),
        ("../a.mp4 0\n", "line 1: .*without '..'"),
        ("label,path\n0,a.mp4\n", "line 1: the header is 'label, path'.*prepare table"),
        ("path,label,split\na.mp4,0,train\n", "prepare table"),
        (b"\xff\xfea\0", "not UTF-8"),
        ("\n", "is empty"),
    ],
)
def test_lines_that_cannot_be_read_are_refused_with_their_number(
    tmp_path: Path, text: str | bytes, message: str
) -> None:
    with pytest.raises(ManifestError, match=message):
        prepared(tmp_path, text)


def test_a_class_given_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="line 1: a class is named twice: brush hair, brush hair"):
        prepared(tmp_path, "a.mp4 0 0\n", multi_label=True)


def test_numbers_without_a_list_of_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"line 2: label 4 is a number.*--classes"):
        prepared(tmp_path, "a.mp4 pour\nb.mp4 4\n", classes=None)


def test_a_name_that_only_the_test_knows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"test\.txt, line 1: class 'puor' has no training clip"):
        prepared(tmp_path, "a.mp4 pour\n", test="b.mp4 puor\n", classes=None)


def test_the_first_ten_repeated_videos_are_listed_with_both_lines(tmp_path: Path) -> None:
    train = "".join(f"{number}.mp4 0\n" for number in range(12))
    with pytest.raises(ManifestError) as refused:
        prepared(tmp_path, train, test=train)
    message = str(refused.value)
    assert message.startswith("clips given before: 12;")
    assert f"{tmp_path}/test.txt, line 10: '9.mp4', as in {tmp_path}/train.txt, line 10" in message
    assert "'10.mp4'" not in message
    assert "and 2 more" in message


def test_one_file_for_two_splits_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a.mp4 0\n")
    lists = {"validation": tmp_path / "list.txt", "test": tmp_path / "list.txt"}
    with pytest.raises(ManifestError, match="as --validation and as --test"):
        prepare_lists(lists, VideoFolder(tmp_path), Wishes(classes=CLASSES))


def test_real_classes_and_lists(tmp_path: Path, real: Path) -> None:
    kinetics = read_classes(real / "kinetics_400_labels.csv")
    assert (len(kinetics.names), kinetics.names[0], kinetics.names[399]) == (400, "abseiling", "zumba")
    hmdb = read_classes(real / "hmdb51_labels.csv")  # CRLF
    assert (len(hmdb.names), hmdb.names[0], hmdb.names[50]) == (51, "brush hair", "wave")
    (tmp_path / "test.mp4").touch()
    for name, multi_label in (("mmaction2_video_test_list", False), ("mmaction2_video_test_list_multi_label", True)):
        wishes = Wishes(classes=kinetics, multi_label=multi_label)
        with pytest.raises(ManifestError, match=r"clips given before: 1;.*\n.*line 2: 'test\.mp4', as in line 1"):
            prepare_lists({"train": real / f"{name}.txt"}, VideoFolder(tmp_path), wishes)
        (tmp_path / name).write_text((real / f"{name}.txt").read_text().splitlines()[0])
        clip = prepare_lists({"train": tmp_path / name}, VideoFolder(tmp_path), wishes).dataset.clips[0]
        assert clip.labels["action"] == ("abseiling", "applauding")[: 1 + multi_label]


@pytest.mark.parametrize("form", ["", "_multi_label", "_with_offset"])
@pytest.mark.parametrize("multi_label", [False, True])
def test_real_lists_of_frames_are_refused_with_the_reason(
    tmp_path: Path, real: Path, form: str, multi_label: bool
) -> None:
    path = real / f"mmaction2_rawframe_test_list{form}.txt"
    wishes = Wishes(classes=read_classes(real / "kinetics_400_labels.csv"), multi_label=multi_label)
    with pytest.raises(
        ManifestError, match=r"line 1: 'imgs' and . numbers look like extracted frames.*made from videos"
    ):
        prepare_lists({"train": path}, VideoFolder(tmp_path), wishes)


@pytest.mark.parametrize("separator", [" ", ",", "\t"])
@pytest.mark.parametrize("cells", [("imgs", "5", "1"), ("imgs", "2", "5", "1")])
@pytest.mark.parametrize("multi_label", [False, True])
def test_lists_of_frames_are_refused_whatever_divides_them(
    tmp_path: Path, separator: str, cells: tuple[str, ...], multi_label: bool
) -> None:
    with pytest.raises(ManifestError, match=r"line 1: 'imgs' and . numbers look like extracted frames"):
        prepared(tmp_path, separator.join(cells) + "\n", multi_label=multi_label)
