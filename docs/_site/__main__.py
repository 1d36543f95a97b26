"""`python -m docs._site [FOLDER]`: build the site; a warning or a broken link fails."""

import pathlib
import shutil
import sys
import time

from sphinx.cmd.build import main as sphinx

from . import links, sources

HERE = pathlib.Path(__file__).parent


def main(folder: pathlib.Path) -> int:
    begin = time.perf_counter()
    shutil.rmtree(folder, ignore_errors=True)
    source, pages = folder / "source", folder / "html"
    sources.write(source)
    options = ["-W", "--keep-going", "-q", "-b", "html", "-j", "auto", "-c", str(HERE)]
    status = sphinx([*options, "-d", str(folder / "doctrees"), str(source), str(pages)])
    found = list(links.broken(pages.resolve()))
    print(*found, sep="\n")
    number = sum(1 for _ in pages.rglob("*.html"))
    seconds = time.perf_counter() - begin
    print(f"{number} pages, {len(found)} broken links, {seconds:.0f} s")
    print(f"{pages}/index.html")
    return status or bool(found)


if __name__ == "__main__":
    sys.exit(main(pathlib.Path((sys.argv[1:] or ["build/site"])[0])))
