"""Heat maps and overlays: cells where the values are, nothing hostile, the same bytes twice."""

import io
import re
import xml.etree.ElementTree as ElementTree
from typing import Any

import numpy as np
import pytest
from PIL import Image

from evaluate.heatmaps import Panel, heat_panels
from evaluate.overlays import strip
from evaluate.page import Page
from tests.cache.explanations import jpeg

HOSTILE = ("<script>alert(1)</script>", '" onload="x', "$\\frac{1}{$", "two\nlines")


def one_panel(values: list[list[float]], **options: Any) -> str:  # noqa: ANN401
    array = np.array(values)
    names = [[f"{axis}{number}" for number in range(size)] for axis, size in zip("rc", array.shape, strict=True)]
    return heat_panels([Panel(title="t", values=array)], rows=names[0], columns=names[1], **options)


def cells(svg: str) -> dict[float, int]:
    """Strength -> cells of that strength."""
    found: dict[float, int] = {}
    for path, style in re.findall(r'<path d="([^"]*)"[^>]*style="([^"]*#0072b2[^"]*)"', svg):
        opacity = re.search(r"opacity: ([\d.]+)", style)
        found[float(opacity[1]) if opacity else 1.0] = path.count("M")
    return found


def test_every_value_is_a_cell_of_its_strength_and_zero_is_none() -> None:
    assert cells(one_panel([[0.0, 0.5, 1.0], [1.0, 0.0, 0.01]])) == {1.0: 2, 0.5: 1}
    assert cells(one_panel([[0.0, 0.25], [0.5, 0.0]], full=1.0)) == {0.5: 1, 0.25: 1}
    assert cells(one_panel([[0.0, 0.0]])) == {}


def test_rows_go_down_and_columns_to_the_right() -> None:
    places = {}
    for row, column in ((0, 0), (0, 2), (1, 0)):
        values = np.zeros((2, 3))
        values[row, column] = 1
        (path,) = re.findall(r'<path d="([^"]*)"[^>]*style="[^"]*#0072b2', one_panel(values.tolist()))
        places[row, column] = np.array(re.findall(r"[ML] ([\d.]+) ([\d.]+)", path), dtype=np.float64).mean(axis=0)
    right, down = places[0, 2] - places[0, 0], places[1, 0] - places[0, 0]
    assert (right[0] > 10, right[1]) == (True, pytest.approx(0))
    assert (down[0], down[1] > 10) == (pytest.approx(0), True)


def test_panels_share_one_scale_which_is_printed() -> None:
    panels = [Panel(title="a", values=np.array([[2.0, 0.0]])), Panel(title="b", values=np.array([[0.0, 4.0]]))]
    svg = heat_panels(panels, rows=["x"], columns=["y", "z"], per_line=2)
    assert cells(svg) == {0.5: 1, 1.0: 1}
    assert "full colour: 4" in svg
    assert "full colour: 0.0034" in one_panel([[0.0034, 0.001]])  # coordinates are rounded, texts are not


def test_names_are_marked_and_left_out_where_they_have_no_room() -> None:
    assert "● r1" in one_panel([[1.0], [1.0]], marked=[1])
    many = [f"class {number}" for number in range(24)]
    panels = [Panel(title=str(number), values=np.eye(24)) for number in range(2)]
    svg = heat_panels(panels, rows=many, columns=many, per_line=2)
    assert svg.count(">class 23<") == 1
    assert "in the order of the rows" in svg


def test_hostile_names_stay_texts_and_the_bytes_repeat() -> None:
    def draw() -> str:
        panels = [Panel(title=HOSTILE[0], values=np.ones((4, 4)))]
        return heat_panels(panels, rows=HOSTILE, columns=HOSTILE, x_label=HOSTILE[1], marked=[0])

    ElementTree.fromstring(draw())
    assert draw() == draw()
    Page("x").figure(draw())
    assert "<script" not in draw()
    assert "#0102" not in draw()


def test_values_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="1 panels for 2 rows and 1 columns"):
        heat_panels([Panel(title="", values=np.ones((1, 2)))], rows=["a", "b"], columns=["c"])
    with pytest.raises(ValueError, match="0 panels"):
        heat_panels([], rows=["a"], columns=["b"])


def opened(data: bytes) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=np.float64)


def orange(sheet: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return sheet[..., 0] - sheet[..., 2] > 100


def test_a_map_colours_its_patch_of_its_frame_and_no_other() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (24, 24), (90, 90, 90)).save(buffer, "JPEG")
    values = np.zeros((3, 9))
    values[1, 5] = 1.0  # second row, third column of the second frame
    values[2] = -1.0  # what is not positive is left out
    sheet = opened(strip([buffer.getvalue()] * 3, [values]))
    assert sheet.shape == (2 * 80 + 3, 3 * 80 + 6, 3)
    assert not orange(sheet[:80]).any()
    rows, columns = np.nonzero(orange(sheet))
    assert 80 + 3 + 26 - 2 <= rows.min() <= rows.max() <= 80 + 3 + 54 + 2
    assert 83 + 53 - 2 <= columns.min() <= columns.max() <= 83 + 80 + 2


def test_joints_are_drawn_where_they_were_seen_and_larger_where_they_weigh_more() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (24, 24), (90, 90, 90)).save(buffer, "JPEG")
    joints = np.array([[[0.25, 0.25, 1.0], [0.75, 0.75, 1.0], [0.75, 0.25, 0.0]]])
    drawn = opened(strip([buffer.getvalue()], [], joints=joints, joint_weights=np.array([[1.0, 0.1, 9.0]])))
    sheet = np.abs(drawn - 90).max(axis=-1) > 60
    quarters = [sheet[:40, :40].sum(), sheet[40:, 40:].sum(), sheet[:40, 40:].sum()]
    assert quarters[0] > 2 * quarters[1] > 0
    assert quarters[2] == 0


def test_maps_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="1 frames with maps"):
        strip([jpeg(0)], [np.zeros((2, 9))])
    with pytest.raises(ValueError, match="8 patches do not form a square"):
        strip([jpeg(0)], [np.ones((1, 8))])
    with pytest.raises(ValueError, match="0 frames"):
        strip([], [])
