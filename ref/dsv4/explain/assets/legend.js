// Above the text: what its marks mean, and who differs — heads, streams, experts — with buttons to choose a head.

const legends = {
  nothing: () => curve("The size of each token's embedding along the text") + keyLine(["stream|size of each token's embedding, root mean square"]),
  shares: () => headBars() + keyLine(shareKeys()),
  scores: () => headBars() + keyLine(scoreKeys()),
  slots: () => headBars() + keyLine([`${kindOf(state.layer)}|token, the stronger the more it counts in the newest entry`, `bar-${kindOf(state.layer)}|entries before it`]),
  mixing: () => curves() + keyLine([`stream|below each token: one bar for each of ${model.hc_mult} streams`]),
  experts: expertLegend,
  foreseen: () => curve("The probability of each token along the text") + keyLine(["stream|token, the stronger, the better it was predicted"]),
  drafts: () => curve("How probable it is that a draft is accepted, along the text") + keyLine(["stream|draft accepted", "hatch|draft refused", "full|curve: how probable that is at temperature 1"]),
  cache: () => cacheBars() + keyLine(cacheKeys()),
  ngrams: () => curves() + keyLine(["hca|the same n-gram, the stronger the longer", "frame|tokens of this n-gram", "full|curves: the gate of each stream"]),
};

function drawLegend() {
  element("legend").innerHTML = legends[pictureOf[state.box]]();
  document.querySelectorAll("#legend canvas[data-curve]").forEach(drawCurves);
  const raster = document.querySelector("#legend canvas[data-raster]");
  if (raster) drawRaster(raster);
}

// One line of samples, each "kind|words"; kinds: a colour (filled), bar-…, lanes, dots, hatch, frame.
function keyLine(items) {
  const sample = (kind) => `<i class="sample ${kind}" aria-hidden="true"></i>`;
  return `<p class="key">${items.map((item) => item.split("|")).map(([kind, words]) => `<span>${sample(kind)}${words}</span>`).join("")}</p>`;
}

function shareKeys() {
  const layer = layers[state.layer];
  const keys = ["window|window token"];
  if (layer.kind === "CSA") keys.push("lanes|CSA entry: 8 tokens, overlapping");
  if (isV41 && layer.ratio) keys.push(`bar-csa|entry of layer ${layer.source}: ${several(layer.ratio, "token")}`);
  if (layer.kind === "HCA") keys.push("bar-hca|HCA entry: 128 tokens");
  if (layer.choice) keys.push("dots|refused");
  const [first] = keysRead(state.layer, state.token, state.head);
  if (first) keys.push(`full|full colour: ${percent(first.share)}`);
  return keys;
}

function scoreKeys() {
  const keys = [`csa|${isV41 ? "" : "CSA "}entry, the stronger the better its score`, "dots|refused"];
  if (poolSpans(state.layer, state.token).length) keys.push("bar-hca|block of the pool");
  return keys;
}

function cacheKeys() {
  const keys = ["window|key in the window"];
  if (layers[state.layer].makes) keys.push(`bar-${kindOf(state.layer)}|entry`, "dots|waits for its entry to be complete");
  return keys;
}

// A bar for all heads and for each head, or group of heads: window, entries, sink. Many are sorted, and scroll.
function headBars() {
  const groups = page.room.sums;
  const size = heads / groups;
  const rows = range(groups).map((group) => ({ head: group * size, shares: sums(state.layer, state.token, group * size) }));
  const place = { window: 0, entries: 1, sink: 2 }[state.order];
  if (place !== undefined) rows.sort((one, other) => other.shares[place] - one.shares[place]);
  const name = (head) => (size === 1 ? `head ${head}` : `heads ${head}–${head + size - 1}`);
  const bars = rows.map(({ head, shares }) => headBar(head, name(head), shares, chosenGroup(size) === head));
  const all = headBar(-1, "all heads", sums(state.layer, state.token, -1), state.head < 0);
  return `${groups > 8 ? orderButtons() : ""}<div class="heads${groups > 8 ? " many" : ""}" role="group" aria-label="Heads">${all}${bars.join("")}</div>`;
}

const chosenGroup = (size) => (state.head < 0 ? null : Math.floor(state.head / size) * size);

function headBar(head, name, [window, entries, sink], chosen) {
  const part = (kind, share, words) =>
    `<i class="${kind}" style="width:${(100 * share).toFixed(2)}%">${share > 0.16 ? `${words} ${percent(share)}` : share > 0.06 ? percent(share) : ""}</i>`;
  const said = `${name}: window ${plain(percent(window))}, entries ${plain(percent(entries))}, sink ${plain(percent(sink))}`;
  return `<div class="head"><button data-head="${head}" aria-pressed="${chosen}" aria-label="${said}">${name}</button><span class="shares" aria-hidden="true">${part("window", window, "window")}${part(kindOf(state.layer), entries, "entries")}${part("sink", sink, "sink")}</span></div>`;
}

