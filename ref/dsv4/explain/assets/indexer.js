// Details of the entries and of the indexer that chooses among them.

details.entries = () => {
  const { layer, token } = state;
  const { ratio, kind } = layers[layer];
  const newest = visible(layer, token) - 1;
  const c = model.head_dim;
  const wide = kind === "CSA" ? 2 * c : c;
  return {
    title: isV41 ? "Entries" : `${kind} entries`,
    where: kind === "CSA" ? "8 tokens into one, with a step of 4" : ratio === 1 ? "one of each token" : `${ratio} tokens into one`,
    text: newest < 0
      ? `Token ${token} comes too early: the first entry is complete with token ${ratio - 1}.`
      : ratio === 1 ? `Entry ${newest} is made of token ${newest} alone.${readerWords(layer)}`
      : `Entry ${newest} is a weighted sum of the tokens ${span(layer, newest).join("–")}; a softmax over them, channel by channel, gives the weights. What is shown is the mean over the channels.${readerWords(layer)}`,
    body:
      (newest < 0 ? "" : slotList(layer, newest)) +
      shapes([[ratio === 1 ? "wkv" : "wkv, wgate", [wide, model.hidden_size]], ["entries of this text", [Math.floor(length / ratio), c]], ["seen by this token", [newest + 1, c]]]) +
      equation(entryEquation(ratio, kind)),
  };
};

function entryEquation(ratio, kind) {
  const rounded = model.rounds ? ", FP4" : "";
  if (ratio === 1) return `entry_t = RMSNorm(kv_t), then RoPE at t${rounded}\nkey_t = RMSNorm(wk @ RMSNorm(kv_t)), RoPE at t`;
  if (isV41) return `latent_i = RMSNorm(Σ_slots softmax(gate) · kv)\nslots: the ${ratio} tokens of its block\nentry_i = latent_i with RoPE at its first token${rounded}\nkey_i = RMSNorm(wk @ latent_i), RoPE likewise`;
  const slots = kind === "CSA" ? "4 tokens of the block before, 4 of its own" : "the 128 tokens of its block";
  return `entry_i = Σ_slots softmax(gate + ape) · kv\nslots: ${slots}\nthen RMSNorm, RoPE at its first token`;
}

// Which layers read the entries that one makes for all behind it (V4.1).
function readerWords(layer) {
  const readers = range(layers.length).filter((other) => layers[other].source === layer && other !== layer);
  if (!isV41 || !readers.length) return "";
  return readers.length === 1 ? ` Layer ${readers[0]} reads it, too.` : ` Layers ${readers.join(", ")} read it, too.`;
}

// The tokens that count most in an entry.
function slotList(layer, entry) {
  const [first] = span(layer, entry);
  const rows = slotShares(layer, entry).map((share, place) => ({ share, token: first + place }));
  const chosen = [...rows].sort((one, other) => other.share - one.share).slice(0, 12);
  if (rows.length <= 12) chosen.sort((one, other) => one.token - other.token);
  const largest = Math.max(...chosen.map(({ share }) => share));
  const items = chosen.map(({ share, token }) => ({
    label: `${tokenChip(token)} <small>token ${token}</small>`, part: share / largest, number: percent(share), kind: kindOf(layer), first: token, last: token, share,
  }));
  const rest = rows.length > 12 ? `<p class="note">The other ${rows.length - 12} tokens: ${percent(1 - sum(chosen.map(({ share }) => share)))}.</p>` : "";
  return `<div id="slots">${block(`Entry ${entry}`, "how much each token counts", bars(items) + rest)}</div>`;
}

details.indexer = () => {
  const { layer, token } = state;
  const judged = entriesJudged(layer, token);
  const count = visible(layer, token);
  const chosen = chosenCount(layer, token);
  const { ratio, source } = layers[layer];
  const entries = Math.floor(length / ratio);
  const kept = judged.length < count ? ` Scores of the best ${judged.length} are kept on this page.` : "";
  return {
    title: "Lightning indexer",
    where: "which entries may be read at all",
    text: count <= model.index_topk
      ? `${several(count, "entry", "entries")} can be seen and ${model.index_topk} may be read: ${count === chosen ? `none is refused. ${refusalHint(ratio)}` : `${count - chosen} are refused.`}${poolWords(layer, token)}`
      : `${large(count)} entries can be seen, ${model.index_topk} may be read: <b>${large(count - chosen)} are refused</b>.${kept}${poolWords(layer, token)}`,
    body:
      (judged.length ? scorePicture(judged) + scoreList(judged) : "") +
      shapes([["index queries", [length, model.index_n_heads, model.index_head_dim]], [`index keys${source === layer ? "" : ` of layer ${source}`}`, [entries, model.index_head_dim]], ["scores", [length, entries]], ["chosen", [length, Math.min(model.index_topk, entries)]]]) +
      equation("score[t, i] = Σ_h w_h · ReLU(q_h · k_i)\n" + `chosen[t] = the best ${model.index_topk} of i < ⌊(t + 1) / ${ratio}⌋${layers[layer].choice?.allowed ? "\n  in the pool of t" : ""}`),
  };
};

