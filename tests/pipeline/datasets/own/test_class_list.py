from pathlib import Path

import pytest

from cache.errors import ManifestError
from pipeline.datasets.annotations import Place
from pipeline.datasets.own.class_list import ClassList, read_classes


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ('id,name\n0,a b\n2,"c, d"\n', {0: "a b", 2: "c, d"}),
        ("\ufeffid,name\r\n1,x\r\n0,y\r\n", {0: "y", 1: "x"}),
        ("1 ApplyEyeMakeup\n2 Archery\n", {1: "ApplyEyeMakeup", 2: "Archery"}),
        ("pour tea\n\n2 cups\nstir\n", {0: "pour tea", 1: "2 cups", 2: "stir"}),
        ("0\n1\n", {0: "0", 1: "1"}),
        ('0,"a, b"\n1,c, d\n', {0: "a, b", 1: "c, d"}),
        ("0;a\n1;b\n", {0: "a", 1: "b"}),
        ('"0","a"\n"1","b"\n', {0: "a", 1: "b"}),
        ("phase 1\nphase 2\nphase 3\n", {0: "phase 1", 1: "phase 2", 2: "phase 3"}),
        ("idle\nphase 1\nphase 2\n", {0: "idle", 1: "phase 1", 2: "phase 2"}),
        ('say "x\ny\n', {0: 'say "x', 1: "y"}),
        ("one\n", {0: "one"}),
    ],
)
def test_classes_are_read_in_three_forms(tmp_path: Path, text: str, numbers: dict[int, str]) -> None:
    (tmp_path / "classes").write_bytes(text.encode())
    assert read_classes(tmp_path / "classes").names == numbers


@pytest.mark.parametrize(
    "text",
    [
        "id,label\n0,a b\n1,c\n",
        "ID,NAME\n0,a b\n1,c\n",
        "name,id\na b,0\nc,1\n",
        "id,name,group\n0,a b,x\n1,c,\n",
        "group,name,id\nx,a b,0\n,c,1\n",
        ",id,name\n7,0,a b\n8,1,c\n",
        "id;name\n0;a b\n1;c\n",
        '"id","name"\n"0","a b"\n"1","c"\n',
        "id\tname\n0\ta b\n1\tc\n",
        "id\tname\tgroup\n0\ta b\tx\n1\tc\t\n",
        "index,name\n0,a b\n1,c\n",
        "class_id class_name\n0 a b\n1 c\n",
        "name id\na b 0\nc 1\n",
        "Class Name,Class-ID\na b,0\nc,1\n",
        "id,name,label\n0,a b,x\n1,c,y\n",
    ],
)
def test_a_header_is_read_however_it_is_written(tmp_path: Path, text: str) -> None:
    (tmp_path / "classes").write_bytes(text.encode())
    assert read_classes(tmp_path / "classes").names == {0: "a b", 1: "c"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,name\n0,a\n0,b\n", "line 3: number 0 was given before, to 'a'"),
        ("a\nb\na\n", "line 3: class name 'a' is empty or was given before"),
        ("id,name\nx,a\n", "line 2: id 'x' is not a whole number"),
        ("id,name\n-1,a\n", "line 2: id '-1' is not a whole number"),
        ("id,name\n" + "1" * 5000 + ",a\n", "line 2: id '1+' is not a whole number"),
        ("id,name\n0,a,b\n", "line 2: 3 cells under a header of 2"),
        ("id,name\n0\n", "line 2: 1 cells under a header of 2"),
        ("1\n0\n", "line 1: class 0 is named '1'"),
        ("id,name\n", "holds no classes"),
        ("", "holds no classes"),
        ("id,label,class\n0,a,b\n", "line 1: which of label, class is the name"),
    ],
)
def test_classes_that_contradict_themselves_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "classes").write_text(text)
    with pytest.raises(ManifestError, match=message):
        read_classes(tmp_path / "classes")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,verb\n0,a\n1,b\n", "line 1: id looks like a header"),
        ("name\na\nb\n", "line 1: name looks like a header"),
        ("Class Name\na\nb\n", "line 1: class_name looks like a header"),
        (",name\n0,a\n1,b\n", "line 1: name looks like a header"),
        ("nr,verb\n0,a\n1,b\n", "line 1: 'nr,verb' is not a number and a name, as other lines are"),
        ("nr verb\n0 a\n1 b\n", "line 1: 'nr verb' is not a number and a name"),
        ("0 a\n1 b\n3c\n", "line 3: '3c' is not a number and a name"),
        ("verb,nr\na,0\nb,1\n", "line 2: 'a,0' looks like a name and its number"),
        ("verb nr\na 0\nb 1\n", "line 2: 'a 0' looks like a name and its number"),
        ("a;0\nb;1\n", "line 2: 'b;1' looks like a name and its number"),
        ("step,1\nstep,2\n", "line 2: 'step,2' looks like a name and its number"),
        ("0,a,x\n1,b,y\n", "line 1: 3 cells in each line"),
        ('0,"a\n1,b\n', "line 1: .*in quotes"),
        ('{"a": 0,\n"b": 1}', "line 1: .*looks like JSON"),
        ('a\n["b"]\n', "line 2: .*looks like JSON"),
        ("[" * 100_000, "line 1: .*looks like JSON"),
    ],
)
def test_what_is_nearly_a_table_is_not_read_as_names(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "classes").write_text(text)
    with pytest.raises(ManifestError, match=rf"{message}.*'id,name'"):
        read_classes(tmp_path / "classes")


def test_a_label_of_thousands_of_digits_is_no_class(tmp_path: Path) -> None:
    classes = ClassList(tmp_path / "classes", {0: "a"})
    with pytest.raises(ManifestError, match=r"line 3: label '1+' is not one of the 1 classes"):
        classes.class_name(Place(path=tmp_path, number=3), "1" * 5000)
