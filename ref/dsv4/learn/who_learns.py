"""Which parameters learn, and which of them from a loss of their own."""

from dsv4.parameters import Parameter


def has_gradient(parameter: Parameter) -> bool:
    """Whether a loss can move a parameter: all but the routing bias, which balances load by a rule of its own
    (`dsv4.learn.losses.balance`), and the table of the hash layers, whose numbers are experts."""
    return parameter.format != "i64" and not parameter.name.endswith("gate.bias")


def is_indexer(name: str) -> bool:
    """Whether a parameter belongs to a lightning indexer: alone in the warm-up, and absent from the dense stage."""
    return ".indexer." in name
