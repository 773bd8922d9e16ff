// Details of the boxes of attention. Each gives {title, where, text, body}.

const details = {};

details.latent = () => ({
  title: "Query latent",
  where: "one small vector, from which all queries are made",
  text: `The sub-layer's input becomes ${model.q_lora_rank} numbers. ${layers[state.layer].chooses ? "The queries of attention and those of the indexer are both made from it." : "The queries of all heads are made from it."}`,
  body:
    shapes([["x", [length, model.hidden_size]], ["wq_a", [model.q_lora_rank, model.hidden_size]], ["q latent", [length, model.q_lora_rank]]]) +
    equation("q latent = RMSNorm(wq_a @ x)"),
});

details.queries = () => ({
  title: "Queries",
  where: `${heads} heads, turned by the position`,
  text: `Each head asks with ${model.head_dim} numbers${isV41 ? "" : " of size 1"}. The last ${model.qk_rope_head_dim} of them are turned by position ${state.token}; the others know nothing of positions.`,
  body:
    headPicture() +
    shapes([["wq_b", [heads * model.head_dim, model.q_lora_rank]], ["q", [length, heads, model.head_dim]]]) +
    equation(isV41 ? "q = RoPE(wq_b @ q latent, t)" : "q = RoPE(RMSScale(wq_b @ q latent), t)"),
});

details.keys = () => ({
  title: "Keys in the window",
  where: "one key for all heads, which is the value, too",
  text: `Each token leaves one vector of ${model.head_dim} numbers. It serves every head, as key and as value. Token ${state.token} reads the last ${several(Math.min(state.token + 1, model.sliding_window), "one")}.`,
  body:
    distancePicture() +
    shapes([["wkv", [model.head_dim, model.hidden_size]], ["kv", [length, model.head_dim]], ["read by this token", [Math.min(state.token + 1, model.sliding_window), model.head_dim]]]) +
    equation(`kv = RoPE(RMSNorm(wkv @ x), t)${model.rounds ? `\nthen rounded to FP8${isV41 ? "" : ", but for the turned part"}` : ""}`),
});

// Over the whole text: how far back each head looks, on average.
function distancePicture() {
  const shares = layers[state.layer].shares.by_distance;
  const [rows, window] = shares.shape;
  const shown = Math.min(rows, 8);
  const high = 22;
  const content = range(shown).map((row) => {
    const values = shares.row(row);
    const largest = Math.max(...values, 1e-9);
    const columns = values.map((value, back) => `<rect class="window" x="${(24 + ((window - 1 - back) / window) * 290).toFixed(1)}" width="${(270 / window).toFixed(2)}" y="${(row * high + high - 3 - (high - 5) * (value / largest)).toFixed(1)}" height="${((high - 5) * (value / largest)).toFixed(1)}"/>`);
    return `<text x="0" y="${row * high + 15}">${groupName(row, rows)}</text>${columns.join("")}`;
  });
  const said = `Average share by distance for ${shown} rows of heads, from ${window - 1} tokens back to the token itself`;
  const axis = `<text class="quiet" x="24" y="${shown * high + 12}">${window - 1} back</text><text class="quiet" x="314" y="${shown * high + 12}" text-anchor="end">itself</text>`;
  return block("How far back each head looks", "mean over this text, each row to its own scale", picture(320, shown * high + 16, said, content.join("") + axis));
}

const groupName = (row, rows) => (rows === heads ? String(row) : `${(row * heads) / rows}–${((row + 1) * heads) / rows - 1}`);

details.attention = () => {
  const { layer, token } = state;
  const entries = chosenCount(layer, token);
  return {
    title: "Joint softmax with a sink",
    where: `window, entries and sink compete${headWords()}`,
    text: `One softmax over ${several(Math.min(token + 1, model.sliding_window), "window key")}${layers[layer].ratio ? `, ${several(entries, "entry", "entries")}` : ""} and the sink.${sourceWords(layer)} The largest shares:`,
    body:
      readList() +
      headPicture() +
      shapes([["q", [length, heads, model.head_dim]], ["keys read by this token", [`${Math.min(token + 1, model.sliding_window)} + ${entries}`, model.head_dim]], ["o", [length, heads, model.head_dim]]]) +
      equation(`p_s = exp(q·k_s / √${model.head_dim}) /\n      (Σ exp(q·k / √${model.head_dim}) + exp(sink_h))\no_h = Σ_s p_s · v_s`),
  };
};

// Where the entries come from that V4.1's layers share.
function sourceWords(layer) {
  const { source, chooser } = layers[layer];
  if (!isV41 || source === null || (source === layer && chooser === layer)) return "";
  const made = source === layer ? "are made here" : `are those of layer ${source}`;
  return ` The entries ${made}, chosen ${chooser === layer ? "anew here" : `by layer ${chooser}`}.`;
}

// The largest shares of the chosen head, and what the pinned place gives to the same.
function readList() {
  const { layer, token, head } = state;
  const reading = keysRead(layer, token, head);
  const all = sums(layer, token, head);
  const sink = { share: all[2], kind: "sink" };
  const rows = [...reading, sink].sort((one, other) => other.share - one.share).slice(0, 12);
  const largest = rows[0].share || 1;
  const pinned = pinnedShares();
  const items = rows.map((row) => ({
    label: readLabel(row, token),
    part: row.share / largest,
    number: percent(row.share),
    kind: row.kind,
    first: row.first,
    last: row.last,
    share: row.share,
    other: pinned ? Math.min(1, (pinned.get(keyName(row)) ?? 0) / largest) : undefined,
  }));
  const shown = sum(rows.map(({ share }) => share));
  const count = reading.length + 1 - rows.length;
  const rest = count > 0 ? `<p class="note">And ${several(count, "more", "more")}, together ${percent(Math.max(0, 1 - shown))}.</p>` : "";
  return `<div id="reads">${bars(items)}</div>${rest}`;
}

