"""Signatures as they stand in the source: `Float[Array, "dim"]`, `KarrasGrid(18)`.

The order and kinds of parameters are those of `inspect.signature`; annotations and
defaults are the text of the source, because the values behind them print as
`jaxtyping.Float[jaxlib._jax.Array, 'dim']` and as whole dataclasses.
"""

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

Text = str | None


def signature_of(value: Any, *, bound: bool = False) -> str:
    """Return the text of a signature, `(x, *, key)`, of a function or a constructor.

    **Arguments:**

    - `value`: a function or a class.
    - `bound`: leaves the first parameter out, the `self` of a method.
    """
    try:
        signature = inspect.signature(value)
    except ValueError:  # a class in C
        return "(*args, **kwargs)"
    if inspect.isclass(value):
        texts, returns = constructor_texts(value), None
    else:
        texts, returns = function_texts(value)
    parameters = list(signature.parameters.values())[1 if bound else 0 :]
    text = f"({', '.join(parts(parameters, texts))})"
    return f"{text} -> {returns}" if returns else text


def parts(
    parameters: list[inspect.Parameter], texts: dict[str, tuple[Text, Text]]
) -> Iterator[str]:
    """Yield the parts between the commas of a signature."""
    starred = False
    for index, parameter in enumerate(parameters):
        kind = parameter.kind
        if kind is parameter.KEYWORD_ONLY and not starred:
            yield "*"
        starred = starred or kind in (parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL)
        stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}
        annotation, default = texts.get(parameter.name, (None, None))
        text = stars.get(kind, "") + parameter.name
        if annotation:
            text += f": {annotation}"
        if parameter.default is not parameter.empty:
            shown = default or plain(parameter.default)
            text += f" = {shown}" if annotation else f"={shown}"
        yield text
        last = index + 1 == len(parameters)
        only = kind is parameter.POSITIONAL_ONLY
        if only and (last or parameters[index + 1].kind is not kind):
            yield "/"


def plain(value: Any) -> str:
    """Return a value as an expression where its `repr` is one."""
    if inspect.isclass(value) or inspect.isroutine(value):
        return value.__name__
    text = repr(value)
    try:
        ast.parse(text, mode="eval")
    except SyntaxError:
        return f"{type(value).__name__}(...)"
    return text


def definition(value: Any) -> ast.AST | None:
    """Return the syntax tree of a class or function, or `None` without a source."""
    try:
        lines = inspect.getsource(inspect.unwrap(value))
        return ast.parse(textwrap.dedent(lines)).body[0]
    except (OSError, TypeError, SyntaxError):
        return None


def shown(node: ast.AST | None) -> Text:
    """Return the text of an annotation or a default."""
    if node is None:
        return None
    for part in ast.walk(node):
        # `" dim"` has its space for the linter alone.
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            part.value = part.value.strip()
    return ast.unparse(node)


def function_texts(function: Callable) -> tuple[dict[str, tuple[Text, Text]], Text]:
    """Return annotation and default of each parameter, and the annotation returned."""
    node = definition(function)
    if not isinstance(node, ast.FunctionDef):
        return {}, None
    given = node.args
    positional = [*given.posonlyargs, *given.args]
    defaults = [None] * (len(positional) - len(given.defaults)) + given.defaults
    texts = {
        argument.arg: (shown(argument.annotation), shown(default))
        for argument, default in [
            *zip(positional, defaults, strict=True),
            *zip(given.kwonlyargs, given.kw_defaults, strict=True),
            *((star, None) for star in (given.vararg, given.kwarg) if star),
        ]
    }
    return texts, shown(node.returns)


def constructor_texts(cls: type) -> dict[str, tuple[Text, Text]]:
    """Return annotation and default of each argument of a constructor."""
    for base in cls.__mro__:
        written = vars(base).get("__init__")
        if not inspect.isfunction(written):
            continue
        node = definition(written)
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            return function_texts(written)[0]
    texts: dict[str, tuple[Text, Text]] = {}
    for base in reversed(cls.__mro__):
        node = definition(base) if base.__module__.startswith("jaxprob") else None
        for part in node.body if isinstance(node, ast.ClassDef) else ():
            if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
                default = default_of_field(part.value)
                texts[part.target.id] = (shown(part.annotation), shown(default))
    return texts


def default_of_field(node: ast.expr | None) -> ast.expr | None:
    """Return what a field is set to: the default inside of `eqx.field(default=...)`."""
    if not isinstance(node, ast.Call) or not ast.unparse(node.func).endswith("field"):
        return node
    named = {word.arg: word.value for word in node.keywords}
    return named.get("default")
