"""One layer of V4-Flash in full size: a checkpoint of random weights on disk, mapped into memory like any other."""

import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from dsv4.checkpoint import Checkpoint, Checkpoint41
from dsv4.checkpoint.random_weights import write_random
from dsv4.config import Config
from dsv4.config41 import Config41
from dsv4.errors import CheckpointError, DSV4Error, SettingError
from dsv4.model.cache import LayerCache
from dsv4.model.model import Model
from dsv4.model.rows import RecentRows
from dsv4.model.span import Span
from dsv4.ops import Ops
from dsv4.parameters import parameters
from dsv4.presets import preset
from dsv4_accel.bench.machine import available_bytes

LAYER = replace(
    preset("flash"),
    vocab_size=1024,
    num_hidden_layers=1,
    num_hash_layers=0,
    num_nextn_predict_layers=0,
    compress_ratios=(4,),
)
"""V4-Flash with a single layer, of the kind CSA and without a hash table, and a small vocabulary."""

DISTINCT = 2**14
"""So many entries of a filled cache differ; behind them they come again, since packing each takes long."""


class LargeLayer:
    """The checkpoint of one layer, made when first asked for and removed by `close` if its place is temporary."""

    def __init__(self, directory: Path | None = None, config: Config = LAYER) -> None:
        """directory: where it is or shall stay; None for a temporary place."""
        self._wanted, self.config = directory, config
        self._opened: Checkpoint | None = None
        self._resources = ExitStack()

    def model(self, ops: Ops) -> Model:
        """The layer as a model that rounds no activations. Raises SettingError where it cannot be written."""
        if self._opened is None:
            self._opened = self._open()
        return Model(self._opened, ops, fake_quant=False)

    def close(self) -> None:
        """Remove a temporary checkpoint."""
        self._opened = None
        self._resources.close()

    def _open(self) -> Checkpoint:
        directory = self._wanted
        if directory is None:
            temporary = self._resources.enter_context(tempfile.TemporaryDirectory(prefix="dsv4-layer-"))
            directory = Path(temporary) / "layer"
        if not directory.exists() or not any(directory.iterdir()):
            write_layer(directory, self.config)
        try:
            checkpoint = Checkpoint.open(directory)
            checkpoint.validate()
        except DSV4Error as error:
            raise SettingError(f"--layer-dir: {error}") from error
        if checkpoint.config != self.config:
            raise SettingError(f"--layer-dir: expected a layer that this bench has written, found {directory}")
        read_all(checkpoint)
        return checkpoint


def write_layer(directory: Path, config: Config | Config41) -> None:
    """Write the checkpoint of a configuration with random weights; it appears under its name when it is whole.

    Raises SettingError where the disk has no room for it, or the directory cannot be made.
    """
    try:
        write_random(directory, config, max_shard_bytes=2**29)
    except (CheckpointError, OSError) as error:
        raise SettingError(f"--layer-dir: {error}") from error


def filled_cache(
    model: Model, length: int, generator: np.random.Generator, packed: bool = False, batch: int = 1
) -> LayerCache:
    """A cache of the first layer with random numbers for all that sequences of `length` tokens leave there."""
    cache = model.layers[0].new_cache(batch, 0, model.dtype, packed)
    _fill_rows(model.ops, cache.window, length, generator)
    for part in (cache.compressor, cache.indexer):
        if part is not None:
            _fill_rows(model.ops, part.kv, length, generator)
            _fill_rows(model.ops, part.score, length, generator)
            count = length // part.ratio
            shape = batch, min(count, DISTINCT), part.entries.coding.channels
            distinct = generator.standard_normal(shape, np.float32)
            stored = model.ops.to_numpy(part.entries.coding.pack(model.ops.asarray(distinct)))
            part.entries.rows = model.ops.asarray(stored.take(np.arange(count) % DISTINCT, axis=1))
    return cache


def decode_bytes(model: Model, length: int, packed: bool = False, batch: int = 1) -> int:
    """The bytes that a token each of `batch` sequences must read at the least, in the one layer of a model.

    The layer's weights as they are stored, of the routed experts as many as tokens that choose evenly have together;
    the indexer's keys, the window and the chosen entries as the cache stores them, at a context of `length` tokens;
    the streams in and out, in float32.
    """
    config, entries = model.config, length // 4
    unchosen = (1 - config.num_experts_per_tok / config.n_routed_experts) ** batch
    weights = 0.0
    for name, parameter in parameters(config).items():
        if name.startswith("layers."):
            weights += parameter.nbytes * (1 - unchosen if parameter.part == "routed experts" else 1)
    cache = model.layers[0].new_cache(1, 0, np.dtype(np.float32), packed)
    assert cache.indexer is not None
    rows = min(length, config.sliding_window) + min(entries, config.index_topk)
    of_cache = rows * cache.window.rows[0, 0].nbytes + entries * cache.indexer.entries.rows[0, 0].nbytes
    return round(weights) + batch * (int(of_cache) + 4 * 2 * config.hc_mult * config.hidden_size)


def _fill_rows(ops: Ops, rows: RecentRows, length: int, generator: np.random.Generator) -> None:
    capacity, width = rows.rows.shape[1], rows.coding.channels
    batch = len(rows.rows)
    span = Span(np.full(batch, length - capacity), np.full(batch, capacity), capacity, ops.asarray)
    rows.extend(ops.asarray(generator.standard_normal((batch, capacity, width), np.float32)), span)


def read_all(checkpoint: Checkpoint | Checkpoint41) -> None:
    """Read every byte once, so that it is in memory and not on disk when the time is taken.

    Raises SettingError where the memory is too small.
    """
    size = sum(entry.size for entry in checkpoint.entries.values())
    if size > available_bytes():
        raise SettingError(
            f"--layer-dir: expected {size / 1e9:.1f} GB of free memory to hold the layer, "
            f"found {available_bytes() / 1e9:.1f} GB"
        )
    for name in checkpoint.names:
        np.bitwise_or.reduce(checkpoint.tensor(name).reshape(-1).view(np.uint8), initial=0)
