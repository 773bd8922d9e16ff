// The map: the boxes of the model in the order of the computation, one layer open, the streams beside them.

function drawStrip() {
  const strip = element("strip");
  const scrolled = strip.scrollTop;
  const whole = (id) => boxes.find((box) => box.id === id && box.layer === null);
  const many = layers.length > 8;
  const closed = layers.map((_, layer) => (layer === state.layer ? openLayer(layer) : closedLayer(layer, many)));
  const ends = ["head", "draft", "cache"].map(whole).filter(Boolean).map(boxButton);
  strip.innerHTML = `<svg class="wires" aria-hidden="true"></svg><div class="boxes">${boxButton(whole("embedding"))}${boxButton(whole("repeat"))}${closed.join("")}${ends.join("")}</div>
    <p class="note">Green lines: the ${model.hc_mult} streams of this token, as thick as they are large. Bars in closed layers: window, entries, sink.</p>`;
  strip.scrollTop = scrolled;
  drawWires(strip);
  keepInView(strip);
}

function boxButton(box) {
  const number = boxes.indexOf(box);
  const here = number === boxNumber();
  const done = number < boxNumber() ? " done" : "";
  return `<button class="box ${box.colour}${done}" data-box="${number}" data-id="${box.id}" ${here ? 'aria-current="step"' : ""}><span>${box.label}</span><small>${box.shape}</small></button>`;
}

function closedLayer(layer, many) {
  const [window, entries, sink] = sums(layer, state.token, -1);
  const part = (kind, share) => `<i class="${kind}" style="width:${(100 * share).toFixed(1)}%"></i>`;
  const shares = `<span class="shares" aria-hidden="true">${part("window", window)}${part(kindOf(layer), entries)}${part("sink", sink)}</span>`;
  const said = `Open layer ${layer}, ${layerKinds[layers[layer].kind]}: window ${plain(percent(window))}, entries ${plain(percent(entries))}, sink ${plain(percent(sink))}`;
  const name = many ? layers[layer].kind : layerKinds[layers[layer].kind];
  return `<button class="closed${many ? " small" : ""}" data-layer="${layer}" aria-label="${said}"><span><b>${many ? "" : "Layer "}${layer}</b> ${name}</span>${shares}</button>`;
}

function openLayer(layer) {
  const inside = Object.fromEntries(boxes.filter((box) => box.layer === layer).map((box) => [box.id, boxButton(box)]));
  const place = (id) => inside[id] ?? "<span></span>";
  return `<div class="open" data-open="${layer}"><p><b>Layer ${layer}</b> ${layerKinds[layers[layer].kind]}</p>${inside.engram ?? ""}${place("read1")}
    <div class="attention"><div class="three">${place("latent")}${place("keys")}${place("entries")}${place("queries")}<span></span>${place("indexer")}</div>
    ${place("attention")}<div class="two">${place("unrotate")}${place("output")}</div></div>${place("write1")}${place("read2")}${place("experts")}${place("write2")}</div>`;
}

// Lines between boxes of the open layer, and the streams along the left, drawn where the boxes have come to stand.
function drawWires(strip) {
  const svg = strip.querySelector("svg");
  const origin = svg.getBoundingClientRect();
  const frame = (node) => {
    const { left, right, top, bottom } = node.getBoundingClientRect();
    return { left: left - origin.left, right: right - origin.left, top: top - origin.top, bottom: bottom - origin.top };
  };
  const of = (id) => {
    const node = strip.querySelector(`.open [data-id="${id}"]`);
    return node ? frame(node) : null;
  };
  const pairs = [
    ["engram", "read1"], ["read1", "latent"], ["read1", "keys"], ["read1", "entries"], ["latent", "queries"], ["latent", "indexer"],
    ["entries", "indexer"], ["queries", "attention"], ["keys", "attention"], [of("indexer") ? "indexer" : "entries", "attention"],
    ["attention", "unrotate"], ["output", "write1"], ["read2", "experts"], ["experts", "write2"],
  ];
  const wires = pairs.map(([from, to]) => wire(of(from), of(to)));
  svg.innerHTML = wires.join("") + streamLines(strip, frame);
}

function wire(from, to) {
  if (!from || !to) return "";
  const start = (from.left + from.right) / 2;
  const end = Math.min(Math.max(start, to.left + 12), to.right - 12);
  const middle = (from.bottom + to.top) / 2;
  const begin = Math.min(Math.max(end, from.left + 12), from.right - 12);
  return `<path class="wire" d="M${begin} ${from.bottom}C${begin} ${middle} ${end} ${middle} ${end} ${to.top}"/>`;
}

// Each stream as a line that is as thick as the stream is large, from one sub-layer to the next.
function streamLines(strip, frame) {
  const sizes = streamSizes(state.token);
  const largest = Math.max(...sizes.flat());
  const places = streamPlaces(strip, frame);
  const drawn = range(model.hc_mult).map((stream) =>
    places.slice(1).map((bottom, segment) => {
      const thick = 0.7 + 5.5 * (sizes[Math.min(segment, sizes.length - 1)][stream] / largest);
      return `<rect class="flow" x="${(5 + 32 * (stream + 0.5) / model.hc_mult - thick / 2).toFixed(1)}" width="${thick.toFixed(1)}" y="${places[segment].toFixed(1)}" height="${Math.max(0, bottom - places[segment]).toFixed(1)}"/>`;
    }),
  );
  return drawn.flat().join("");
}

// Where the streams change: at the repeat, after each sub-layer of each layer, at the head.
function streamPlaces(strip, frame) {
  const places = [frame(strip.querySelector('[data-id="repeat"]')).bottom];
  for (const layer of range(layers.length)) {
    const closed = strip.querySelector(`[data-layer="${layer}"]`);
    if (closed) {
      const { top, bottom } = frame(closed);
      places.push((top + bottom) / 2, bottom);
    } else {
      places.push(...["write1", "write2"].map((id) => frame(strip.querySelector(`.open [data-id="${id}"]`)).bottom));
    }
  }
  return [...places, frame(strip.querySelector('[data-id="head"]')).bottom];
}

// Scroll the map, and not the page, so that the chosen box can be seen.
function keepInView(strip) {
  const box = strip.querySelector("[aria-current]");
  if (!box || strip.scrollHeight <= strip.clientHeight + 1) return;
  const view = strip.getBoundingClientRect();
  const place = box.getBoundingClientRect();
  if (place.top < view.top + 10) strip.scrollTop += place.top - view.top - 40;
  if (place.bottom > view.bottom - 10) strip.scrollTop += place.bottom - view.bottom + 40;
}
