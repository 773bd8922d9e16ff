// What is looked at: a token, a layer, a head, a box; what it is compared with; and the address that says so.

const boxes = listBoxes();
const state = { token: 0, layer: 0, head: -1, box: "attention", pin: null, theme: "light", order: "number" };
let redraw = () => {}; // set where everything is there

// All boxes in the order of the computation; layer null for those of the whole model.
function listBoxes() {
  const d = model.hidden_size;
  const n = model.hc_mult;
  const found = [
    { id: "embedding", layer: null, colour: "sink", label: "embedding", shape: `${large(model.vocab_size)} → ${d}` },
    { id: "repeat", layer: null, colour: "stream", label: `${n} streams`, shape: `→ ${n}×${d}` },
  ];
  layers.forEach((layer, number) => found.push(...layerBoxes(layer, number, d, n)));
  found.push({ id: "head", layer: null, colour: "sink", label: "head", shape: `${n}×${d} → ${large(model.vocab_size)}` });
  const further = drafts?.blocks ? several(drafts.blocks.shape[1], "token") : "one token";
  if (model.drafter) found.push({ id: "draft", layer: null, colour: "stream", label: `${model.drafter} draft`, shape: `${further} further` });
  found.push({ id: "cache", layer: null, colour: "window", label: "cache", shape: "kept for later" });
  return found;
}

function layerBoxes(layer, number, d, n) {
  const box = (id, colour, label, shape) => ({ id, layer: number, colour, label, shape });
  const kind = layer.kind === "HCA" ? "hca" : "csa";
  const read = `${n}×${d} → ${d}`;
  const write = `${d} → ${n}×${d}`;
  const found = layer.lookup ? [box("engram", "hca", "Engram", `+ ${several(layer.lookup.rows.shape[1], "row")}`)] : [];
  found.push(
    box("read1", "stream", "mHC read", read),
    box("latent", "window", "q latent", `${model.q_lora_rank}`),
    box("queries", "window", "queries", `${heads}×${model.head_dim}`),
    box("keys", "window", "keys", `window ${model.sliding_window}`),
  );
  if (layer.makes) found.push(box("entries", kind, "entries", `${layer.ratio} → 1`));
  if (layer.chooses) found.push(box("indexer", "csa", "indexer", `top ${model.index_topk}`));
  found.push(
    box("attention", "window", "joint softmax + sink", ""),
    box("unrotate", "window", "inverse RoPE", `${heads}×${model.head_dim}`),
    box("output", "window", "grouped output", `→ ${d}`),
    box("write1", "stream", "mHC write", write),
    box("read2", "stream", "mHC read", read),
    box("experts", "expert", `experts: ${model.num_experts_per_tok} of ${model.n_routed_experts}, + shared`, `${d}`),
    box("write2", "stream", "mHC write", write),
  );
  return found;
}

const boxNumber = () => boxes.findIndex(({ id, layer }) => id === state.box && (layer === null || layer === state.layer));
const currentBox = () => boxes[boxNumber()];

// Change what is looked at, keep it possible, write it into the address and draw.
function look(changes) {
  Object.assign(state, changes);
  state.token = Math.min(length - 1, Math.max(0, state.token));
  state.layer = Math.min(layers.length - 1, Math.max(0, state.layer));
  if (!(state.head >= -1 && state.head < heads)) state.head = -1;
  if (boxNumber() < 0) state.box = "attention";
  history.replaceState(null, "", `#${address()}`);
  redraw();
}

// The box that is so many further in the order of the computation.
function step(by) {
  const { id, layer } = boxes[(boxNumber() + by + boxes.length) % boxes.length];
  look(layer === null ? { box: id } : { box: id, layer });
}

// Another layer; a box of the whole model gives way to attention.
const toLayer = (layer) => look({ layer, box: currentBox().layer === null ? "attention" : state.box });

function address() {
  const parts = { token: state.token, layer: state.layer, box: state.box, head: state.head, theme: state.theme };
  if (state.pin) parts.pin = `${state.pin.token}.${state.pin.layer}.${state.pin.head}`;
  return new URLSearchParams(parts).toString();
}

// What an address asks for; where it asks for nothing, the place of the text with the most to see.
function readAddress() {
  const asked = new URLSearchParams(location.hash.slice(1));
  const whole = (name, otherwise) => (/^-?\d{1,7}$/.test(asked.get(name) ?? "") ? Number(asked.get(name)) : otherwise);
  const start = opening();
  const pin = (asked.get("pin") ?? "").split(".").map(Number);
  const dark = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  const valid = pin.length === 3 && pin[0] >= 0 && pin[0] < length && pin[1] >= 0 && pin[1] < layers.length;
  return {
    token: whole("token", start.token),
    layer: whole("layer", start.layer),
    head: whole("head", start.head),
    box: asked.get("box") ?? start.box,
    theme: asked.get("theme") ?? dark,
    pin: valid && pin[2] >= -1 && pin[2] < heads ? { token: pin[0], layer: pin[1], head: pin[2] } : null,
  };
}

// The last layer that compresses, and the token in its second half that gives most to entries, in its strongest head.
function opening() {
  const compressing = range(layers.length).filter((layer) => layers[layer].ratio && layers[layer].kind !== "HCA");
  const layer = compressing.at(-1) ?? layers.length - 1;
  const late = range(length).filter((token) => token >= length / 2);
  const toEntries = (token, head) => sums(layer, token, head)[1];
  const token = late.reduce((best, one) => (toEntries(one, -1) > toEntries(best, -1) ? one : best), length - 1);
  const strongest = range(heads).reduce((best, one) => (toEntries(token, one) > toEntries(token, best) ? one : best), 0);
  return { token, layer, head: strongest, box: "attention" };
}
