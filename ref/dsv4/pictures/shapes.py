"""Every tensor's shape, in the order of the pass, with the weights that make it, for models of any size (report §2)."""

from dataclasses import dataclass

from dsv4.config import CSA_RATIO, HCA_RATIO, Config


@dataclass(frozen=True)
class Row:
    """One activation of the pass.

    name: what it is; shape: its axes, each a key of `dimensions`; weights: the parameters that make it, without the
    name of the layer; observed: the observer's name of it, without the name of the layer, where it has one.
    """

    name: str
    shape: tuple[str, ...]
    weights: tuple[str, ...] = ()
    observed: str = ""


@dataclass(frozen=True)
class Table:
    """The activations of one part of the model.

    place: where its weights are: "model", "mtp", or the kind of layer that has them, "any" for every layer.
    """

    title: str
    place: str
    says: str
    rows: tuple[Row, ...]


TABLES: tuple[Table, ...] = (
    Table(
        "Into the streams",
        "model",
        "[`Model`](../ref/dsv4/model/model.py): the embedding is repeated for each stream.",
        (
            Row("token ids", ("S",)),
            Row("embedding", ("S", "d"), ("embed.weight",)),
            Row("streams", ("S", "n", "d")),
        ),
    ),
    Table(
        "Hyper-connection",
        "any",
        "[`HyperConnection`](../ref/dsv4/model/block.py), around attention and, as `hc_ffn`, around the experts.",
        (
            Row("all mixing weights, raw", ("S", "(2+n)·n"), ("hc_attn_fn", "hc_attn_base", "hc_attn_scale")),
            Row("pre", ("S", "n"), observed="hc_attn.pre"),
            Row("post", ("S", "n"), observed="hc_attn.post"),
            Row("comb", ("S", "n", "n"), observed="hc_attn.comb"),
            Row("what the sub-layer reads", ("S", "d"), ("attn_norm.weight",)),
            Row("the streams after it", ("S", "n", "d"), observed="out"),
        ),
    ),
    Table(
        "Attention: queries and window keys",
        "any",
        "[`Attention`](../ref/dsv4/model/attention.py). Keys are the values, too, one for all heads.",
        (
            Row("query latent", ("S", "q"), ("attn.wq_a.weight", "attn.q_norm.weight")),
            Row("queries", ("S", "H", "c"), ("attn.wq_b.weight",), "attn.q"),
            Row("window keys", ("S", "c"), ("attn.wkv.weight", "attn.kv_norm.weight"), "attn.kv"),
        ),
    ),
    Table(
        "CSA: entries",
        "CSA",
        "[`Compressor`](../ref/dsv4/model/compressor.py), with twice the channels, since blocks overlap.",
        (
            Row("values", ("S", "2c"), ("attn.compressor.wkv.weight",)),
            Row("scores", ("S", "2c"), ("attn.compressor.wgate.weight", "attn.compressor.ape")),
            Row("slots of values and of scores", ("T", "2m", "c")),
            Row("entries", ("T", "c"), ("attn.compressor.norm.weight",), "attn.compressor.out"),
        ),
    ),
    Table(
        "CSA: the lightning indexer",
        "CSA",
        "[`Indexer`](../ref/dsv4/model/indexer.py), from the same query latent, with a compressor of its own.",
        (
            Row("queries", ("S", "Hᵢ", "cᵢ"), ("attn.indexer.wq_b.weight",)),
            Row("weights of the heads", ("S", "Hᵢ"), ("attn.indexer.weights_proj.weight",)),
            Row("values of the keys", ("S", "2cᵢ"), ("attn.indexer.compressor.wkv.weight",)),
            Row(
                "scores of the keys' slots",
                ("S", "2cᵢ"),
                ("attn.indexer.compressor.wgate.weight", "attn.indexer.compressor.ape"),
            ),
            Row("keys", ("T", "cᵢ"), ("attn.indexer.compressor.norm.weight",), observed="attn.indexer.compressor.out"),
            Row("scores of the entries", ("S", "T"), observed="attn.indexer.scores"),
            Row("chosen entries", ("S", "k"), observed="attn.indexer.topk"),
        ),
    ),
    Table(
        "HCA: entries",
        "HCA",
        "[`Compressor`](../ref/dsv4/model/compressor.py), without overlap and without an indexer.",
        (
            Row("values", ("S", "c"), ("attn.compressor.wkv.weight",)),
            Row("scores", ("S", "c"), ("attn.compressor.wgate.weight", "attn.compressor.ape")),
            Row("slots of values and of scores", ("T′", "m′", "c")),
            Row("entries", ("T′", "c"), ("attn.compressor.norm.weight",), "attn.compressor.out"),
        ),
    ),
    Table(
        "Attention: joint softmax and output",
        "any",
        "[`sparse_attention`](../ref/dsv4/ops/attention.py) and [`grouped_linear`](../ref/dsv4/ops/linear.py).",
        (
            Row("logits, window only", ("S", "H", "w"), ("attn.attn_sink",)),
            Row("logits, CSA", ("S", "H", "w+k")),
            Row("logits, HCA", ("S", "H", "w+T′")),
            Row("output of the heads", ("S", "H", "c"), observed="attn.o"),
            Row("projected in groups", ("S", "g·r"), ("attn.wo_a.weight",)),
            Row("output", ("S", "d"), ("attn.wo_b.weight",), "attn.out"),
        ),
    ),
    Table(
        "Mixture of experts",
        "any",
        "[`MoE`](../ref/dsv4/model/moe.py). A layer that routes by token id has the table `ffn.gate.tid2eid` in place "
        "of the bias. Each routed expert has three matrices of its own; those of expert 0 stand for all.",
        (
            Row("what the experts read", ("S", "d"), ("ffn_norm.weight",)),
            Row("scores of the gate", ("S", "E"), ("ffn.gate.weight",), "ffn.gate.logits"),
            Row("chosen experts", ("S", "kₑ"), ("ffn.gate.bias",), "ffn.gate.indices"),
            Row("their weights", ("S", "kₑ"), observed="ffn.gate.weights"),
            Row(
                "inside the chosen experts",
                ("S", "kₑ", "f"),
                ("ffn.experts.0.w1.weight", "ffn.experts.0.w3.weight"),
            ),
            Row("what they answer", ("S", "kₑ", "d"), ("ffn.experts.0.w2.weight",)),
            Row(
                "inside the shared expert",
                ("S", "f"),
                ("ffn.shared_experts.w1.weight", "ffn.shared_experts.w3.weight"),
            ),
            Row("the sum of all answers", ("S", "d"), ("ffn.shared_experts.w2.weight",), "ffn.out"),
        ),
    ),
    Table(
        "Head",
        "model",
        "[`Head`](../ref/dsv4/model/block.py): the streams become one vector, and it a logit for each token.",
        (
            Row("weights of the streams", ("S", "n"), ("hc_head_fn", "hc_head_base", "hc_head_scale")),
            Row("what the head reads", ("S", "d"), ("norm.weight",)),
            Row("logits", ("S", "V"), ("head.weight",)),
        ),
    ),
    Table(
        "MTP module",
        "mtp",
        "[`MTP`](../ref/dsv4/model/mtp.py): two projections, a block as above, and the model's own `head.weight`.",
        (
            Row("the next token, projected", ("S", "d"), ("enorm.weight", "e_proj.weight")),
            Row("the streams, projected", ("S", "n", "d"), ("hnorm.weight", "h_proj.weight")),
            Row("weights of the streams", ("S", "n"), ("hc_head_fn", "hc_head_base", "hc_head_scale")),
            Row("what the head reads", ("S", "d"), ("norm.weight",)),
            Row("logits of the token after the next", ("S", "V")),
        ),
    ),
)
"""Every activation of a pass over one text; a batch puts one more axis in front."""

