"""A page of sections that is written whole."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .._io.atomic import replace_whole
from .._io.paths import local_path
from ._html import page
from ._parts import Section


@dataclass(frozen=True)
class Report:
    """A page of sections.

    **Fields:**

    - `title`: of the page.
    - `sections`: in their order.
    """

    title: str
    sections: Sequence[Section]

    @property
    def html(self) -> str:
        """The page as one HTML document without any link to another file."""
        return page(self.title, self.sections)

    def save(self, path: str | Path) -> None:
        """Write the page.

        **Arguments:**

        - `path`: the file, replaced whole or not at all. Folders are made.

        **Raises:** `OSError` as the file system gives it.
        """
        text = self.html
        replace_whole(
            local_path("path", path),
            lambda place: place.write_text(text, encoding="utf-8"),
        )

    @classmethod
    def joined(cls, title: str, *reports: "Report") -> "Report":
        """Return one page with the sections of several."""
        return cls(title, tuple(s for report in reports for s in report.sections))
