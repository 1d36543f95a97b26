"""Checkpoints, copies and pickles of a module."""

from collections.abc import Mapping
from typing import Any, ClassVar

from ..._random.keys import is_key
from .._checkpoint.checkpoint_io import verified_source
from .._checkpoint.description import rebuilt_arguments
from .._loop.engine import Engine
from .._loop.module_tensors import load_module_tensors, module_tensors
from .._loop.picklable_keys import is_key_numbers, with_keys, without_keys
from .without_parameters import WithoutParameters


class StoredModule(WithoutParameters):
    """Base class of `LearnerModule`: its state as Lightning stores and loads it."""

    argument_names: ClassVar[dict[str, str]] = {}
    """Names of `learner` and `model` in the constructor of a subclass."""

    _engine: Engine

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args, **kwargs) -> Any:
        """Build the module from a checkpoint, after the file has been verified.

        A checkpoint holds the arguments of the module, and builds it again:
        `load_from_checkpoint(path)` where all classes of the model are from jaxprob or
        Equinox. The optimiser and functions that you wrote are in no file. The module
        predicts without them; to train, give `learner=...`. Models of other classes are
        given, `learner=..., model=...`, and compared with the checkpoint. A class that
        called `self.save_hyperparameters()` is built from those.

        **Arguments:** as Lightning's; `checkpoint_path` may be a path, a URL or a file
        that is open.

        **Raises:** as reading a checkpoint anywhere else: `CheckpointCorruptError`,
        `CheckpointContentError`.
        """
        checkpoint_path, checkpoint = verified_source(checkpoint_path, *args, **kwargs)
        kwargs |= rebuilt_arguments(cls, checkpoint, cls.argument_names, kwargs)
        return super().load_from_checkpoint(checkpoint_path, *args, **kwargs)

    def state_dict(self, *args, **kwargs) -> dict[str, Any]:
        """Return tensors by path; optax's state is apart, so that weights can go alone.

        Tensors that a subclass holds in torch (buffers, modules, metrics) are there as
        well.
        """
        tensors = module_tensors(self._engine)
        return {**tensors, **super().state_dict(*args, **kwargs)}

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Check every leaf by name, shape and dtype, and then replace all of them.

        Outside of a fit, parameters that are stored in another precision bring it with
        them: a checkpoint of `Trainer(precision="bf16-true")` needs no Trainer to load.

        The settings of the model are compared before, as the state dict describes them.

        **Raises:** `CheckpointMismatchError`, which names the settings or the leaves.
        """
        torchs = super().state_dict()
        missing, unexpected = load_module_tensors(
            self._engine, state_dict, strict, torchs
        )
        found = {name: state_dict[name] for name in torchs if name in state_dict}
        keys = super().load_state_dict(found, strict=False, assign=assign)
        return type(keys)(missing, unexpected)

    # Copies: `copy.deepcopy`, pickle, and sending a module to a process.

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes; keys as the integers that they consist of."""
        self._engine.dispatcher.settle()
        return _each_value(super().__getstate__(), is_key, without_keys)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(_each_value(state, is_key_numbers, with_keys))


def _each_value(state, chosen, change):
    return {k: change(v) if chosen(v) else v for k, v in state.items()}