function refusalHint(ratio) {
  const first = ratio * (model.index_topk + 1) - 1;
  return first < length ? `From token ${first} on, some are.` : "This text is too short for it to refuse any.";
}

function scorePicture(judged) {
  const byEntry = [...judged].sort((one, other) => one.entry - other.entry);
  const largest = Math.max(...byEntry.map(({ score }) => Math.abs(score)), 1e-30);
  const lowest = Math.min(0, ...byEntry.map(({ score }) => score));
  const zero = 78 * (1 - Math.max(0, -lowest) / (largest + Math.max(0, -lowest)));
  const wide = 320 / byEntry.length;
  const scale = zero / largest;
  const columns = byEntry.map(({ score, chosen }, place) => {
    const high = Math.abs(score) * scale;
    const x = (place * wide).toFixed(1);
    const mark = chosen ? "" : `<path class="cross" d="M${(place + 0.5) * wide - 2} 88l4 4m0 -4l-4 4"/>`;
    return `<rect class="${chosen ? "csa" : "sink"}" x="${x}" width="${Math.max(0.8, wide - 1).toFixed(2)}" y="${(score >= 0 ? zero - high : zero).toFixed(1)}" height="${high.toFixed(1)}"/>${mark}`;
  });
  const chosen = byEntry.filter((one) => one.chosen).length;
  const said = `Scores of ${byEntry.length} entries, the oldest left: ${chosen} chosen, ${byEntry.length - chosen} refused`;
  return block("Scores of the entries", "oldest left; ×: refused", picture(320, 96, said, columns.join("") + `<path class="axis" d="M0 ${zero.toFixed(1)}H320"/>`));
}

function scoreList(judged) {
  const refused = judged.filter(({ chosen }) => !chosen);
  const mark = ({ chosen, allowed }) => (chosen ? "" : allowed ? "× " : "⊘ ");
  const rows = [...judged.filter(({ chosen }) => chosen).slice(0, 6), ...refused.slice(0, 3)];
  const largest = Math.max(...rows.map(({ score }) => score), 1e-30);
  const items = rows.map(({ entry, score, chosen, allowed }) => {
    const [first, last] = span(state.layer, entry);
    return { label: `${mark({ chosen, allowed })}<bdi>${escaped(spanWords(first, last))}</bdi>`, part: score / largest, number: short(score), kind: chosen ? "csa" : "sink", first, last, share: score };
  });
  return `<div id="scores">${block("The best", refused.length ? `and the best of those refused (×)${layers[state.layer].choice?.allowed ? "; ⊘: outside of the pool" : ""}` : "", bars(items))}</div>`;
}

// The pool of candidates (V4.1): the layer that makes it says which blocks of entries later layers may choose from.
const poolLayer = () => (model.candidates ? layers[model.candidates.source] : null);

// The tokens of each block of the pool that a layer makes, or chooses in: [[first, last], …].
function poolSpans(layer, token) {
  const makes = layers[layer].pool;
  const pool = makes ?? (layers[layer].choice?.allowed ? poolLayer().pool : null);
  if (!pool) return [];
  const { size } = model.candidates;
  const seen = visible(layer, token);
  const blocks = pool.row(token).filter((number) => number !== nobody).sort((one, other) => one - other);
  return blocks.map((number) => [span(layer, number * size)[0], span(layer, Math.min(seen, (number + 1) * size) - 1)[1]]);
}

function poolWords(layer, token) {
  const count = visible(layer, token);
  const { choice, pool } = layers[layer];
  if (choice?.allowed) return ` It may choose from the <b class="hca">${choice.allowed.count.at(token)}</b> of ${several(count, "entry", "entries")} in the pool that layer ${model.candidates.source} made.`;
  if (!pool || !count) return "";
  const blocks = poolSpans(layer, token).length;
  return ` It also makes the pool for the layers behind it: <b class="hca">${several(blocks, "block")}</b> of ${several(model.candidates.size, "entry", "entries")}, always with the newest.`;
}
