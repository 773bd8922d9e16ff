"""Our own pair: what data parallel and Decoupled DiLoCo need between sites, every assumption named.

The blog on Decoupled DiLoCo has 198 against 0.84 Gbit/s for eight data centres, a ratio of 236. Its formula was not
found, and this is no claim to have it.
"""

from dataclasses import dataclass, replace

from dsv4.arguments import integer
from dsv4.learn.diloco.bandwidth.utilisation import Job, data_parallel, needed

BLOG_GIGABITS = (198.0, 0.84)
"""Data parallel and Decoupled DiLoCo with eight data centres, as the blog has them."""


@dataclass(frozen=True)
class Assumptions:
    """What our own pair rests on."""

    parameters: float = 12e9
    step_seconds: float = 1.0
    layers: int = 48
    target: float = 0.95
    """The compute utilisation to reach."""
    gradient_bits: float = 16.0
    """Of a gradient in data parallel training: bf16."""
    difference_bits: float = 4.0
    """Of an outer gradient."""
    inner_steps: int = 24
    fragments: int = 24
    delay: int = 2


class Pair:
    """Gbit/s that each of some sites must be able to send."""

    def __init__(self, sites: int, assumed: Assumptions) -> None:
        """sites: n, at least 2. A ring reduces: a site sends 2(n − 1)/n of all bits. Raises SettingError otherwise."""
        integer("sites", sites, least=2, most=10**6)
        share = 2 * (sites - 1) / sites
        ours = Job(
            assumed.parameters,
            assumed.step_seconds,
            share * assumed.difference_bits,
            assumed.layers,
            assumed.inner_steps,
            assumed.fragments,
            assumed.delay,
        )
        self.sites = sites
        self.decoupled = needed(ours, assumed.target)
        self.data_parallel = needed(replace(data_parallel(ours), bits=share * assumed.gradient_bits), assumed.target)

    @property
    def ratio(self) -> float:
        """How many times more data parallel needs."""
        return self.data_parallel / self.decoupled
