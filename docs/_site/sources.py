"""The source tree for Sphinx: the repository's Markdown beside generated pages."""

import pathlib
import re
import shutil

from . import gallery, reference
from .names import PACKAGES, public_names

ROOT = pathlib.Path(__file__).parents[2]
GUIDES = {
    "First steps": ["choosing-a-method", "coming-from", "command"],
    "Guides": [
        "inference",
        "diffusion",
        "simulators",
        "training",
        "lightning",
        "scaling",
        "export",
    ],
    "The project": ["design", "extending"],
}
"""Pages of `docs/` in the order of the sidebar; a page that is not listed is last."""

EXAMPLE = re.compile(r"(\]\((?:\.\./)?examples/\w+)\.py\)")


def write(folder: pathlib.Path) -> None:
    """Write all pages into an empty folder."""
    for name in ("CHANGELOG.md", "CONTRIBUTING.md"):
        put(folder / name, (ROOT / name).read_text())
    for path in sorted((ROOT / "docs").glob("*.md")):
        put(folder / "docs" / path.name, path.read_text())
    for name in ("images", "gallery"):
        if (ROOT / "docs" / name).exists():
            shutil.copytree(ROOT / "docs" / name, folder / "docs" / name)
    put(folder / "index.md", front((ROOT / "README.md").read_text()))
    put(folder / "examples" / "index.md", gallery.index())
    for path in gallery.examples():
        put(folder / "examples" / f"{path.stem}.md", gallery.page(path))
    put(folder / "reference" / "index.md", overview())
    for package in PACKAGES:
        home = folder / "reference" / package
        put(home / "index.md", reference.package_page(package))
        for item in public_names(package):
            put(folder / f"{item.page}.md", reference.name_page(item))


def put(path: pathlib.Path, text: str) -> None:
    """Write a page, with links to examples and folders made links to their pages."""
    text = EXAMPLE.sub(r"\1.md)", text)
    text = re.sub(r"\]\(((?:\.\./)?)examples/?\)", r"](\1examples/index.md)", text)
    text = re.sub(r"\]\(\.\./README\.md", "](../index.md", text)
    text = text.replace("](LICENSE)", "](https://www.apache.org/licenses/LICENSE-2.0)")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def guides() -> dict[str, list[str]]:
    """Return the documents of the sidebar by caption."""
    listed = [name for names in GUIDES.values() for name in names]
    others = [
        p.stem for p in sorted((ROOT / "docs").glob("*.md")) if p.stem not in listed
    ]
    captions = {c: [f"docs/{name}" for name in names] for c, names in GUIDES.items()}
    captions["Guides"] += [f"docs/{name}" for name in others]
    captions["First steps"].append("examples/index")
    captions["Reference"] = [f"reference/{package}/index" for package in PACKAGES]
    captions["The project"] += ["CONTRIBUTING", "CHANGELOG"]
    captions["The project"] = captions.pop("The project")
    return captions


def front(readme: str) -> str:
    """Return the README with the sidebar's tables of contents."""
    for caption, documents in guides().items():
        readme += "\n".join(
            ["", "```{toctree}", ":hidden:", f":caption: {caption}", "", *documents]
        )
        readme += "\n```\n"
    return readme


def overview() -> str:
    """Return the list of packages."""
    rows = [
        f"| [`{p}`]({p}/index.md) | {reference.TITLES[p]} | {len(public_names(p))} |"
        for p in PACKAGES
    ]
    head = ["---", "orphan: true", "---", "", "# Reference", ""]
    table = ["| package | | names |", "|---|---|---|", *rows, ""]
    return "\n".join([*head, *table])
