"""What is counted, in the form that Prometheus reads."""

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from dsv4.serve.engine import Engine

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        """All at 0."""
        self._registry = registry = CollectorRegistry()
        self.requests = Counter("dsv4_requests", "Requests, by path and status.", ["path", "status"], registry=registry)
        self.duration = Histogram("dsv4_request_seconds", "From the head of a request to the end of its answer.",
                                  ["path"], buckets=SECONDS, registry=registry)  # fmt: skip
        self.first_token = Histogram("dsv4_first_token_seconds", "From a job's submission to its first token.",
                                     buckets=SECONDS, registry=registry)  # fmt: skip
        self.tokens = Counter("dsv4_tokens", "Tokens of requests, by kind.", ["kind"], registry=registry)

    def page(self, engine: Engine) -> bytes:
        """All counters and the engine's figures as text."""
        figures = CollectorRegistry()
        figures.register(_Figures(engine))
        text: bytes = generate_latest(self._registry) + generate_latest(figures)
        return text


class _Figures(Collector):
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> list[GaugeMetricFamily]:
        found = []
        for name, value in vars(self._engine.figures()).items():
            by_kind = value if isinstance(value, dict) else {}
            family = GaugeMetricFamily(
                f"dsv4_engine_{name}", f"The engine's {name}.", labels=["kind"] if by_kind else []
            )
            for kind, count in by_kind.items() or [(None, value)]:
                family.add_metric([kind] if kind else [], count)
            found.append(family)
        return found
