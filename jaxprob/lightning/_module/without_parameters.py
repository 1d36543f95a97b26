"""Methods of torch and Lightning on torch parameters, of which a module has none.

Each of these methods would silently do nothing. Those that have a meaning for a JAX
model are carried out elsewhere (`forward`, `freeze`); the others raise an error that
names what to write instead.
"""

from collections.abc import Iterator
from typing import Any, NoReturn

import equinox as eqx
import jax
import pytorch_lightning as pl
import torch

from .._trainer.packages import check_package, check_trainer, warn_of_other_package

_MANUAL = (
    "the gradient is taken inside the compiled step: change the loss, or give the "
    "learner an optax transformation"
)
_EXPORT = (
    "there is no torch graph: export the function of module.model with jax.export, or "
    "its weights with jaxprob.lightning.export_safetensors(module, path)"
)


class WithoutParameters(pl.LightningModule):
    """Base class of `LearnerModule`: rejects methods that would do nothing."""

    _engine: Any

    def __init__(self):
        super().__init__()
        check_package(self)
        warn_of_other_package()

    @property
    def trainer(self) -> Any:
        return pl.LightningModule.trainer.fget(self)  # pyright: ignore

    @trainer.setter
    def trainer(self, trainer: Any) -> None:
        if trainer is not None:
            check_trainer(trainer)
        pl.LightningModule.trainer.fset(self, trainer)  # pyright: ignore

    # Parameters.

    def named_parameters(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """Return those of torch modules that a subclass holds.

        **Raises:** `TypeError` if there are none: the weights are in `module.model`.
        """
        own = list(super().named_parameters(*args, **kwargs))
        if not own:
            _reject(
                self,
                "parameters()",
                "its weights are no torch parameters, and have no .grad. They are "
                "jax.tree.leaves(equinox.filter(module.model, equinox.is_array)), and "
                "the gradient of a batch is module.gradient(batch), its norm "
                "optax.tree.norm(module.gradient(batch)). Histograms: the callback "
                "jaxprob.lightning.ParameterHistograms()",
            )
        return iter(own)

    def requires_grad_(self, requires_grad: bool = True) -> Any:
        if not requires_grad:
            _reject(
                self,
                "requires_grad_(False)",
                "state in the learner what is trained, "
                "trainable=jaxprob.tree.freeze(model, 'layers.0')",
            )
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Do nothing: gradients do not outlive a step."""

    # Precision.

    def half(self) -> Any:
        return _in_dtype(self, "half()", torch.float16)

    def bfloat16(self) -> Any:
        return _in_dtype(self, "bfloat16()", torch.bfloat16)

    def float(self) -> Any:
        return _in_dtype(self, "float()", torch.float32)

    def double(self) -> Any:
        return _in_dtype(self, "double()", torch.float64)

    def type(self, dst_type: Any) -> Any:
        return _in_dtype(self, f"type({dst_type})", dst_type)

    def to(self, *args: Any, **kwargs: Any) -> Any:
        for argument in (*args, *kwargs.values()):
            # `to` takes the dtype of a tensor as well.
            is_tensor = isinstance(argument, torch.Tensor)
            dtype = argument.dtype if is_tensor else argument
            if isinstance(dtype, torch.dtype):
                _in_dtype(self, f"to({dtype})", dtype)
        return super().to(*args, **kwargs)

    # Manual optimisation.

    def manual_backward(self, loss: Any, *args: Any, **kwargs: Any) -> None:
        _reject(self, "manual_backward", _MANUAL)

    def backward(self, loss: Any, *args: Any, **kwargs: Any) -> None:
        _reject(self, "backward", _MANUAL)

    def toggle_optimizer(self, optimizer: Any) -> None:
        _reject(
            self,
            "toggle_optimizer",
            "give the learner trainable=..., or an optimiser with optax.partition",
        )

    def untoggle_optimizer(self, optimizer: Any) -> None:
        self.toggle_optimizer(optimizer)

    def toggled_optimizer(self, optimizer: Any) -> Any:
        self.toggle_optimizer(optimizer)

    def clip_gradients(self, *args: Any, **kwargs: Any) -> None:
        _reject(
            self,
            "clip_gradients",
            "write Trainer(gradient_clip_val=1.0), or optax.clip_by_global_norm in "
            "the optimiser",
        )

    # Export.

    def to_onnx(self, *args: Any, **kwargs: Any) -> Any:
        _reject(self, "to_onnx", _EXPORT)

    def to_torchscript(self, *args: Any, **kwargs: Any) -> Any:
        _reject(self, "to_torchscript", _EXPORT)

    def to_tensorrt(self, *args: Any, **kwargs: Any) -> Any:
        _reject(self, "to_tensorrt", _EXPORT)


def _in_dtype(module, call, dtype):
    """Return the module itself, if its model has that dtype already."""
    leaves = jax.tree.leaves(eqx.filter(module._engine.run.state, eqx.is_inexact_array))
    other = {leaf.dtype.name for leaf in leaves} - {str(dtype).split(".")[-1]}
    if other:
        _reject(
            module,
            call,
            f"its weights are {', '.join(sorted(other))} and are cast by the "
            "Trainer, Trainer(precision='bf16-true') or 'bf16-mixed', or before "
            "the module is made, by jax.tree.map over the model's arrays",
        )
    return module


def _reject(module, call, remedy) -> NoReturn:
    # No AttributeError, which torch would take for a name that is missing.
    raise TypeError(f"{type(module).__name__}.{call} has no effect here: {remedy}")
