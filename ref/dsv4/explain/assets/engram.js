// The Engram (V4.1): which n-grams end at a token, where else they stand, and how much of the value each stream gets.

// Whether two tokens look up the same n-gram of an order, 2 or more: all of its rows are the same.
function sameNgram(layer, order, one, other) {
  const { rows } = layers[layer].lookup;
  const { heads: each } = model.engram;
  return range(each).every((head) => rows.at(one, (order - 2) * each + head) === rows.at(other, (order - 2) * each + head));
}

// The longest n-gram that two tokens share: its order, or 0.
function sharedNgram(layer, one, other) {
  for (let order = model.engram.longest; order > 1; order--) if (sameNgram(layer, order, one, other)) return order;
  return 0;
}

// The other tokens at which this one's n-gram of an order is looked up, too.
const others = (layer, token, order) => range(length).filter((other) => other !== token && sameNgram(layer, order, token, other));

function paintNgrams() {
  const { layer, token } = state;
  let count = 0;
  for (let other = 0; other < length; other++) {
    const order = other === token ? 0 : sharedNgram(layer, token, other);
    if (!order) continue;
    count += 1;
    fill(other, other, colour("hca", 0.15 + (0.6 * (order - 1)) / (model.engram.longest - 1)));
  }
  for (let at = Math.max(0, token - model.engram.longest + 1); at <= token; at++) frameToken(at, colour("hca"));
  return `Tokens that end an n-gram which token ${token} ends, too: ${count}.`;
}

function ngramSentence() {
  const { layer, token } = state;
  const { longest } = model.engram;
  const gates = layers[layer].lookup.gates.row(token);
  const most = gates.indexOf(Math.max(...gates));
  const found = others(layer, token, 2).length;
  return `Layer ${layer}: the last ${longest} tokens up to ${token} ${tokenChip(token)} name rows of a table. Their value goes mostly to stream ${most}, with a gate of <b class="hca">${percent(gates[most])}</b>. ${found ? `${several(found, "other token")} of the text ${found === 1 ? "ends" : "end"} the same pair.` : "No other token of the text ends the same pair."}`;
}

details.engram = () => {
  const { layer, token } = state;
  const { rows, gates } = layers[layer].lookup;
  const { longest, heads: each, width } = model.engram;
  const gate = gates.row(token);
  const n = model.hc_mult;
  return {
    title: "Engram",
    where: "what a few tokens say together, looked up",
    text: `Each n-gram that ends at token ${token} ${tokenChip(token)}, of 2 to ${longest} tokens, is hashed ${each} times, and each hash names a row of a table. Tokens that are alike but for case, marks and spaces count as one. The rows make one value and a key for each stream; the value is added by as much as the key resembles the stream.`,
    body:
      ngramTable(layer, token) +
      `<div id="gates">${block("Gate of each stream", "how much of the value it gets", bars(gate.map((share, stream) => ({ label: `stream ${stream}`, part: share, number: percent(share), kind: "hca", share }))))}</div>` +
      shapes([["rows", [length, rows.shape[1]]], ["numbers read", [length, rows.shape[1] * width]], ["keys and value", [length, n + 1, model.hidden_size]], ["gates", [length, n]]]) +
      equation("row = (XOR_i class[t−i] · mult_i) mod prime + offset\ndot_j = RMSNorm(K_j) · RMSNorm(X_j) / √d\ngate_j = σ(±√|dot_j|)\nX_j += gate_j · V"),
  };
};

// The n-grams, the longest last: their words, how many other tokens end them, and the first of their rows.
function ngramTable(layer, token) {
  const { rows } = layers[layer].lookup;
  const { longest, heads: each } = model.engram;
  const body = range(longest - 1).map((number) => {
    const order = number + 2;
    const words = range(order).map((step) => token - order + 1 + step).map((at) => (at < 0 ? '<span class="chip">pad</span>' : tokenChip(at)));
    const named = range(Math.min(each, 3)).map((head) => large(rows.at(token, number * each + head)));
    return `<tr data-order="${order}" data-others="${others(layer, token, order).length}"><th scope="row">${order}</th><td>${words.join("")}</td><td>${others(layer, token, order).length}</td><td>${named.join(", ")}${each > 3 ? ", …" : ""}</td></tr>`;
  });
  return `<div id="ngrams">${block("N-grams that end here", "", `<div class="scroll"><table class="bytes"><thead><tr><th scope="col">n</th><th scope="col">tokens</th><th scope="col">others</th><th scope="col">rows</th></tr></thead><tbody>${body.join("")}</tbody></table></div>`)}</div>`;
}
