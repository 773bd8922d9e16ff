"""Weights that change: where they come from, how a model on a tape reads them, and how they become a checkpoint."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn, Self

import numpy as np
import numpy.typing as npt

from dsv4.arguments import integer, number
from dsv4.checkpoint import write_checkpoint
from dsv4.config import Config
from dsv4.errors import CheckpointError, SettingError, quoted
from dsv4.learn.initial import initial_values
from dsv4.learn.tape import DerivedOps, Node, TapeOps, Tensor, checkpointed
from dsv4.learn.vjp import VJPS
from dsv4.learn.who_learns import has_gradient
from dsv4.model.block import Block
from dsv4.model.cache import Cache, LayerState
from dsv4.model.model import Model
from dsv4.model.observe import Observer, ignore
from dsv4.model.span import Span
from dsv4.model.weights import Source
from dsv4.ops.quantise import dequantise
from dsv4.ops.types import Array, Ints
from dsv4.parameters import Parameter, parameters


@dataclass
class Trainable:
    """The weights of a model as arrays in memory, by official name. A `Source` of any backend's model.

    parameters: what learns, float arrays; an optimiser may write into them or put others in their place. others: what
    has no gradient: the routers' biases, float, and tid2eid, integers.
    """

    config: Config
    parameters: dict[str, Array]
    others: dict[str, npt.NDArray[Any]]
    directory: Path = field(default=Path("weights in memory"))

    @classmethod
    def of(cls, source: Source, dtype: npt.DTypeLike = np.float32) -> Self:
        """Copies of the weights of a source, such as `dsv4.Checkpoint`, as floats; packed ones are unpacked.

        dtype: float32 or float64. MTP layers are there where the source has them. Raises CheckpointError as the source
        does, for a weight that is missing or holds what it must not.
        """
        found: dict[str, npt.NDArray[Any]] = {}
        for name, parameter in parameters(source.config, include_mtp=source.has_mtp).items():
            source.check_values(name)
            weight = source.weight(name)
            found[name] = np.array(weight if parameter.format == "i64" else dequantise(weight, dtype))
        return cls.from_arrays(source.config, found, source.directory)

    @classmethod
    def from_arrays(cls, config: Config, arrays: Mapping[str, npt.NDArray[Any]], directory: Path | None = None) -> Self:
        """The arrays, all parameters of the configuration by official name, MTP layers all or none.

        Raises CheckpointError for a name that is missing or no parameter's, and for another shape.
        """
        has_mtp = any(name.startswith("mtp.") for name in arrays)
        config = _of_floats(config if has_mtp else config.without_draft_layers())
        table = parameters(config)
        weights = cls(config, {}, {}, *([directory] if directory else []))
        for name in sorted(table.keys() | arrays.keys()):
            _check(table.get(name), arrays.get(name), f"{weights.directory}: tensor {quoted(name)}")
        for name, array in arrays.items():
            (weights.parameters if has_gradient(table[name]) else weights.others)[name] = array
        return weights

    @property
    def nbytes(self) -> int:
        """Of all weights."""
        return sum(array.nbytes for _, array in self.items())

    @property
    def has_mtp(self) -> bool:
        """Whether there are weights of draft layers."""
        return self.config.draft_layers > 0

    def weight(self, name: str) -> npt.NDArray[Any]:
        """The array of this name as it is now."""
        if name not in self.parameters and name not in self.others:
            raise CheckpointError(f"{self.directory}: expected tensor {quoted(name)}, found none of this name")
        return self.parameters[name] if name in self.parameters else self.others[name]

    def check_values(self, name: str) -> None:
        """Raises CheckpointError if it is missing or holds a NaN or an infinity."""
        if not np.isfinite(self.weight(name)).all():
            raise CheckpointError(f"{self.directory}: tensor {quoted(name)}: expected finite numbers, found others")

    def items(self) -> Iterator[tuple[str, npt.NDArray[Any]]]:
        """All weights in the order of a checkpoint."""
        return ((name, self.weight(name)) for name in parameters(self.config))

    def save(self, directory: str | Path, overwrite: bool = False, **settings: Any) -> None:
        """Write them as an ordinary checkpoint in float32, under official names; settings: of `write_checkpoint`.

        Raises CheckpointError where the target is in the way or cannot be written to.
        """
        stored = (
            (name, array if array.dtype.kind == "i" else array.astype(np.float32)) for name, array in self.items()
        )
        write_checkpoint(directory, self.config, stored, overwrite=overwrite, **settings)


class TrainableModel(Model):
    """A model on a tape whose weights may change between two calls.

    Its weights are leaves that look up their array in `weights` whenever it is needed. So a step of an optimiser,
    which writes into the arrays of `weights.parameters` or replaces them, is all that has to happen between two calls:
    the model itself is made once. Calls give Tensors, and so does `observe`, but for integers. Several threads may call
    one model at once, each for its part of a batch.
    """

    def __init__(
        self, weights: Trainable, ops: TapeOps | None = None, fake_quant: bool = False, recomputes: bool = False
    ) -> None:
        """ops: unless said, operations with gradients derived by hand; with `TapeOps` every line of the reference is
        differentiated by itself, which takes three times as long. fake_quant: as of `Model`; the gradient goes straight
        through. recomputes: whether layers are computed a second time in the sweep, instead of being kept in memory
        until then; such a model takes no cache. Activations have the dtype of the weights.
        """
        self.weights = weights
        self.leaves = {name: Leaf(weights, name, Node()) for name in weights.parameters}
        """What gradients are asked of, by official name."""
        source = _Leaves(weights, self.leaves)
        super().__init__(source, ops or DerivedOps(VJPS), fake_quant, next(iter(weights.parameters.values())).dtype)
        self.recomputes = recomputes
        if recomputes:
            self.layers = [RecomputedBlock(block) for block in self.layers]

    @classmethod
    def of(cls, model: Model) -> "TrainableModel":
        """A model to be trained, from any: the same weights as floats of the model's dtype, copied."""
        if isinstance(model, cls):
            return model
        return cls(Trainable.of(model.checkpoint, model.dtype), fake_quant=model.rounds)

    def states(
        self,
        ids: npt.ArrayLike,
        cache: Cache | None = None,
        mask: npt.ArrayLike | None = None,
        observe: Observer = ignore,
    ) -> Array:
        """As of `Model`. Raises SettingError for a cache where layers are computed again: it would stay empty."""
        if self.recomputes and cache is not None:
            raise SettingError("cache: expected none for a model that computes its layers again, found one")
        return super().states(ids, cache, mask, observe)

    @property
    def parameters(self) -> dict[str, Array]:
        """What learns, by official name: the very dictionary of `weights`."""
        return self.weights.parameters

    def save(self, directory: str | Path, overwrite: bool = False, **settings: Any) -> None:
        """Write the weights as they are now; see `Trainable.save`."""
        self.weights.save(directory, overwrite, **settings)


