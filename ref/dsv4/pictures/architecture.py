"""What DeepSeek-V4 is made of: every part that the architecture picture shows, its file, and what it feeds (report §2).

`architecture_plan` says where each part stands and draws the picture.
"""

from dataclasses import dataclass

from dsv4.pictures.svg import Hue


@dataclass(frozen=True)
class Box:
    """One part of the model.

    name: as the picture shows it; file: where it is computed, relative to the repository; says: one sentence on what
    it does; page: the page of docs/ that explains it; feeds: the parts that take its result.
    """

    name: str
    file: str
    hue: Hue
    says: str
    page: str
    feeds: tuple[str, ...] = ()


BOXES: dict[str, Box] = {
    "tokens": Box(
        "tokens",
        "ref/dsv4/text/tokenizer.py",
        "plain",
        "The text as token ids.",
        "concepts/chat-format.md",
        ("embedding",),
    ),
    "embedding": Box(
        "embedding",
        "ref/dsv4/model/model.py",
        "plain",
        "One vector for each token, repeated for each of the n streams.",
        "concepts/hyper-connections.md",
        ("attention read",),
    ),
    "attention read": Box(
        "mHC read",
        "ref/dsv4/ops/mhc.py",
        "stream",
        "A weighted sum of the n streams, with weights that the streams decide.",
        "concepts/hyper-connections.md",
        ("attention norm", "attention write"),
    ),
    "attention norm": Box(
        "RMSNorm",
        "ref/dsv4/ops/norm.py",
        "plain",
        "What attention reads is normalised.",
        "concepts/hyper-connections.md",
        ("window keys", "query latent", "compressor"),
    ),
    "window keys": Box(
        "window keys",
        "ref/dsv4/model/attention.py",
        "window",
        "One key for each token, shared by all heads, normalised and turned by RoPE; it is the value, too.",
        "concepts/rope-windows-sinks.md",
        ("softmax",),
    ),
    "query latent": Box(
        "query latent",
        "ref/dsv4/model/attention.py",
        "plain",
        "A narrow vector from which all queries are made, those of the indexer as well.",
        "concepts/indexer.md",
        ("queries", "index queries"),
    ),
    "compressor": Box(
        "compressor",
        "ref/dsv4/ops/compressor.py",
        "plain",
        "A softmax over runs of tokens, channel by channel, makes one entry of each run.",
        "concepts/csa.md",
        ("index keys", "entries"),
    ),
    "index queries": Box(
        "its queries",
        "ref/dsv4/model/indexer.py",
        "csa",
        "Small queries of the indexer's own heads, from the query latent.",
        "concepts/indexer.md",
        ("top-k",),
    ),
    "top-k": Box(
        "top-k",
        "ref/dsv4/ops/indexer.py",
        "csa",
        "A score for each entry; the k entries with the highest ones are read.",
        "concepts/indexer.md",
        ("entries",),
    ),
    "index keys": Box(
        "its keys",
        "ref/dsv4/model/indexer.py",
        "csa",
        "One small key for each entry, from a compressor of the indexer's own.",
        "concepts/indexer.md",
        ("top-k",),
    ),
    "queries": Box(
        "queries, RoPE",
        "ref/dsv4/model/attention.py",
        "plain",
        "One query for each head, turned by RoPE.",
        "concepts/rope-windows-sinks.md",
        ("softmax",),
    ),
    "entries": Box(
        "entries",
        "ref/dsv4/model/cache.py",
        "plain",
        "One key, which is also the value, for each run of tokens: 8 in CSA with a step of 4, 128 in HCA.",
        "concepts/hca.md",
        ("softmax",),
    ),
    "sink": Box(
        "sink",
        "ref/dsv4/ops/attention.py",
        "sink",
        "A learnt logit of each head that takes a share of the softmax and gives no value.",
        "concepts/rope-windows-sinks.md",
        ("softmax",),
    ),
    "softmax": Box(
        "joint softmax",
        "ref/dsv4/ops/attention.py",
        "plain",
        "Window keys, entries and the sink compete in one softmax; its weights sum the values.",
        "concepts/rope-windows-sinks.md",
        ("inverse RoPE",),
    ),
    "inverse RoPE": Box(
        "inverse RoPE",
        "ref/dsv4/ops/rope.py",
        "plain",
        "The values were turned by their positions; the output is turned back by the query's.",
        "concepts/rope-windows-sinks.md",
        ("output",),
    ),
    "output": Box(
        "grouped output projection",
        "ref/dsv4/ops/linear.py",
        "plain",
        "Each group of heads is projected by itself to a few channels, then all together to the model's width.",
        "concepts/rope-windows-sinks.md",
        ("attention write",),
    ),
    "attention write": Box(
        "mHC write",
        "ref/dsv4/ops/mhc.py",
        "stream",
        "The streams are mixed with each other, and each takes the answer with a weight of its own.",
        "concepts/hyper-connections.md",
        ("experts read",),
    ),
    "experts read": Box(
        "mHC read",
        "ref/dsv4/ops/mhc.py",
        "stream",
        "A weighted sum of the n streams, as before attention, with other weights.",
        "concepts/hyper-connections.md",
        ("experts norm", "experts write"),
    ),
    "experts norm": Box(
        "RMSNorm",
        "ref/dsv4/ops/norm.py",
        "plain",
        "What the experts read is normalised.",
        "concepts/hyper-connections.md",
        ("gate", "routed experts", "shared expert"),
    ),
    "gate": Box(
        "gate",
        "ref/dsv4/model/moe.py",
        "expert",
        "Chooses a few experts: by a table of token ids in the first layers, by the highest scores in the others.",
        "concepts/experts.md",
        ("routed experts",),
    ),
    "routed experts": Box(
        "routed experts",
        "ref/dsv4/ops/moe.py",
        "expert",
        "The chosen experts answer, each weighted by the gate.",
        "concepts/experts.md",
        ("experts write",),
    ),
    "shared expert": Box(
        "shared expert",
        "ref/dsv4/ops/moe.py",
        "expert",
        "One expert that answers every token.",
        "concepts/experts.md",
        ("experts write",),
    ),
    "experts write": Box(
        "mHC write",
        "ref/dsv4/ops/mhc.py",
        "stream",
        "As after attention; the streams then go to the next block, or to the head.",
        "concepts/hyper-connections.md",
        ("head", "mtp"),
    ),
    "head": Box(
        "head",
        "ref/dsv4/model/block.py",
        "stream",
        "The streams are summed with weights, normalised, and projected to a logit for each token of the vocabulary.",
        "concepts/hyper-connections.md",
        ("next token",),
    ),
    "next token": Box(
        "next token",
        "ref/dsv4/text/sampling.py",
        "stream",
        "Drawn from the softmax of the logits.",
        "concepts/mtp.md",
        ("mtp",),
    ),
    "mtp": Box(
        "MTP module",
        "ref/dsv4/model/mtp.py",
        "plain",
        "One more block: from the streams and the token that follows, the logits of the token after that.",
        "concepts/mtp.md",
        ("drafts",),
    ),
    "drafts": Box(
        "drafts",
        "ref/dsv4/text/drafts.py",
        "plain",
        "Tokens that the MTP module guesses; the model then checks several of them in one pass.",
        "concepts/mtp.md",
    ),
}
"""Every box by a name of its own, in the order of the pass."""

EDGES: tuple[tuple[str, str], ...] = tuple((name, other) for name, box in BOXES.items() for other in box.feeds)
"""What feeds what: (from, to)."""
