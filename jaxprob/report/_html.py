"""HTML of a report."""

import html
import numbers
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from .._version import __version__
from ._parts import Picture, Section, Table, Text
from ._style import STYLE
from ._svg import svg


def page(title: str, sections: Sequence[Section]) -> str:
    """Return the document."""
    title = html.escape(title)
    names = [html.escape(section.title) for section in sections]
    links = "".join(
        f'<li><a href="#s{i}">{name}</a></li>' for i, name in enumerate(names)
    )
    body = "\n".join(_section(section, i) for i, section in enumerate(sections))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{STYLE}</style>
</head>
<body>
<header><h1>{title}</h1>
<nav aria-label="Sections"><ul>{links}</ul></nav></header>
<main>
{body}
</main>
<footer>Written by jaxprob {html.escape(__version__)}.</footer>
</body>
</html>
"""


def _section(section: Section, index: int) -> str:
    parts = []
    for is_picture, group in groupby(section.blocks, _is_picture):
        shown = [
            _block(block, f"{index}-{len(parts)}-{i}") for i, block in enumerate(group)
        ]
        text = "\n".join(shown)
        parts.append(f'<div class="pictures">{text}</div>' if is_picture else text)
    return (
        f'<section id="s{index}"><h2>{html.escape(section.title)}</h2>\n'
        + "\n".join(parts)
        + "\n</section>"
    )


def _is_picture(block: Text | Table | Picture) -> bool:
    return isinstance(block, Picture)


def _block(block: Text | Table | Picture, name: str) -> str:
    if isinstance(block, Picture):
        return _picture(block, name)
    if isinstance(block, Table):
        return _table(block)
    return f"<p>{html.escape(block.text)}</p>"


def _picture(picture: Picture, name: str) -> str:
    caption = html.escape(picture.caption)
    return (
        f"<figure>{svg(picture.figure, name, label=picture.caption)}"
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _table(table: Table) -> str:
    columns = list(zip(*table.rows, strict=True)) or [()] * len(table.head)
    right = [bool(cells) and all(map(_is_number, cells)) for cells in columns]
    head = "".join(_cells("th", table.head, right, ' scope="col"'))
    rows = "\n".join(
        f"<tr>{''.join(_cells('td', map(shown, row), right))}</tr>"
        for row in table.rows
    )
    caption = f'<p class="note">{html.escape(table.caption)}</p>'
    if any(table.head):
        head = f"<thead><tr>{head}</tr></thead>"
    else:
        head = ""
    # A wide table scrolls inside of its frame, and never widens the page of a phone.
    return (
        '<div class="table" tabindex="0">'
        f"<table>{head}<tbody>\n{rows}\n</tbody></table></div>"
        + (caption if table.caption else "")
    )


def _cells(
    tag: str, cells: Any, right: Sequence[bool], attribute: str = ""
) -> Iterator[str]:
    for cell, is_right in zip(cells, right, strict=True):
        side = ' class="number"' if is_right else ""
        yield f"<{tag}{attribute}{side}>{html.escape(str(cell))}</{tag}>"


def shown(cell: Any) -> str:
    """Return a cell as text: four significant digits, a dash for what is not known."""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, numbers.Integral):
        return str(int(cell))
    return f"{float(cell):.4g}" if cell == cell else "-"


def _is_number(cell: Any) -> bool:
    # "1.23 ± 0.04" and a dash stand among numbers.
    return not isinstance(cell, str) or cell[:1] in set("0123456789-+∞")
