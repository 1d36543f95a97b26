"""Parts of a report as data: sections of texts, tables and pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from matplotlib.figure import Figure

Cell: TypeAlias = str | int | float | np.generic
"""A cell of a table; numbers are shown with four significant digits."""


@dataclass(frozen=True)
class Text:
    """A paragraph.

    **Fields:**

    - `text`: plain text; it is escaped.
    """

    text: str


@dataclass(frozen=True)
class Table:
    """A table with a head.

    **Fields:**

    - `head`: names of the columns.
    - `rows`: their cells. A column of numbers is aligned at the right.
    - `caption`: a sentence below the table.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""


@dataclass(frozen=True)
class Picture:
    """A figure of matplotlib.

    **Fields:**

    - `figure`: it is drawn as SVG, in the colours of the page.
    - `caption`: a sentence below it that says how to read it.
    """

    figure: Figure
    caption: str


@dataclass(frozen=True)
class Section:
    """A heading with what stands below it; pictures in a row stand side by side.

    **Fields:**

    - `title`: the heading.
    - `blocks`: texts, tables and pictures in their order.
    """

    title: str
    blocks: Sequence[Text | Table | Picture]
