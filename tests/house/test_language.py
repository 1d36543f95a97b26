"""The first line of a docstring is an imperative or a noun phrase."""

import ast
import itertools
import re

import pytest

from .source import FILES, tree_of

RELATIVE = re.compile(
    r"(What|How|Whether|Where|Which|Who|Whose|When|Of|As|That|Why|If|To)\b"
)
"""Relative clauses and half sentences, which only their author can read."""

THIRD_PERSON = re.compile(
    r"(Returns|Makes|Gives|Raises|Refuses|Rejects|Warns|Takes|Puts|Reads|Writes|Runs|Draws|"
    r"Checks|Computes|Adds|Sets|Gets|Trains|Fits|Tells|Says|Holds|Keeps|Calls|Starts|"
    r"Minimises|Marks|Cuts|Loads|Saves|Builds|Creates|Applies|Finds|Counts|Stops|Waits|"
    r"Derives|Copies|Moves|Splits|Joins|Converts|Turns|Lets|Shows|Logs|Plots|Samples|"
    r"Predicts|Evaluates|Estimates|Maps|Swaps|Replaces|Removes|Drops|Goes|Brings|Does)\b"
    r"(?! (of|over|by|with|between|that|which|and|in)\b)"
)
"""Verbs in the third person; the same words are nouns before `of` and the like."""


def first_lines(tree: ast.Module) -> list[tuple[str, str]]:
    """Return name and first line of each docstring in a file."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = []
    for node in ast.walk(tree):
        if isinstance(node, kinds) and (text := ast.get_docstring(node)):
            found.append((getattr(node, "name", "the file"), text.splitlines()[0]))
        if isinstance(node, ast.Module | ast.ClassDef):
            found += attribute_lines(node.body)
    return found


def attribute_lines(body: list[ast.stmt]) -> list[tuple[str, str]]:
    """Return the first lines of the strings that document constants and fields."""
    return [
        (ast.unparse(before).split("=")[0].strip(), text.value.value.splitlines()[0])
        for before, text in itertools.pairwise(body)
        if isinstance(before, ast.Assign | ast.AnnAssign)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    ]


def wrong(tree: ast.Module) -> list[tuple[str, str]]:
    """Return the docstrings whose first line is neither imperative nor noun phrase."""
    return [
        (name, line)
        for name, line in first_lines(tree)
        if RELATIVE.match(line) or THIRD_PERSON.match(line)
    ]


def test_first_lines():
    found = {name: wrong(tree_of(name)) for name in FILES}
    assert not {name: lines for name, lines in found.items() if lines}


@pytest.mark.parametrize(
    "line",
    ["What two batches share.", "Whether a leaf is random.", "Returns the mean."],
)
def test_a_wrong_first_line_is_found(line):
    assert wrong(ast.parse(f'def f():\n    """{line}"""'))
    assert wrong(ast.parse(f'LEAST = 2\n"""{line}"""'))


ARCHAISMS = (
    r"\brefuse[sd]?\b",
    r"\bof (its|their|his|your|our) own\b",
    r"\bput right\b",
    r"\bgo(es)? round\b",
    r"\bnobody else's\b",
    r"\bin the words of\b",
    r"\bis told\b",
    r"\bare told\b",
    r"\bwithout a (word|thought)\b",
    r", say\b",
    r"\bwhoever\b",
    r"\bthe law of\b",
    r"\bhas to say\b",
    r"\bin the place of\b",
)
DIALECT = re.compile("|".join(ARCHAISMS), re.IGNORECASE)


def prose(source: str, tree: ast.Module) -> list[str]:
    """Return docstrings, messages and comments of a file."""
    texts = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    comments = re.findall(r"(?m)^\s*#\s?(.*)$|\s{2}#\s(.*)$", source)
    return [" ".join(text.split()) for text in texts] + [
        one or other for one, other in comments
    ]


def dialect(source: str) -> list[str]:
    """Return the texts of a file that use a word of the list."""
    return [text for text in prose(source, ast.parse(source)) if DIALECT.search(text)]


def test_no_dialect():
    found = {name: dialect(path.read_text()) for name, path in FILES.items()}
    assert not {name: texts for name, texts in found.items() if texts}


def test_dialect_is_found():
    assert dialect("x = 1  # a value of its own") == ["a value of its own"]
    assert dialect('raise ValueError("NaN is refused")')
