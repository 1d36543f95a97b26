"""The Python blocks of the documents run, each page from top to bottom."""

import pytest

from . import scene
from .blocks import FENCE, run
from .source import PACKAGE

# The page of the command is run with its shell lines, in tests/cli.
PAGES = {
    path.name: FENCE.findall(path.read_text())
    for path in sorted((PACKAGE.parent / "docs").glob("*.md"))
    if FENCE.search(path.read_text()) and path.name != "command.md"
}


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
# Two steps leave every network untrained, which several functions warn of.
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_blocks_of_a_page_run_in_order(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Joining processes takes several: test_distributed.
    codes = [code for code in PAGES[page] if "join_processes(" not in code]
    run(codes, {**scene.COMMON, **scene.PAGES.get(page, {})})
