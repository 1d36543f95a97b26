"""LaTeX in the dialect of docutils' translator."""

import re


def rewritten(text: str) -> str:
    r"""Return a formula with braces around each argument, in macros that are known.

    docutils reads `\tfrac12 x` as 12 over x. It has no `\dots`, and no `\big`, without
    which the brackets of MathML grow by themselves.
    """
    text = re.sub(r"\\[bB]ig+[lr]?(?![A-Za-z])", "", text)
    text = re.sub(r"\\dots(?![A-Za-z])", r"\\ldots", text)
    # The first argument is a digit, or a letter behind a space: `\fracx` is a macro.
    text = re.sub(r"(\\[tdc]?frac)\s*(\d|(?<=\s)[A-Za-z])", r"\1{\2}", text)
    return re.sub(r"(\\[tdc]?frac\{[^{}]*\})\s*([0-9A-Za-z])", r"\1{\2}", text)
