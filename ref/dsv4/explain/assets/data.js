// The numbers of the pass, as the page carries them: JSON that describes arrays, and the arrays, deflated and in base64.

const element = (id) => document.getElementById(id);
const page = JSON.parse(element("data").textContent);
const model = page.model;
const layers = page.layers;
const length = page.tokens.length;
const buffer = await inflated(element("numbers").textContent);

async function inflated(text) {
  const packed = Uint8Array.from(atob(text.trim()), (character) => character.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

// An array: `at(i, j, …)` is one number. What is no whole number was rounded to steps; `step` and `root` undo it.
class Numbers {
  constructor(described) {
    const type = { u1: Uint8Array, u2: Uint16Array, u4: Uint32Array }[described.type];
    this.shape = described.shape;
    this.codes = new type(buffer, described.at, this.shape.reduce((product, size) => product * size, 1));
    this.low = described.low ?? 0;
    this.step = described.step ?? 1;
    this.root = described.root === true;
  }

  at(...index) {
    const place = index.reduce((sum, one, axis) => sum * this.shape[axis] + one, 0);
    const value = this.low + this.step * this.codes[place];
    return this.root ? value * value : value;
  }

  // The numbers of the last axis, at an index of all others.
  row(...index) {
    return Array.from({ length: this.shape.at(-1) }, (_, last) => this.at(...index, last));
  }
}

// Every description in the data becomes the array that it describes.
function opened(value) {
  if (Array.isArray(value)) return value.map(opened);
  if (value === null || typeof value !== "object") return value;
  if ("at" in value && "shape" in value) return new Numbers(value);
  return Object.fromEntries(Object.entries(value).map(([name, inside]) => [name, opened(inside)]));
}

for (const [number, layer] of layers.entries()) layers[number] = opened(layer);
const opinions = opened(page.opinions);
const drafts = opened(page.drafts);
const headPre = opened(page.head_pre);
const firstSizes = opened(page.first_sizes);
const cacheKinds = opened(page.cache.kinds);

// A layer that does not choose entries reads what an earlier one has chosen (V4.1).
for (const layer of layers) if (layer.chooser !== null) layer.choice ??= layers[layer.chooser].choice;

// The bytes of each part of a layer's cache behind a token.
const cacheBytes = (layer, token) => cacheKinds[page.cache.of_layer[layer]].row(token);

const range = (count) => Array.from({ length: count }, (_, number) => number);
const sum = (values) => values.reduce((total, value) => total + value, 0);
const nobody = 65535; // the number of a key that is none

// How many entries token t can see in a layer.
const visible = (layer, token) => (layers[layer].ratio ? Math.floor((token + 1) / layers[layer].ratio) : 0);

// The first and the last token of an entry. One of CSA reads the block before its own, too.
function span(layer, entry) {
  const { ratio, kind } = layers[layer];
  return [Math.max(0, (kind === "CSA" ? entry - 1 : entry) * ratio), (entry + 1) * ratio - 1];
}

// The row of a head among the groups that are kept; row 0 is the mean over all heads, which head −1 stands for.
const heads = model.num_attention_heads;
const groupOf = (head, groups) => (head < 0 ? 0 : 1 + Math.floor((head * groups) / heads));

// What token t gives to the window, to entries and to the sink: three numbers that sum to 1.
const sums = (layer, token, head) => layers[layer].shares.sums.row(token, groupOf(head, page.room.sums));

// The shares of single keys that are kept: {share, kind, first, last, entry}, the largest first.
function keysRead(layer, token, head) {
  const { keys, shares, window } = layers[layer].shares;
  const row = groupOf(head, page.room.groups);
  const found = [];
  for (let place = 0; place < keys.shape[2]; place++) {
    const key = keys.at(token, row, place);
    if (key === nobody) continue;
    const share = shares.at(token, row, place);
    if (key < window) {
      found.push({ share, kind: "window", first: token - key, last: token - key });
    } else {
      const [first, last] = span(layer, key - window);
      found.push({ share, kind: kindOf(layer), first, last, entry: key - window });
    }
  }
  return found.sort((one, other) => other.share - one.share);
}

const kindOf = (layer) => (layers[layer].kind === "HCA" ? "hca" : "csa");

// The entries that the indexer chose and refused: {entry, score, chosen, allowed}, in falling order; all are chosen in
// HCA. Allowed are those in the pool, where there is one (V4.1).
function entriesJudged(layer, token) {
  const { choice } = layers[layer];
  if (!choice) return range(visible(layer, token)).map((entry) => ({ entry, score: 0, chosen: true, allowed: true }));
  const chosen = choice.chosen.at(token);
  const judged = choice.entries.row(token).map((entry, place) => ({
    entry,
    score: choice.scores.at(token, place),
    chosen: place < chosen,
    allowed: choice.allowed ? choice.allowed.entries.at(token, place) === 1 : true,
  }));
  return judged.filter(({ entry }) => entry !== nobody);
}

// The entries that are refused, also those whose scores are not kept; none where some of the chosen are not kept.
function entriesRefused(layer, token) {
  const { choice } = layers[layer];
  if (!choice || choice.chosen.at(token) > choice.entries.shape[1]) return [];
  const chosen = new Set(entriesJudged(layer, token).flatMap((one) => (one.chosen ? [one.entry] : [])));
  return range(visible(layer, token)).filter((entry) => !chosen.has(entry));
}

// pre and post [n] and comb [n][n] of one token; part 0 is around attention, 1 around the experts.
function mixing(layer, part, token) {
  const n = model.hc_mult;
  const row = layers[layer].mixing[part].row(token);
  const comb = range(n).map((old) => row.slice(2 * n + old * n, 2 * n + (old + 1) * n));
  return { pre: row.slice(0, n), post: row.slice(n, 2 * n), comb };
}

// The experts of a token: {expert, score, weight} with weight undefined for one that is not visited.
function experts(layer, token) {
  const { routing } = layers[layer];
  const visited = model.num_experts_per_tok;
  return routing.experts.row(token).map((expert, place) => ({
    expert,
    score: routing.scores.at(token, place),
    bias: routing.bias ? routing.bias.at(expert) : null,
    weight: place < visited ? routing.weights.at(token, place) : undefined,
  }));
}

// Which tokens visit each expert of a layer, and with what weight: visitors(layer)[expert] = [[token, weight], …].
const visitorsKnown = new Map();
function visitors(layer) {
  if (!visitorsKnown.has(layer)) {
    const found = range(model.n_routed_experts).map(() => []);
    const { routing } = layers[layer];
    for (let token = 0; token < length; token++) {
      for (let place = 0; place < model.num_experts_per_tok; place++) {
        found[routing.experts.at(token, place)].push([token, routing.weights.at(token, place)]);
      }
    }
    visitorsKnown.set(layer, found);
  }
  return visitorsKnown.get(layer);
}

// The size of each stream of a token: at the beginning, then after each sub-layer.
function streamSizes(token) {
  const n = model.hc_mult;
  const rows = [range(n).map(() => firstSizes.at(token))];
  for (const layer of layers) for (const part of [0, 1]) rows.push(layer.sizes.row(part, token));
  return rows;
}

// The candidates for what follows a token: {id, share}, and what the truth got.
function candidates(opinion, place) {
  return opinion.ids.row(place).map((id, rank) => ({ id, share: opinion.shares.at(place, rank) }));
}

const following = (token) => (token + 1 < length ? page.tokens[token + 1][0] : null);
