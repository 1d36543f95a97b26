"""A file holds one idea: limits on the lines of files, classes and functions."""

import ast
import statistics

from .source import FILES, tree_of

LINES = {name: len(path.read_text().splitlines()) for name, path in FILES.items()}
CODE = [count for name, count in LINES.items() if not name.endswith("__init__.py")]
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


def lines_of(node: ast.ClassDef | FUNCTIONS) -> int:
    """Return the lines of a definition without its docstring."""
    first = node.body[0]
    is_text = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    text = (first.end_lineno or 0) - first.lineno + 1 if is_text else 0
    return (node.end_lineno or 0) - node.lineno + 1 - text


def body_of(node: FUNCTIONS) -> int:
    """Return the lines of a function's body, without signature and docstring."""
    first = node.body[0]
    is_text = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    start = (first.end_lineno or 0) + 1 if is_text else first.lineno
    return (node.end_lineno or 0) - start + 1


def test_half_of_the_files_have_at_most_120_lines():
    assert statistics.median(CODE) <= 120


def test_no_file_class_or_function_is_long():
    long = [name for name, count in LINES.items() if count > 400]
    for name in FILES:
        for node in ast.walk(tree_of(name)):
            if isinstance(node, ast.ClassDef) and lines_of(node) > 200:
                long.append(f"{name}: class {node.name}")
            if isinstance(node, FUNCTIONS) and body_of(node) > 80:
                long.append(f"{name}: {node.name}")
    assert not long
