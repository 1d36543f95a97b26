"""Figures as SVG inside of the page, in its colours."""

import html
import io
import re
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from ..plot._axes import BLUE, GREEN, VERMILION

COLOURS = {
    "#000000": "currentColor",
    "#262626": "currentColor",  # the ink of the plots
    "#333333": "currentColor",
    "#ffffff": "var(--paper)",  # edges of bars
    BLUE.lower(): "var(--blue)",
    VERMILION.lower(): "var(--vermilion)",
    GREEN.lower(): "var(--green)",
}
"""Colours of the plots that are too dark, or too light, in one of the two schemes."""


def svg(figure: Figure, name: str, *, label: str) -> str:
    """Return a figure as an SVG element that scales to its column.

    Text stays text, so that it is read aloud and found, and colours are those of the
    style sheet, so that one drawing serves light, dark and paper.

    **Arguments:**

    - `figure`: the figure.
    - `name`: distinguishes its identifiers from those of the page's other figures.
    - `label`: read aloud in place of the picture.
    """
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": name}
    out = io.StringIO()
    with matplotlib.rc_context(settings):
        metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
        # The resolution is that of images inside, whose pixels stay square.
        figure.savefig(out, format="svg", transparent=True, dpi=150, metadata=metadata)
    text = out.getvalue()
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Its style would be that of the whole page.
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)
    # Identifiers of groups repeat from figure to figure and nothing refers to them.
    text = re.sub(r'(<g) id="[a-zA-Z0-9.]+_\d+"', r"\1", text)
    text = re.sub(r'font-family: [^;"]*(; )?', "", text)
    text = re.sub(r" *\n *", "\n", text)
    for colour, variable in COLOURS.items():
        text = re.sub(rf"(?<=: ){colour}\b", variable, text)
    # What has no colour is black for SVG: lines and markers inherit that of the text.
    shape = re.search(r'viewBox="[^"]*"', text)
    assert shape is not None
    head = f'<svg {shape[0]} role="img" aria-label="{html.escape(label)}" '
    head += 'xmlns:xlink="http://www.w3.org/1999/xlink">'
    return head + text[text.index(">") + 1 :]
