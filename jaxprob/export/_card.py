"""The text of a model card."""

import json
import math
import re
from collections.abc import Mapping


def card(
    name: str,
    description: str,
    kind: str,
    num_weights: int,
    figures: Mapping[str, float],
    license: str,
) -> str:
    """Return a model card in Markdown, with the Hub's metadata above it.

    **Arguments:**

    - `name`, `description`, `figures`, `license`: as in `save_pretrained`.
    - `kind`: class of the model.
    - `num_weights`: numbers in its arrays.

    **Raises:** `ValueError` naming an empty text or a figure that is not finite.
    """
    for argument, text in {"name": name, "description": description}.items():
        if not text.strip():
            raise ValueError(f"{argument} is empty: say what the model is")
    if not re.fullmatch(r"[a-z0-9.\-]+", license):
        raise ValueError(
            f"license={license!r}: give an identifier of the Hub, e.g. 'apache-2.0'"
        )
    for figure, value in figures.items():
        if not math.isfinite(value):
            raise ValueError(
                f"figures[{figure!r}]={value}: a figure is a finite number; leave out "
                "what was not measured"
            )
    head = ["---", f"license: {license}", "library_name: jaxprob", "tags:"]
    head += ["- jax", "- equinox", f"- {json.dumps(kind)}", "---", ""]
    body = [f"# {name.strip()}", "", description.strip(), ""]
    body += [f"A `{kind}` with {num_weights:,} weights.", ""]
    if figures:
        rows = [f"| {_cell(key)} | {value:.6g} |" for key, value in figures.items()]
        body += ["| figure | value |", "|---|---|", *rows, ""]
    use = [
        "```python",
        "from jaxprob.export import from_pretrained",
        "",
        'model = from_pretrained("path/to/this/folder")',
        "```",
        "",
    ]
    return "\n".join([*head, *body, *use])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
