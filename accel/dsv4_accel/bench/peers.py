"""Other people's implementations of the same things, where they are installed."""

from collections.abc import Callable
from functools import cached_property
from typing import TypeVar

from dsv4.errors import BackendError
from dsv4_accel.bench import peer_cupy, peer_ggml, peer_torch, peer_transformers

Peer = TypeVar("Peer", peer_cupy.CuPy, peer_ggml.Ggml, peer_torch.Torch, peer_transformers.Transformers)


class Peers:
    """The peers, each imported when a case first asks for it, and None where it is not there.

    versions: of those that are there; missing: for the others, a line that says why. Both of those asked for so far.
    """

    def __init__(self, wanted: bool = True) -> None:
        self._wanted = wanted
        self.versions: dict[str, str] = {}
        self.missing: dict[str, str] = {}

    @cached_property
    def torch(self) -> peer_torch.Torch | None:
        """torch, for single operations."""
        return self._open("torch", peer_torch.open_peer)

    @cached_property
    def transformers(self) -> peer_transformers.Transformers | None:
        """transformers, for whole models."""
        return self._open("transformers", peer_transformers.open_peer)

    @cached_property
    def ggml(self) -> peer_ggml.Ggml | None:
        """ggml, for FP4 products."""
        return self._open("ggml", peer_ggml.open_peer)

    @cached_property
    def cupy(self) -> peer_cupy.CuPy | None:
        """CuPy, for operations on a GPU."""
        return self._open("CuPy", peer_cupy.open_peer)

    def _open(self, name: str, open_peer: Callable[[], Peer]) -> Peer | None:
        if not self._wanted:
            return None
        try:
            peer = open_peer()
        except BackendError as error:
            self.missing[name] = str(error)
            return None
        self.versions[name] = peer.version
        return peer
