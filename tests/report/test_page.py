"""Pages are whole, escaped, and drawn in the colours of the reader's scheme."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from jaxprob import plot
from jaxprob.report import Picture, Report, Section, Table, Text
from jaxprob.report._html import shown

from .page import check


def picture(title="t"):
    ax = plot.pit_histogram(np.linspace(0, 1, 40), title=title)
    assert isinstance(ax.figure, Figure)
    return Picture(ax.figure, "A < B & C")


def test_what_a_user_writes_is_escaped_everywhere():
    bad = '<b>&"x"'
    report = Report(
        bad,
        [
            Section(bad, [Text(bad), Table((bad, "n"), [(bad, 1)], bad)]),
            Section("pictures", [picture(bad), picture(bad)]),
        ],
    )
    page = check(report.html)
    assert "b" not in page.tags
    assert page.words.count(bad) >= 6
    assert page.tags.count("svg") == 2
    # Both stand in one grid, side by side where there is room.
    assert report.html.count('class="pictures"') == 1


def test_a_picture_takes_the_colours_of_the_page():
    figure = Figure()
    ax = figure.add_subplot()
    ax.plot([0, 1], [0, 1], color="black")
    ax.scatter([0, 1], [0, 1], color="#0072B2")
    page = Report("t", [Section("s", [Picture(figure, "c")])]).html
    body = page[page.index("<body") :]
    assert "#000000" not in body
    assert "currentColor" in body
    assert "var(--blue)" in body
    assert "font-family" not in body
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page


def test_the_same_report_is_the_same_file():
    def made():
        return Report("t", [Section("s", [picture()])]).html

    assert made() == made()


@pytest.mark.parametrize(
    ("cell", "text"),
    [(3, "3"), (np.int64(3), "3"), (0.123456, "0.1235"), (np.nan, "-"), ("a", "a")],
)
def test_cells(cell, text):
    assert shown(cell) == text


def test_columns_of_numbers_stand_at_the_right():
    table = Table(("name", "value"), [("a", 1.5), ("b", "1.2 ± 0.1")])
    page = Report("t", [Section("s", [table])]).html
    assert page.count('class="number"') == 3
    assert "<td>a</td>" in page


def test_a_table_without_names_of_columns_has_no_head():
    page = Report("t", [Section("s", [Table(("", ""), [("a", 1)])])]).html
    assert "<thead>" not in page


def test_a_page_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "page.html"
    Report("first", []).save(path)
    broken = Picture(Figure(), "c")
    broken.figure.savefig = None  # type: ignore
    with pytest.raises(TypeError):
        Report("second", [Section("s", [broken])]).save(path)
    assert "first" in path.read_text()
    assert [p.name for p in path.parent.iterdir()] == ["page.html"]
    with pytest.raises(OSError):
        Report("third", []).save(path / "below")


def test_joined_reports_have_all_sections():
    reports = [Report(name, [Section(name, [])]) for name in ("a", "b")]
    page = check(Report.joined("both", *reports).html)
    assert page.tags.count("section") == 2