function orderButtons() {
  const button = (order) => `<button data-order="${order}" aria-pressed="${state.order === order}">${order}</button>`;
  return `<p class="key">Sort by ${["number", "window", "entries", "sink"].map(button).join(" ")}</p>`;
}

// How much each token reads of each stream, or writes to it, all along the text: one curve for each stream.
function curves() {
  const n = model.hc_mult;
  return `<canvas data-curve="${n}" style="height:${17 * n}px" role="img" aria-label="Curves along the text, one for each of ${n} streams"></canvas>`;
}

const curve = (said) => `<canvas data-curve="1" style="height:92px" role="img" aria-label="${said}"></canvas>`;

// The value of a curve at a token, from 0 to 1.
function curveValue(token, curve) {
  const part = state.box.endsWith("1") ? 0 : 1;
  switch (pictureOf[state.box]) {
    case "foreseen": return token ? opinions.at(-1).truth.at(token - 1) : 0;
    case "drafts": return drafts && token ? drafts.chance.at(token - 1) : 0;
    case "ngrams": return layers[state.layer].lookup.gates.at(token, curve);
    case "nothing": return firstSizes.at(token) / largestFirstSize;
  }
  const { pre, post } = mixing(state.layer, part, token);
  return state.box.startsWith("write") ? post[curve] / 2 : pre[curve];
}

const largestFirstSize = Math.max(...range(length).map((token) => firstSizes.at(token)));

// What this layer and all layers keep, beside full attention.
function cacheBars() {
  const totals = layers.map((_, layer) => sum(cacheBytes(layer, state.token)));
  const full = (state.token + 1) * page.cache.row;
  const row = (name, size, of, kind) => `<div class="head"><span>${name}</span><span class="shares"><i class="${kind}" style="width:${Math.min(100, (100 * size) / of).toFixed(1)}%">${size / of > 0.15 ? bytes(size) : ""}</i></span></div>`;
  const most = Math.max(full, totals[state.layer]);
  const all = Math.max(full * layers.length, sum(totals));
  return `<div class="heads">${row(`layer ${state.layer}`, totals[state.layer], most, "window")}${row("in full", full, most, "sink")}${row("all layers", sum(totals), all, "window")}${row("in full", full * layers.length, all, "sink")}</div>`;
}

function drawCurves(canvas) {
  const count = Number(canvas.dataset.curve);
  const { context, width, height } = sized(canvas);
  const high = height / count;
  for (let curve = 0; curve < count; curve++) {
    context.beginPath();
    for (let token = 0; token < length; token++) {
      context.lineTo(((token + 0.5) / length) * width, high * (curve + 1) - 1 - (high - 3) * curveValue(token, curve));
    }
    context.strokeStyle = colour("stream");
    context.stroke();
  }
  markPlace(context, width, height);
}

// A canvas as large as it is shown.
function sized(canvas) {
  const { width, height } = canvas.getBoundingClientRect();
  const scale = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  return { context, width, height };
}

function markPlace(context, width, height) {
  context.fillStyle = getComputedStyle(document.body).color;
  context.fillRect(((state.token + 0.5) / length) * width - 0.75, 0, 1.5, height);
}

function expertLegend() {
  const count = model.n_routed_experts;
  const high = Math.max(1, Math.min(13, Math.floor(170 / count)));
  const visited = experts(state.layer, state.token).filter(({ weight }) => weight !== undefined);
  visited.sort((one, other) => other.weight - one.weight);
  const keys = [`expert|visits expert ${visited[0].expert}, too`];
  if (visited[1]) keys.push(`bar-window|visits expert ${visited[1].expert}, too`);
  return `<h2>Which tokens visit which expert <span>a row for each of ${count}, a column for each token</span></h2>
    <canvas data-raster style="height:${high * count}px" role="img" aria-label="Visits of ${length} tokens to ${count} experts"></canvas>${keyLine(keys)}`;
}

function drawRaster(canvas) {
  const { context, width, height } = sized(canvas);
  const high = height / model.n_routed_experts;
  const own = new Set(experts(state.layer, state.token).filter(({ weight }) => weight !== undefined).map(({ expert }) => expert));
  visitors(state.layer).forEach((tokens, expert) => {
    context.fillStyle = colour(own.has(expert) ? "expert" : "sink", own.has(expert) ? 1 : 0.65);
    for (const [token] of tokens) context.fillRect((token / length) * width, high * expert + 1, Math.max(1, width / length - 0.5), Math.max(1, high - 2));
  });
  markPlace(context, width, height);
}
