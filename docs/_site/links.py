"""Links of built pages: every file and every anchor that a page names is there."""

import functools
import pathlib
from collections.abc import Iterator
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

ADDRESSES = {("a", "href"), ("img", "src"), ("link", "href"), ("script", "src")}


class Page(HTMLParser):
    """Addresses that a page names and anchors that it has."""

    def __init__(self, text: str):
        super().__init__()
        self.addresses: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name in ("id", "name") and value:
                self.anchors.add(value)
            if (tag, name) in ADDRESSES and value:
                self.addresses.append(value)
                if tag != "a":
                    self.loaded.append(value)


@functools.cache
def read(path: pathlib.Path) -> Page:
    return Page(path.read_text())


def broken(folder: pathlib.Path) -> Iterator[str]:
    """Yield each link of the pages in a folder that leads nowhere, as page and address.

    Addresses of other hosts are not visited. A picture, style sheet or script of
    another host is broken: the site is read offline.
    """
    for path in sorted(folder.rglob("*.html")):
        name = path.relative_to(folder)
        page = read(path)
        yield from (
            f"{name} loads {address}"
            for address in page.loaded
            if urlsplit(address).netloc
        )
        for address in page.addresses:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            goal = path.parent / unquote(parts.path) if parts.path else path
            if goal.is_dir() or not goal.exists():
                yield f"{name} names {address}"
            elif parts.fragment and goal.suffix == ".html":
                anchors = read(goal.resolve()).anchors
                if unquote(parts.fragment) not in anchors:
                    yield f"{name} names {address}"
