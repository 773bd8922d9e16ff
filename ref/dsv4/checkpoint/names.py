"""Other spellings of tensor names, and the official names for them.

transformers saves most tensors under the official names, with the prefix `model.` and some renamed. With
save_original_format=False it saves its internal names, and each layer's routed experts in two tensors.
"""

import re
from collections.abc import Collection
from dataclasses import replace

from dsv4.checkpoint.header import Entry
from dsv4.errors import CheckpointError, quoted

SPELLINGS = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        # what transformers saves
        (r"^embed_tokens\.", "embed."),
        (r"^lm_head\.", "head."),
        (r"^hc_head\.hc_", "hc_head_"),
        (r"^((?:layers|mtp)\.\d+\.attn)\.norm\.", r"\1.kv_norm."),
        (r"\.weight_scale_inv$", ".scale"),
        # what transformers saves with save_original_format=False: containers first, then the tensors in them
        (r"\.self_attn\.", ".attn."),
        (r"\.mlp\.", ".ffn."),
        (r"\.(attn|ffn)_hc\.", r".hc_\1_"),
        (r"\.compressor\.indexer\.scorer\.", ".indexer."),
        (r"\.compressor\.indexer\.q_b_proj\.", ".indexer.wq_b."),
        (r"\.compressor\.indexer\.", ".indexer.compressor."),
        (r"\.compressor\.kv_norm\.", ".compressor.norm."),
        (r"\.compressor\.gate_proj\.", ".compressor.wgate."),
        (r"\.input_layernorm\.", ".attn_norm."),
        (r"\.post_attention_layernorm\.", ".ffn_norm."),
        (r"\.q_a_norm\.", ".q_norm."),
        (r"\.q_a_proj\.", ".wq_a."),
        (r"\.q_b_proj\.", ".wq_b."),
        (r"\.kv_proj\.", ".wkv."),
        (r"\.o_a_proj\.", ".wo_a."),
        (r"\.o_b_proj\.", ".wo_b."),
        (r"\.gate_proj\.", ".w1."),
        (r"\.down_proj\.", ".w2."),
        (r"\.up_proj\.", ".w3."),
        (r"\.sinks$", ".attn_sink"),
        (r"\.position_bias$", ".ape"),
        (r"\.gate\.e_score_correction_bias$", ".gate.bias"),
    )
]

HARMLESS = re.compile(r"(^|[._])(inv_freq|freqs_cis)$")
"""Tables of rotary frequencies, which some programs save and every program can compute."""

FUSED = re.compile(r"^(.*\.ffn\.experts)\.(gate_up_proj|down_proj)$")


def official_name(stored: str, known: Collection[str] = ()) -> str:
    """The official name of a tensor, given the name in a file; an unknown name only loses the prefix `model.`.

    known: official names, which are taken as they are, and fast.
    """
    name = stored.removeprefix("model.")
    if name in known:
        return name
    for pattern, official in SPELLINGS:
        name = pattern.sub(official, name)
    return name


def official_entries(stored: list[Entry], known: Collection[str], experts: int) -> dict[str, Entry]:
    """The entries of all files by official name, `known` as for `official_name`; rotary tables are left out.

    experts: how many routed experts a layer has. Raises CheckpointError where two tensors stand for one name, and
    where a tensor of fused experts holds another number of them.
    """
    entries: dict[str, Entry] = {}
    for entry in stored:
        if HARMLESS.search(entry.stored_name):
            continue
        for official, part in _unfused(official_name(entry.stored_name, known), entry, experts):
            if official in entries:
                raise CheckpointError(
                    f"{entry}: expected one tensor for {quoted(official)}, found also {entries[official]}"
                )
            entries[official] = part
    return entries


def _unfused(name: str, entry: Entry, experts: int) -> list[tuple[str, Entry]]:
    """The tensor itself, or the experts in a fused one: [E, 2·width, d] is w1 above w3 per expert, [E, d, width] w2."""
    match = FUSED.match(name)
    if match is None or len(entry.shape) != 3 or 0 in entry.shape:
        return [(name, entry)]
    found, rows, columns = entry.shape
    if found != experts:
        raise CheckpointError(f"{entry}: expected {experts} experts, found {found} in shape {list(entry.shape)}")
    names = ["w1", "w3"] if match[2] == "gate_up_proj" else ["w2"]
    if rows % len(names):
        raise CheckpointError(f"{entry}: expected an even number of rows per expert, found shape {list(entry.shape)}")
    step = entry.size // (experts * len(names))
    return [
        (
            f"{match[1]}.{place // len(names)}.{names[place % len(names)]}.weight",
            replace(entry, shape=(rows // len(names), columns), start=entry.start + place * step),
        )
        for place in range(experts * len(names))
    ]
