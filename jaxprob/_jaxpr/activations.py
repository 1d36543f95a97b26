"""Outputs of the parts of a model while the whole is called."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.extend.core import Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir

# Gives what it is given, under a name that is found again in the program. (The marks of
# `jax.ad_checkpoint.checkpoint_name` leave a mapped axis wherever it happens to be.)
_mark = Primitive("jaxprob_mark")
_mark.def_impl(lambda x, *, name: x)
_mark.def_abstract_eval(lambda x, *, name: x)
mlir.register_lowering(_mark, lambda _, x, *, name: [x])


def _batch_mark(args, dims, *, name):
    return _mark.bind(jnp.moveaxis(args[0], dims[0], 0), name=name), 0


def _differentiate_mark(primals, tangents, *, name):
    return _mark.bind(*primals, name=name), tangents[0]


batching.primitive_batchers[_mark] = _batch_mark
ad.primitive_jvps[_mark] = _differentiate_mark


def record(parts: dict[str, Any], call: Callable[[dict[str, Any]], Any]) -> Any:
    """`call(heard parts)`, and what each part gave in it, by name.

    A tracer kept from inside of a model would be one of a `jax.vmap` in there, and dead
    outside. So outputs are only marked while the model is traced, and become outputs
    of its program: after the model's own `vmap` has been made a part of that program.
    """
    calls: dict[str, list[tuple[Any, Any]]] = {name: [] for name in parts}

    def tell(name, out):
        arrays, rest = eqx.partition(out, eqx.is_array)
        leaves, structure = jax.tree.flatten(arrays)
        number = len(calls[name])
        calls[name].append((structure, rest))
        marked = [
            _mark.bind(leaf, name=(name, number, i)) for i, leaf in enumerate(leaves)
        ]
        return eqx.combine(jax.tree.unflatten(structure, marked), rest)

    heard = {
        name: _heard(part, functools.partial(tell, name))
        for name, part in parts.items()
    }
    statics: list[Any] = []

    def program():
        arrays, static = eqx.partition(call(heard), eqx.is_array)
        statics.append(static)
        return arrays

    closed, shapes = jax.make_jaxpr(program, return_shape=True)()
    marks = {
        equation.params["name"]: equation.outvars[0]
        for equation in closed.jaxpr.eqns
        if equation.primitive is _mark
    }
    wanted = []
    for name, made in calls.items():
        if not made:
            raise ValueError(f"{name} is not called in this call of the model")
        for number, (structure, _) in enumerate(made):
            wanted += [(name, number, i) for i in range(structure.num_leaves)]
    for mark in wanted:
        if mark not in marks:
            raise ValueError(
                f"{mark[0]} is called inside a loop or a compiled part of "
                "the model (lax.scan, lax.cond, jax.jit), whose inner values do not "
                "come out: have the model return them"
            )
    jaxpr = closed.jaxpr.replace(
        outvars=[*closed.jaxpr.outvars, *(marks[mark] for mark in wanted)]
    )
    values = jaxpr_as_fun(closed.replace(jaxpr=jaxpr))()
    num = len(jax.tree.leaves(shapes))
    out = jax.tree.unflatten(jax.tree.structure(shapes), values[:num])
    given = dict(zip(wanted, values[num:], strict=True))
    inner = {
        name: [
            eqx.combine(
                jax.tree.unflatten(
                    structure,
                    [given[name, n, i] for i in range(structure.num_leaves)],
                ),
                rest,
            )
            for n, (structure, rest) in enumerate(made)
        ]
        for name, made in calls.items()
    }
    return eqx.combine(out, statics[0]), inner


def _heard(part, tell):
    """The part, which notes its outputs; a module stays one of its class."""
    if not isinstance(part, eqx.Module):
        return lambda *args, **kwargs: tell(part(*args, **kwargs))
    new = object.__new__(_heard_class(type(part)))
    for field in dataclasses.fields(part):
        if hasattr(part, field.name):
            object.__setattr__(new, field.name, getattr(part, field.name))
    object.__setattr__(new, "tell", tell)
    return new


@functools.cache
def _heard_class(kind):
    def call(self, *args, **kwargs):
        return self.tell(kind.__call__(self, *args, **kwargs))

    tell = eqx.field(static=True, default=None)
    body = {
        "__annotations__": {"tell": Any},
        "__call__": call,
        "__init__": kind.__init__,
        "__module__": kind.__module__,
        "tell": tell,
    }
    return type(kind)(kind.__name__, (kind,), body)
