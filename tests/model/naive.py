"""A slow forward pass written straight from the report: one sequence, one token and one head at a time, in float64.

It keeps no cache, shares no code with dsv4, and recomputes everything. `round_on` adds the roundings of the released
model: FP8 key-value entries, FP4 indexer vectors, FP8 inputs of products whose weights are quantised.
"""

import functools
import math

import ml_dtypes
import numpy as np

FP8, FP4 = ml_dtypes.float8_e4m3fn, ml_dtypes.float4_e2m1fn


def round_blocks(x, block, number_format):
    """The vector rounded to the format, each block with the smallest power-of-two scale that keeps it in range."""
    largest, floor, mantissa_bits, smallest = (
        (448.0, 1e-4, 3, -6) if number_format is FP8 else (6.0, 6 * 2.0**-126, 1, 0)
    )
    result = np.zeros(len(x))
    for start in range(0, len(x), block):
        part = x[start : start + block]
        needed = max(float(np.abs(part).max()), floor)
        scale = 2.0 ** (math.frexp(needed)[1] - 12)
        while scale * largest < needed:
            scale *= 2
        exponent = np.maximum(np.frexp(part / scale)[1] - 1, smallest)
        step = scale * 2.0 ** (exponent - mantissa_bits)
        result[start : start + block] = np.round(part / step) * step  # NumPy rounds halves to even
    return result


def dense(weight):
    """The float64 values of a dense, FP8 or FP4 weight."""
    if isinstance(weight, np.ndarray):
        return weight.astype(float) if weight.dtype.kind != "i" else weight
    scales = 2.0 ** (weight.scales.astype(float) - 127)
    if hasattr(weight, "codes"):
        rows, columns = weight.codes.shape
        return weight.codes.view(FP8).astype(float) * np.kron(scales, np.ones((128, 128)))[:rows, :columns]
    nibbles = np.stack([weight.packed & 15, weight.packed >> 4], axis=-1).reshape(weight.shape)
    return nibbles.astype(np.uint8).view(FP4).astype(float) * np.kron(scales, np.ones((1, 32)))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x, axis=-1):
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


@functools.cache
def sylvester(order):
    """The Walsh–Hadamard matrix, each order made of four copies of the one before."""
    matrix = np.ones((1, 1))
    while len(matrix) < order:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix


