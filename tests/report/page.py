"""A page as its reader's browser sees it: well formed, whole, without the network."""

import html
import re
from html.parser import HTMLParser

VOID = {"meta", "link", "br", "img", "hr", "input"}


class Page(HTMLParser):
    """Elements of a page; a tag that is not closed, or twice the same id, fails."""

    def __init__(self, text: str):
        super().__init__()
        self.text = text
        self.open: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.tags: list[str] = []
        self.feed(text)
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                assert value is not None
                self.ids.append(value)
            if name in ("href", "src", "xlink:href", "srcset"):
                assert value is not None
                self.targets.append(value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    @property
    def words(self) -> str:
        """The text of the page, cells separated by a bar."""
        text = re.sub(r"<(svg|style).*?</\1>", "", self.text, flags=re.DOTALL)
        text = re.sub(r"</t[dh]>", " | ", text)
        return html.unescape(re.sub(r"<[^>]+>", "", text))

    def row(self, name: str, cells: int = 0) -> list[str]:
        """The further cells of the first row of a name and of at least so many."""
        for line in self.words.splitlines():
            found = [cell.strip() for cell in line.split("|")][:-1]
            if found and found[0] == name and len(found) > cells:
                return found[1:]
        raise AssertionError(f"no row {name!r}")


def check(text: str) -> Page:
    """Return the page after the checks that hold for any."""
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    for target in page.targets:
        assert target.startswith(("#", "data:image/png;base64,")), target
        assert target[0] != "#" or target[1:] in page.ids, target
    # Addresses of XML's name spaces are fetched by nobody.
    assert set(re.findall(r"https?://[^\"' <]+", text)) <= {
        "http://www.w3.org/1999/xlink",
        "http://www.w3.org/2000/svg",
    }
    assert "script" not in page.tags
    assert 'name="viewport"' in text
    for reference in re.findall(r"url\(#([^)]+)\)", text):
        assert reference in page.ids
    return page