MEANINGS = {
    "S": "tokens of the text",
    "V": "vocab_size",
    "d": "hidden_size",
    "n": "hc_mult, the streams",
    "H": "num_attention_heads",
    "c": "head_dim",
    "q": "q_lora_rank",
    "g": "o_groups",
    "r": "o_lora_rank",
    "w": "sliding_window",
    "m": "tokens from one CSA entry to the next",
    "m′": "the same for HCA",
    "T": "CSA entries, ⌊S/m⌋",
    "T′": "HCA entries, ⌊S/m′⌋",
    "Hᵢ": "index_n_heads",
    "cᵢ": "index_head_dim",
    "k": "entries that a query reads, index_topk or T",
    "E": "n_routed_experts",
    "kₑ": "num_experts_per_tok",
    "f": "moe_intermediate_size",
}
"""What each letter stands for, mostly a key of config.json."""


def dimensions(config: Config, length: int) -> dict[str, int]:
    """The size of every axis of `TABLES` for a text of so many tokens."""
    n, c, width, window = config.hc_mult, config.head_dim, config.index_head_dim, config.sliding_window
    entries, heavy = length // CSA_RATIO, length // HCA_RATIO
    chosen = min(config.index_topk, entries)
    return {
        "S": length,
        "V": config.vocab_size,
        "d": config.hidden_size,
        "n": n,
        "(2+n)·n": (2 + n) * n,
        "H": config.num_attention_heads,
        "c": c,
        "2c": 2 * c,
        "q": config.q_lora_rank,
        "g": config.o_groups,
        "r": config.o_lora_rank,
        "g·r": config.o_groups * config.o_lora_rank,
        "w": window,
        "w+k": window + chosen,
        "w+T′": window + heavy,
        "m": CSA_RATIO,
        "2m": 2 * CSA_RATIO,
        "m′": HCA_RATIO,
        "T": entries,
        "T′": heavy,
        "Hᵢ": config.index_n_heads,
        "cᵢ": width,
        "2cᵢ": 2 * width,
        "k": chosen,
        "E": config.n_routed_experts,
        "kₑ": config.num_experts_per_tok,
        "f": config.moe_intermediate_size,
    }
