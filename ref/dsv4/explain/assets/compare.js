// Two places compared: one is pinned, the other is where the reader goes.

function togglePin() {
  const { token, layer, head } = state;
  look({ pin: state.pin ? null : { token, layer, head } });
}

const placeName = ({ token, layer, head }) => `token ${token} ${tokenChip(token)}, layer ${layer}, ${head < 0 ? "all heads" : `head ${head}`}`;

// A table of both places: shares, routing, streams, and what would come next; empty where nothing is pinned.
function comparison() {
  if (!state.pin) return "";
  const { pin } = state;
  const rows = [...shareRows(pin), ...mixingRows(pin), ...expertRows(pin), ...nextRows(pin)];
  const body = rows.map(([name, before, now, difference]) => `<tr><th scope="row">${name}</th><td>${before}</td><td>${now}</td><td>${difference}</td></tr>`);
  return `<section id="compared" class="block"><h2>Compared <button id="unpin">end</button></h2><p class="note">Pinned: ${placeName(pin)}. Here: ${placeName(state)}.</p>
    <table><thead><tr><th></th><th scope="col">pinned</th><th scope="col">here</th><th scope="col">difference</th></tr></thead><tbody>${body.join("")}</tbody></table></section>`;
}

const signed = (value, digits) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(digits)}`;

function shareRows(pin) {
  const before = sums(pin.layer, pin.token, pin.head);
  const now = sums(state.layer, state.token, state.head);
  return ["window", "entries", "sink"].map((name, place) => [name, percent(before[place]), percent(now[place]), `${signed(100 * (now[place] - before[place]), 1)} points`]);
}

function mixingRows(pin) {
  const sizes = ({ token, layer }) => layers[layer].sizes.row(1, token);
  const before = sizes(pin);
  const now = sizes(state);
  return range(model.hc_mult).map((stream) => [`size of stream ${stream}`, short(before[stream]), short(now[stream]), signed(now[stream] - before[stream], 2)]);
}

function expertRows(pin) {
  const visited = ({ token, layer }) => experts(layer, token).filter(({ weight }) => weight !== undefined).map(({ expert }) => expert).sort((one, other) => one - other);
  const before = visited(pin);
  const now = visited(state);
  const shared = pin.layer === state.layer ? `${now.filter((expert) => before.includes(expert)).length} in common` : "other layers";
  return [["experts", before.join(", "), now.join(", "), shared]];
}

function nextRows(pin) {
  const best = ({ token, layer }) => candidates(opinions[layer + 1], token)[0];
  const [before, now] = [best(pin), best(state)];
  return [["best after the layer", `${chip(before.id)} ${percent(before.share)}`, `${chip(now.id)} ${percent(now.share)}`, before.id === now.id ? "the same" : "another"]];
}
