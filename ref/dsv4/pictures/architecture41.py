"""What DeepSeek-V4.1's text path is made of: the parts that its architecture picture shows (V4.1's report §2).

As `dsv4.pictures.architecture` for V4, from which it takes what is alike; `architecture41_plan` draws the picture.
"""

from dataclasses import replace

from dsv4.pictures.architecture import BOXES, Box

V41_PAGE = "v41.md"

CHANGED: dict[str, Box] = {
    "tokens": replace(BOXES["tokens"], feeds=("embedding", "hash")),
    "embedding": replace(BOXES["embedding"], file="ref/dsv4/model41/model.py", feeds=("engram",)),
    "hash": Box(
        "n-gram hashes",
        "ref/dsv4/ops/engram.py",
        "plain",
        "The classes of a token and of the one, two or three before it are hashed, eight times for each length.",
        V41_PAGE,
        ("rows",),
    ),
    "rows": Box(
        "rows of a table",
        "ref/dsv4/model41/engram.py",
        "plain",
        "The 24 rows that the hashes name; they make a value, and a key for each stream.",
        V41_PAGE,
        ("engram",),
    ),
    "engram": Box(
        "Engram",
        "ref/dsv4/model41/engram.py",
        "stream",
        "The value is added to each stream by as much as the stream's key resembles it; in two layers only.",
        V41_PAGE,
        ("attention read",),
    ),
    "attention read": replace(
        BOXES["attention read"],
        file="ref/dsv4/model41/block.py",
        says="A weighted sum of the n streams, with weights from the sub-layer before; it makes those of the next.",
        page=V41_PAGE,
        feeds=("attention norm", "attention write", "experts read"),
    ),
    "window keys": replace(BOXES["window keys"], file="ref/dsv4/model41/attention.py"),
    "query latent": replace(BOXES["query latent"], file="ref/dsv4/model41/attention.py"),
    "compressor": Box(
        "compressor",
        "ref/dsv4/model41/source.py",
        "plain",
        "In Full layers alone: a latent of each two tokens, or of each token, becomes an entry and an index key.",
        V41_PAGE,
        ("index keys", "entries"),
    ),
    "index queries": replace(
        BOXES["index queries"],
        file="ref/dsv4/model41/indexer.py",
        says="Small queries of the indexer's own heads, from the query latent; in Full and Reindex layers.",
        page=V41_PAGE,
    ),
    "top-k": replace(
        BOXES["top-k"],
        file="ref/dsv4/ops/candidates.py",
        says="A score for each entry, or for each in the pool; the k entries with the highest ones are read.",
        page=V41_PAGE,
    ),
    "index keys": Box(
        "its keys",
        "ref/dsv4/model41/source.py",
        "csa",
        "One small key for each entry, from the same latent before it is turned and rounded; shared like the entries.",
        V41_PAGE,
        ("top-k", "pool"),
    ),
    "pool": Box(
        "pool",
        "ref/dsv4/ops/candidates.py",
        "csa",
        "For each query, the blocks of entries that score best in layer 20; later layers choose among these.",
        V41_PAGE,
        ("top-k",),
    ),
    "queries": replace(
        BOXES["queries"],
        file="ref/dsv4/model41/attention.py",
        says="One query for each head, without a norm of its own.",
    ),
    "entries": Box(
        "entries",
        "ref/dsv4/model41/cache.py",
        "plain",
        "Keys, which are also the values, of the latest layer that made any; those that were chosen last are read.",
        V41_PAGE,
        ("softmax",),
    ),
    "experts read": replace(
        BOXES["experts read"],
        file="ref/dsv4/model41/block.py",
        says="A weighted sum of the n streams, with the weights that attention's read has made.",
        page=V41_PAGE,
        feeds=("experts norm", "experts write", "head"),
    ),
    "gate": replace(
        BOXES["gate"],
        file="ref/dsv4/model41/moe.py",
        says="Chooses the few experts with the highest scores, in every layer.",
    ),
    "routed experts": replace(BOXES["routed experts"], file="ref/dsv4/ops/moe41.py"),
    "shared expert": replace(BOXES["shared expert"], file="ref/dsv4/ops/moe41.py"),
    "experts write": replace(BOXES["experts write"], feeds=("head", "stages")),
    "head": replace(
        BOXES["head"],
        file="ref/dsv4/model41/model.py",
        says="The streams are summed with the last weights that were made, normalised, and projected to the logits.",
        page=V41_PAGE,
    ),
    "next token": replace(BOXES["next token"], feeds=("stages",)),
    "stages": Box(
        "DSpark stages",
        "ref/dsv4/model41/dspark.py",
        "plain",
        "Three more blocks with few experts: from what three layers were given, guesses of the next five tokens.",
        "concepts/dspark.md",
        ("drafts",),
    ),
    "drafts": replace(BOXES["drafts"], says="Tokens that the stages guess; the model then checks them in one pass."),
}
"""The boxes that V4 does not have, or has otherwise."""

ORDER = (
    *("tokens", "embedding", "hash", "rows", "engram", "attention read", "attention norm", "window keys"),
    *("query latent", "compressor", "index queries", "top-k", "index keys", "pool", "queries", "entries", "sink"),
    *("softmax", "inverse RoPE", "output", "attention write", "experts read", "experts norm", "gate"),
    *("routed experts", "shared expert", "experts write", "head", "next token", "stages", "drafts"),
)

BOXES41: dict[str, Box] = {name: CHANGED.get(name) or BOXES[name] for name in ORDER}
"""Every box by a name of its own, in the order of the pass."""
