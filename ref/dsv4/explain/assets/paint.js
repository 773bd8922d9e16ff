// What each box draws on the text, and how that is said without a picture.

const pictureOf = {
  embedding: "nothing", repeat: "nothing", read1: "mixing", read2: "mixing", write1: "mixing", write2: "mixing",
  latent: "shares", queries: "shares", keys: "shares", attention: "shares", unrotate: "shares", output: "shares",
  entries: "slots", indexer: "scores", experts: "experts", head: "foreseen", draft: "drafts", cache: "cache", engram: "ngrams",
};

const painters = {
  nothing: () => "The text without marks.",
  shares: paintShares,
  scores: paintScores,
  slots: paintSlots,
  mixing: paintMixing,
  experts: paintExperts,
  foreseen: paintForeseen,
  drafts: paintDrafts,
  cache: paintCache,
  ngrams: paintNgrams,
};

function paint() {
  clearMarks();
  const said = painters[pictureOf[state.box]]();
  element("marks").setAttribute("aria-label", said);
}

// The lane of an entry's bar: HCA above the text; CSA's neighbours overlap, so they stand in two lanes below it; V4.1's do not.
const lane = (layer, entry) => ({ HCA: -1, CSA: entry % 2 })[layers[layer].kind] ?? 0;

function paintShares() {
  const { layer, token, head } = state;
  const reading = keysRead(layer, token, head);
  const largest = reading[0]?.share || 1;
  for (const { kind, first, last, share, entry } of reading) {
    if (kind === "window") fill(first, last, colour("window", strength(share, largest)));
    else bar(first, last, lane(layer, entry), colour(kind, strength(share, largest)));
  }
  paintRefused(layer, token);
  windowEdge(token);
  const [first] = reading;
  const best = first ? `The largest share, ${plain(percent(first.share))}, goes to ${spanWords(first.first, first.last)}.` : "";
  return `Shares of attention on the text. ${best}`;
}

const plain = (markup) => markup.replace("&lt;", "<");

// Where the window begins.
function windowEdge(token) {
  const first = Math.max(0, token - model.sliding_window + 1);
  const [place] = marks.places[first];
  if (!first || !place) return;
  marks.context.fillStyle = colour("window");
  marks.context.fillRect(place.x - 1, place.y - 3, 2, place.height + 6);
}

function paintRefused(layer, token) {
  for (const entry of entriesRefused(layer, token)) dots(...span(layer, entry), lane(layer, entry));
}

function paintScores() {
  const { layer, token } = state;
  const judged = entriesJudged(layer, token);
  const largest = Math.max(...judged.map(({ score }) => score), 1e-30);
  for (const { entry, score, chosen } of judged) {
    if (chosen) bar(...span(layer, entry), lane(layer, entry), colour("csa", Math.max(0.15, strength(score, largest))));
  }
  paintRefused(layer, token);
  for (const [first, last] of poolSpans(layer, token)) bar(first, last, -1, colour("hca", 0.7), 3);
  const count = chosenCount(layer, token);
  return `Entries on the text: ${count} chosen, ${visible(layer, token) - count} refused.`;
}

// The newest entry that the token sees: how much of each of its tokens went into it.
function paintSlots() {
  const { layer, token } = state;
  const newest = visible(layer, token) - 1;
  for (let entry = 0; entry < newest; entry++) {
    bar(...span(layer, entry), lane(layer, entry), colour(kindOf(layer), 0.25), 2);
  }
  if (newest < 0) return "No entry is complete yet.";
  const [first, last] = span(layer, newest);
  const shares = slotShares(layer, newest);
  const largest = Math.max(...shares);
  shares.forEach((share, place) => fill(first + place, first + place, colour(kindOf(layer), strength(share, largest))));
  bar(first, last, lane(layer, newest), colour(kindOf(layer)));
  return `What went into entry ${newest}, tokens ${first} to ${last}.`;
}

// How much each token of an entry's span counts in it; slots before the text count nothing and are left out.
function slotShares(layer, entry) {
  const [first, last] = span(layer, entry);
  return layers[layer].slots.row(entry).slice(-(last - first + 1));
}

// For each token a small bar for each stream: what it reads of it (pre), or writes to it (post).
function paintMixing() {
  const part = state.box.endsWith("1") ? 0 : 1;
  const writes = state.box.startsWith("write");
  marks.context.fillStyle = colour("stream");
  for (let token = 0; token < length; token++) {
    const [place] = marks.places[token];
    if (!place || place.y < marks.top || place.y > marks.bottom) continue;
    const { pre, post } = mixing(state.layer, part, token);
    const width = Math.min(5, (place.width - 1) / model.hc_mult);
    (writes ? post.map((share) => share / 2) : pre).forEach((share, stream) => {
      const high = 9 * Math.min(1, share);
      marks.context.fillRect(place.x + 1 + stream * width, place.y + place.height + 11 - high, Math.max(0.5, width - 0.5), high);
    });
  }
  return `For each token, how much of each stream it ${writes ? "writes" : "reads"}.`;
}

// The tokens that visit the same two heaviest experts: filled for the first, underlined for the second.
function paintExperts() {
  const visited = experts(state.layer, state.token).filter(({ weight }) => weight !== undefined);
  visited.sort((one, other) => other.weight - one.weight);
  const [first, second] = visited.map(({ expert }) => visitors(state.layer)[expert]);
  const largest = Math.max(...[...first, ...(second ?? [])].map(([, weight]) => weight));
  for (const [token, weight] of first) fill(token, token, colour("expert", 0.75 * strength(weight, largest)));
  for (const [token, weight] of second ?? []) bar(token, token, 0, colour("window", strength(weight, largest)));
  return `Tokens that visit expert ${visited[0].expert}: ${first.length}.`;
}

// Each token by the probability that the model gave it one place earlier.
function paintForeseen() {
  const last = opinions.at(-1);
  for (let token = 1; token < length; token++) {
    fill(token, token, colour("stream", 0.85 * last.truth.at(token - 1)));
  }
  return "How well each token was predicted: the stronger, the more probable.";
}

// Drafts stand at the place that they are for: filled where accepted, hatched where refused.
function paintDrafts() {
  if (!drafts) return "No drafts.";
  for (let place = 1; place + 1 < length; place++) {
    if (drafts.accepted.at(place - 1)) fill(place + 1, place + 1, colour("stream", 0.45));
    else hatch(place + 1, colour("sink", 0.8));
  }
  return `Drafts of ${drafterWords}: filled where accepted, hatched where refused.`;
}

// What the cache of a layer holds after the chosen token.
function paintCache() {
  const { layer, token } = state;
  fill(Math.max(0, token - model.sliding_window + 1), token, colour("window", 0.35));
  const { ratio, makes } = layers[layer];
  for (let entry = 0; makes && entry < visible(layer, token); entry++) {
    bar(...span(layer, entry), lane(layer, entry), colour(kindOf(layer), 0.6));
  }
  const pending = visible(layer, token) * ratio;
  if (makes && pending <= token) dots(pending, token, lane(layer, visible(layer, token)));
  return "What is kept: filled window keys, bars for entries, a dotted line for tokens whose entry is not complete.";
}