class RecomputedBlock(Block):
    """A layer whose graph is not kept: the sweep computes it again. One that somebody looks into is kept, though."""

    def __init__(self, block: Block) -> None:
        """block: the layer that this one is."""
        vars(self).update(vars(block))

    def __call__(self, streams: Any, ids: Ints, span: Span, cache: LayerState, observe: Observer) -> Any:
        """As of `Block`, for sequences from position 0; the cache stays as it is."""
        if observe is not ignore:
            return super().__call__(streams, ids, span, cache, observe)

        def layer(streams: Any) -> Any:
            empty = self.new_cache(len(ids), 0, streams.dtype)
            return Block.__call__(self, streams, ids, span, empty, ignore)

        return checkpointed(layer, streams)


class Leaf(Tensor):
    """A weight on the tape; its numbers are those that it has now."""

    __slots__ = ("name", "weights")

    def __init__(self, weights: Trainable, name: str, node: Node | None) -> None:
        """node: None for what has no gradient."""
        self.weights, self.name, self.node = weights, name, node

    @property
    def data(self) -> Array:
        """The array of this name in `weights`."""
        return self.weights.weight(self.name)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Leaf":
        """A leaf of the copied weights, with a place of its own."""
        return Leaf(deepcopy(self.weights, memo), self.name, None if self.node is None else Node())

    def __setitem__(self, index: Any, values: Any) -> NoReturn:
        raise TypeError(f"{self.name}: a weight is not assigned to on the tape, but in the arrays of the parameters")


@dataclass(frozen=True)
class _Leaves:
    """The weights as a model on a tape takes them."""

    weights: Trainable
    leaves: dict[str, Leaf]

    config = property(lambda self: self.weights.config)
    directory = property(lambda self: self.weights.directory)
    nbytes = property(lambda self: self.weights.nbytes)
    has_mtp = property(lambda self: self.weights.has_mtp)

    def weight(self, name: str) -> Any:
        """What learns as its leaf; a router's bias looked up anew each time, too; a table as it is."""
        if name in self.leaves:
            return self.leaves[name]
        array = self.weights.weight(name)
        return array if array.dtype.kind == "i" else Leaf(self.weights, name, None)

    def check_values(self, name: str) -> None:
        """As in `Trainable`."""
        self.weights.check_values(name)


def new_model(
    config: Config, seed: int = 0, hc_scale: float = 0.01, ops: TapeOps | None = None, dtype: npt.DTypeLike = np.float32
) -> TrainableModel:
    """A model with random weights, ready to be trained.

    seed: the same one gives the same weights; hc_scale: what the gating factors of the hyper-connections start at;
    `dsv4.learn.initial` says how the others start. ops: as for `TrainableModel`; dtype: float32 or float64. The weights
    are not quantised, whatever the configuration says of released files. Raises SettingError for a seed that is no
    integer of at least 0 and an hc_scale that is no number.
    """
    values = initial_values(config, integer("seed", seed), number("hc_scale", hc_scale))
    arrays = {name: value if value.dtype.kind == "i" else value.astype(dtype) for name, value in values.items()}
    return TrainableModel(Trainable.from_arrays(config, arrays), ops)


def _check(parameter: Parameter | None, array: npt.NDArray[Any] | None, where: str) -> None:
    """Raise CheckpointError unless the array is one for the parameter; None is one that is not there."""
    kind = "integers" if parameter and parameter.format == "i64" else "floats"
    expected = f"{kind} {parameter.shape}" if parameter else "none of this name"
    found = "none" if array is None else f"{array.dtype} {array.shape}"
    if parameter is None or array is None or array.shape != parameter.shape or array.dtype.kind != kind[0]:
        raise CheckpointError(f"{where}: expected {expected}, found {found}")


def _of_floats(config: Config) -> Config:
    return replace(config, quantised=False, torch_dtype="float32")
