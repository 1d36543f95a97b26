"""The gallery: what each example printed and drew.

    python -m docs._site.gallery                 # runs all of them, about 15 minutes
    python -m docs._site.gallery 11_bands        # or some

The printed lines and the picture of each go into `docs/gallery/`, which is committed: a
build of the site runs no example.
"""

import ast
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
RECORDS = ROOT / "docs" / "gallery"
ARGUMENTS = {"08_mnist": ["--data", str(ROOT.parent / "shared" / "data")]}
PROGRESS = re.compile(
    r"[\r\x1b│┃━─]|it/s|_loss|^\s+[\d.]+\s*$|\d:\d\d:\d\d|[GT]PU|params|FLOPs|Modules"
)
"""Lines of Lightning's progress bars and tables."""


def examples() -> list[pathlib.Path]:
    return sorted(EXAMPLES.glob("[0-9]*.py"))


def record(path: pathlib.Path) -> None:
    """Run an example in an empty folder; keep its lines and its picture."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, str(path), *ARGUMENTS.get(path.stem, [])],
            cwd=folder,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        RECORDS.mkdir(exist_ok=True)
        (RECORDS / f"{path.stem}.txt").write_text(figures(done.stdout))
        for picture in pathlib.Path(folder).glob("runs/*.png"):
            picture.replace(RECORDS / f"{path.stem}.png")


def figures(printed: str) -> str:
    """Return the lines of an example without those of Lightning."""
    lines = [line for line in printed.splitlines() if not PROGRESS.search(line)]
    return "\n".join(line.rstrip() for line in lines).strip("\n") + "\n"


def explained(path: pathlib.Path) -> tuple[str, str]:
    """Return the title of an example and the rest of its docstring."""
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    title, _, text = docstring.partition("\n\n")
    return title.rstrip("."), text


def page(path: pathlib.Path) -> str:
    """Return the page of an example: picture, figures, program."""
    title, text = explained(path)
    lines = [f"# {title}", "", text, ""]
    if (RECORDS / f"{path.stem}.png").exists():
        lines += [f"![What `{path.name}` draws](../docs/gallery/{path.stem}.png)", ""]
    printed = RECORDS / f"{path.stem}.txt"
    if printed.exists():
        lines += ["It prints:", "", "```text", printed.read_text().rstrip(), "```", ""]
    code = path.read_text().partition('"""\n\n')[2]
    return "\n".join(
        [
            *lines,
            f"The program, `examples/{path.name}`:",
            "",
            "```python",
            code + "```",
            "",
        ]
    )


def card(path: pathlib.Path) -> str:
    """Return an example's title under its picture, or above some of its figures."""
    title, _ = explained(path)
    parts = [f"[{title}]({path.stem}.md)"]
    picture, printed = (RECORDS / f"{path.stem}{s}" for s in (".png", ".txt"))
    if picture.exists():
        parts.insert(0, f"![](../docs/gallery/{picture.name})")
    elif printed.exists():
        lines = [line.strip() for line in printed.read_text().splitlines()]
        short = [line for line in lines if line and len(line) < 60]
        parts.append("\n".join(["```text", *short[-4:], "```"]))
    return "\n\n".join(['<div class="card">', *parts, "</div>\n"])


def index() -> str:
    """Return the page of all examples."""
    return "\n".join(
        [
            "# Examples",
            "",
            "Short programs, each from data to figures. What they print and draw was",
            "recorded by `python -m docs._site.gallery`.",
            "",
            '<div class="gallery">',
            "",
            *map(card, examples()),
            "</div>",
            "",
            "```{toctree}",
            ":hidden:",
            "",
            *(path.stem for path in examples()),
            "```",
            "",
        ]
    )


if __name__ == "__main__":
    for example in examples():
        if example.stem in sys.argv[1:] or not sys.argv[1:]:
            print(example.stem, flush=True)
            record(example)