const keyName = ({ kind, first, last }) => `${kind} ${first} ${last}`;

function pinnedShares() {
  if (!state.pin) return null;
  const { layer, token, head } = state.pin;
  const found = new Map(keysRead(layer, token, head).map((key) => [keyName(key), key.share]));
  return found.set(keyName({ kind: "sink" }), sums(layer, token, head)[2]);
}

function readLabel({ kind, first, last }, token) {
  if (kind === "sink") return "the sink: nothing";
  if (kind !== "window") return `<bdi>${escaped(spanWords(first, last))}</bdi>`;
  const back = first === token ? "itself" : `${token - first} back`;
  return `${tokenChip(first)} <small>${back}</small>`;
}

// Where each head, or group of heads, looks: a row each, along the text up to this token.
function headPicture() {
  const { token } = state;
  const groups = page.room.groups;
  const high = groups > 8 ? 12 : 22;
  const left = groups === heads ? 24 : 44;
  const rows = range(groups).map((row) => headRow(row, groups, row * high, high - 2, left));
  const bottom = groups * high + 11;
  const axis = `<text class="quiet" x="${left}" y="${bottom}">token 0</text><text class="quiet" x="292" y="${bottom}" text-anchor="end">token ${token}</text><text class="quiet" x="320" y="${bottom}" text-anchor="end">sink</text>`;
  const said = `Where each of ${groups} ${groups === heads ? "heads" : "groups of heads"} looks along the text; their sums are said by the buttons above the text`;
  return block("Where each head looks", "above: window, below: entries", picture(320, bottom + 4, said, rows.join("") + axis));
}

// One row: window above and entries below, from `left` to 298, and the sink behind them.
function headRow(row, groups, top, high, left) {
  const { layer, token } = state;
  const head = (row * heads) / groups;
  const wide = (298 - left) / (token + 1);
  const keys = keysRead(layer, token, head).filter(({ share }) => share > 0.001);
  const drawn = keys.map(({ kind, first, last, share }) => {
    const y = kind === "window" ? top : top + high / 2;
    return `<rect class="${kind}" x="${(left + first * wide).toFixed(1)}" width="${Math.max(0.6, (last - first + 1) * wide).toFixed(2)}" y="${y}" height="${high / 2}" opacity="${Math.min(1, 0.1 + Math.sqrt(share)).toFixed(2)}"/>`;
  });
  const sink = sums(layer, token, head)[2] * high;
  const tracks = `<rect class="track" x="${left}" width="${298 - left}" y="${top}" height="${high}"/><rect class="track" x="306" width="14" y="${top}" height="${high}"/>`;
  return `<text x="0" y="${top + high / 2 + 4}">${groupName(row, groups)}</text>${tracks}${drawn.join("")}<rect class="sink" x="306" width="14" y="${(top + high - sink).toFixed(1)}" height="${sink.toFixed(1)}"/>`;
}

details.unrotate = () => {
  const { frequencies, ratio } = layers[state.layer];
  const shown = frequencies.slice(0, 32);
  const dials = shown.map((frequency, number) => {
    const angle = -state.token * frequency;
    const x = 20 + (number % 8) * 40;
    const y = 20 + Math.floor(number / 8) * 40;
    return `<circle class="dial" cx="${x}" cy="${y}" r="15"/><path class="hand" d="M${x} ${y}L${(x + 15 * Math.cos(angle)).toFixed(2)} ${(y - 15 * Math.sin(angle)).toFixed(2)}"/>`;
  });
  const high = 40 * Math.ceil(shown.length / 8);
  const base = ratio ? `${large(model.compress_rope_theta)}${model.yarn_factor ? `, YaRN × ${model.yarn_factor}` : ""}` : large(model.rope_theta);
  return {
    title: "Inverse RoPE",
    where: "the output is turned back",
    text: `Keys were turned by their positions, and they are the values, too. So the sum is turned back by ${state.token}: pair by pair of channels, each at its own speed.`,
    body:
      block(`${frequencies.length} pairs of channels`, `angle −${state.token} · f`, picture(320, high, `Angles of ${shown.length} pairs of channels`, dials.join(""))) +
      shapes([["o", [length, heads, model.head_dim]], ["turned channels", [`${model.qk_rope_head_dim} of ${model.head_dim}`]]]) +
      equation(`o = RoPE(o, −t)\nbase ${base}`),
  };
};

details.output = () => {
  const values = layers[state.layer].heads.row(state.token);
  const largest = Math.max(...values);
  const rows = values.map((value, row) => ({ label: `${values.length === heads ? "head" : "heads"} ${groupName(row, values.length)}`, part: value / largest, number: short(value), kind: "window" }));
  const width = (heads / model.o_groups) * model.head_dim;
  return {
    title: "Grouped output",
    where: `${several(model.o_groups, "group")} of heads, then one projection`,
    text: `The answer of attention has the size ${short(layers[state.layer].answers.at(0, state.token))} (root mean square).`,
    body:
      block("Size of each head's output", "root mean square", `<div class="scroll">${bars(rows)}</div>`) +
      shapes([["o", [length, `${heads}·${model.head_dim}`]], ["wo_a", [model.o_groups, model.o_lora_rank, width]], ["wo_b", [model.hidden_size, model.o_groups * model.o_lora_rank]], ["out", [length, model.hidden_size]]]) +
      equation("out = wo_b @ concat_g(wo_a[g] @ o[g])"),
  };
};