class NaiveModel:
    """The forward pass of a checkpoint: `states`, `logits`, `mtp_logits`, for one sequence each."""

    def __init__(self, checkpoint, round_on=False):
        self.config, self.round_on = checkpoint.config, round_on
        self.weights = {name: dense(weight) for name, weight in checkpoint.weights.items()}
        self.quantised = {name for name, weight in checkpoint.weights.items() if not isinstance(weight, np.ndarray)}

    def states(self, ids):
        """The n streams of each token after the last layer."""
        config = self.config
        streams = [np.stack([self.weights["embed.weight"][token]] * config.hc_mult) for token in ids]
        for n in range(config.num_hidden_layers):
            streams = self.layer(f"layers.{n}.", streams, ids, config.compress_ratios[n], n < config.num_hash_layers)
        return np.stack(streams)

    def logits(self, ids):
        return np.stack([self.head("", residual) for residual in self.states(ids)])

    def mtp_logits(self, states, next_ids):
        """The logits of the token two places on, from each token's streams and the token that follows it."""
        streams = []
        for residual, token in zip(states, next_ids, strict=True):
            embedded = self.linear("mtp.0.e_proj", self.norm("mtp.0.enorm", self.weights["embed.weight"][token]))
            streams.append(
                np.stack([embedded + self.linear("mtp.0.h_proj", self.norm("mtp.0.hnorm", x)) for x in residual])
            )
        streams = self.layer("mtp.0.", streams, next_ids, self.config.compress_ratios[-1], by_id=False)
        return np.stack([self.head("mtp.0.", residual) for residual in streams])

    # Section 2.2: the block inside its hyper-connections.

    def layer(self, name, streams, ids, ratio, by_id):
        streams = self.connected(
            f"{name}hc_attn", streams, lambda inputs: self.attention(f"{name}attn.", inputs, ratio)
        )

        def experts(inputs):
            return [self.experts(f"{name}ffn.", x, token, by_id) for x, token in zip(inputs, ids, strict=True)]

        return self.connected(f"{name}hc_ffn", streams, experts)

    def connected(self, name, streams, sublayer):
        """The residuals after a sub-layer, which takes one input per token and whose output goes to all streams."""
        mixing = [self.mixing(name, residual) for residual in streams]
        collapsed = [pre @ residual for (pre, _, _), residual in zip(mixing, streams, strict=True)]
        norm = name.replace("hc_", "") + "_norm"
        outputs = sublayer([self.norm(norm, x) for x in collapsed])
        n = range(self.config.hc_mult)
        return [
            np.stack([post[i] * y + sum(comb[j, i] * residual[j] for j in n) for i in n])
            for residual, y, (_, post, comb) in zip(streams, outputs, mixing, strict=True)
        ]

    def mixes(self, name, residual):
        z = residual.reshape(-1)
        return self.weights[f"{name}_fn"] @ z / math.sqrt(np.mean(z**2) + self.config.rms_norm_eps)

    def mixing(self, name, residual):
        n, eps = self.config.hc_mult, self.config.hc_eps
        mixes, base, scale = self.mixes(name, residual), self.weights[f"{name}_base"], self.weights[f"{name}_scale"]
        pre = sigmoid(mixes[:n] * scale[0] + base[:n]) + eps
        post = 2 * sigmoid(mixes[n : 2 * n] * scale[1] + base[n : 2 * n])
        comb = softmax((mixes[2 * n :] * scale[2] + base[2 * n :]).reshape(n, n)) + eps
        for iteration in range(self.config.hc_sinkhorn_iters):
            if iteration > 0:
                comb = comb / (comb.sum(axis=1)[:, None] + eps)
            comb = comb / (comb.sum(axis=0)[None, :] + eps)
        return pre, post, comb

    def head(self, name, residual):
        mixes = self.mixes(f"{name}hc_head", residual)
        pre = sigmoid(mixes * self.weights[f"{name}hc_head_scale"] + self.weights[f"{name}hc_head_base"])
        return self.weights["head.weight"] @ self.norm(f"{name}norm", (pre + self.config.hc_eps) @ residual)

    # Section 2.3: attention.

    def attention(self, name, inputs, ratio):
        config, frequencies = self.config, self.frequencies(ratio)
        heads, c = config.num_attention_heads, config.head_dim
        latents = [self.norm(f"{name}q_norm", self.linear(f"{name}wq_a", x)) for x in inputs]
        window = [self.norm(f"{name}kv_norm", self.linear(f"{name}wkv", x)) for x in inputs]
        window = [self.round_entry(rotate(kv, t, frequencies)) for t, kv in enumerate(window)]
        entries, chosen = self.compressed(name, inputs, latents, ratio)
        outputs = []
        for t, latent in enumerate(latents):
            keys = np.array(window[max(0, t - config.sliding_window + 1) : t + 1] + [entries[i] for i in chosen[t]])
            parts = []
            for h, q in enumerate(self.linear(f"{name}wq_b", latent).reshape(heads, c)):
                q = rotate(q / math.sqrt(np.mean(q**2) + config.rms_norm_eps), t, frequencies)
                e = np.exp(keys @ q / math.sqrt(c))
                o = e @ keys / (e.sum() + math.exp(self.weights[f"{name}attn_sink"][h]))
                parts.append(rotate(o, -t, frequencies))
            outputs.append(self.project_out(name, np.concatenate(parts)))
        return outputs

    def project_out(self, name, o):
        groups, rank = self.config.o_groups, self.config.o_lora_rank
        width, wo_a = len(o) // groups, self.weights[f"{name}wo_a.weight"]
        latents = [wo_a[g * rank : (g + 1) * rank] @ o[g * width : (g + 1) * width] for g in range(groups)]
        return self.linear(f"{name}wo_b", np.concatenate(latents))

    def compressed(self, name, inputs, latents, ratio):
        """The compressed entries, and for each query the numbers of those that it reads."""
        if ratio == 0:
            return [], [[] for _ in inputs]
        visible = [list(range((t + 1) // ratio)) for t in range(len(inputs))]
        entries = [self.round_entry(e) for e in self.compress(f"{name}compressor.", inputs, ratio)]
        if ratio == 128:
            return entries, visible
        keys = [self.index_vector(key) for key in self.compress(f"{name}indexer.compressor.", inputs, ratio)]
        chosen = []
        for t, (x, latent) in enumerate(zip(inputs, latents, strict=True)):
            score = self.index_scores(f"{name}indexer.", x, latent, t, keys)
            best = sorted(visible[t], key=lambda i: (-score[i], i))
            chosen.append(best[: self.config.index_topk])
        return entries, chosen

    def compress(self, name, inputs, ratio):
        """The normalised and rotated entry of each complete block."""
        kv = [self.weights[f"{name}wkv.weight"] @ x for x in inputs]
        score = [
            self.weights[f"{name}wgate.weight"] @ x + self.weights[f"{name}ape"][t % ratio]
            for t, x in enumerate(inputs)
        ]
        entries = []
        for i in range(len(inputs) // ratio):
            block, previous = range(i * ratio, (i + 1) * ratio), range(max(0, i - 1) * ratio, i * ratio)
            if ratio == 128:
                slots = [(kv[t], score[t]) for t in block]
            else:
                c = len(kv[0]) // 2
                slots = [(kv[t][:c], score[t][:c]) for t in previous] + [(kv[t][c:], score[t][c:]) for t in block]
            values, scores = np.array([v for v, _ in slots]), np.array([s for _, s in slots])
            entry = (softmax(scores, axis=0) * values).sum(axis=0)
            entries.append(rotate(self.norm(f"{name}norm", entry), i * ratio, self.frequencies(ratio)))
        return entries

    def index_scores(self, name, x, latent, t, keys):
        heads, width = self.config.index_n_heads, self.config.index_head_dim
        queries = self.linear(f"{name}wq_b", latent).reshape(heads, width)
        queries = [self.index_vector(rotate(q, t, self.frequencies(4))) for q in queries]
        weights = self.weights[f"{name}weights_proj.weight"] @ x / math.sqrt(width * heads)
        return [sum(w * max(0.0, float(q @ key)) for w, q in zip(weights, queries, strict=True)) for key in keys]

    def frequencies(self, ratio):
        config, r = self.config, self.config.qk_rope_head_dim
        base = config.compress_rope_theta if ratio else config.rope_theta
        plain = [float(np.float32(1) / np.float32(base ** (2 * i / r))) for i in range(r // 2)]
        if ratio == 0:
            return plain
        yarn = config.rope_scaling

        def dim(rotations):
            return (
                r * math.log(yarn.original_max_position_embeddings / (2 * math.pi * rotations)) / (2 * math.log(base))
            )

        low, high = max(math.floor(dim(yarn.beta_fast)), 0), min(math.ceil(dim(yarn.beta_slow)), r - 1)
        assert low < high
        ramps = [min(max((i - low) / (high - low), 0), 1) for i in range(r // 2)]
        fasts = [np.float32(1) - np.float32(ramp) for ramp in ramps]
        both = [(np.float32(f), fast) for f, fast in zip(plain, fasts, strict=True)]
        return [float(f / np.float32(yarn.factor) * (np.float32(1) - fast) + f * fast) for f, fast in both]

    # Section 2.1: experts.

    def experts(self, name, x, token, by_id):
        config = self.config
        scores = np.sqrt(np.log1p(np.exp(self.weights[f"{name}gate.weight"] @ x)))
        if by_id:
            chosen = self.weights[f"{name}gate.tid2eid"][token]
        else:
            biased = scores + self.weights[f"{name}gate.bias"]
            chosen = sorted(range(len(scores)), key=lambda e: (-biased[e], e))[: config.num_experts_per_tok]
        total = sum(scores[e] for e in chosen)
        output = self.expert(f"{name}shared_experts.", x, 1.0)
        for e in chosen:
            output = output + self.expert(f"{name}experts.{e}.", x, scores[e] / total * config.routed_scaling_factor)
        return output

    def expert(self, name, x, weight):
        limit = self.config.swiglu_limit
        gate = np.minimum(self.linear(f"{name}w1", x), limit)
        up = np.clip(self.linear(f"{name}w3", x), -limit, limit)
        return self.linear(f"{name}w2", weight * gate * sigmoid(gate) * up)

    # What all of them use.

    def norm(self, name, x):
        return x / math.sqrt(np.mean(x**2) + self.config.rms_norm_eps) * self.weights[f"{name}.weight"]

    def linear(self, name, x):
        rounds = self.round_on and f"{name}.weight" in self.quantised
        return self.weights[f"{name}.weight"] @ (round_blocks(x, 128, FP8) if rounds else x)

    def round_entry(self, kv):
        content = len(kv) - self.config.qk_rope_head_dim
        return np.concatenate([round_blocks(kv[:content], 64, FP8), kv[content:]]) if self.round_on else kv

    def index_vector(self, x):
        rotated = sylvester(len(x)) @ x / math.sqrt(len(x))
        return round_blocks(rotated, 32, FP4) if self.round_on else rotated


def rotate(vector, position, frequencies):
    """Turn the last channels, pair by pair, by position · frequency."""
    pairs = vector[-2 * len(frequencies) :].reshape(-1, 2)
    turned = (pairs[:, 0] + 1j * pairs[:, 1]) * np.exp(1j * position * np.array(frequencies))
    return np.concatenate([vector[: -2 * len(frequencies)], np.stack([turned.real, turned.imag], axis=1).reshape(-1)])
