"""Numpyro's distributions, their supports and their transforms, by name and parameters.

Fields go by name: numpyro gathers them in a set, whose order is another in each
process.
"""

from typing import Any

import numpyro.distributions as dist

KINDS = {
    "distribution": (dist, dist.Distribution),
    "constraint": (dist.constraints, dist.constraints.Constraint),
    "transform": (dist.transforms, dist.transforms.Transform),
}


def taken_apart(value: Any) -> tuple[str, str, dict[str, Any], dict[str, Any]] | None:
    """Kind, name, fields and settings of a part of numpyro; `None` for all else."""
    name = type(value).__name__
    for kind in KINDS:
        if _class(kind, name) is not type(value):
            continue
        if kind == "distribution":
            data, aux = value.tree_flatten()
            cls = type(value)
            named = dict(zip(cls.gather_pytree_data_fields(), data, strict=True))
            named |= zip(cls.gather_pytree_aux_fields(), aux, strict=True)
            return kind, name, named, {}
        data, (names, settings) = value.tree_flatten()
        return kind, name, dict(zip(names, data, strict=True)), settings
    return None


def put_together(
    kind: str, name: str, named: dict[str, Any], settings: dict[str, Any]
) -> Any:
    """The inverse of `taken_apart`.

    **Raises:** `ValueError` for what this version of numpyro does not know.
    """
    cls = _class(kind, name)
    if cls is None:
        raise ValueError(f"numpyro has no {name} here")
    if kind != "distribution":
        return cls.tree_unflatten((tuple(named), settings), tuple(named.values()))
    data, aux = cls.gather_pytree_data_fields(), cls.gather_pytree_aux_fields()
    if {*data, *aux} != set(named):
        raise ValueError(
            f"{name} has the fields {sorted({*data, *aux})} here, and the file has "
            f"{sorted(named)}: another numpyro wrote it"
        )
    parts = (tuple(named[name] for name in names) for names in (aux, data))
    return cls.tree_unflatten(*parts)


def _class(kind: str, name: str) -> Any:
    module, base = KINDS[kind]
    cls = getattr(module, name, None)
    return cls if isinstance(cls, type) and issubclass(cls, base) else None
