// Details of the end: the head, the MTP module's draft, and the cache.

details.head = () => {
  const { token } = state;
  const last = opinions.at(-1);
  const found = candidates(last, token);
  const pre = headPre.row(token);
  const largest = Math.max(...pre);
  const truth = following(token);
  const truthWords = truth === null ? "" : ` What follows, ${chip(truth)}, gets ${percent(last.truth.at(token))}: place ${large(last.rank.at(token))} of ${large(model.vocab_size)}.`;
  return {
    title: "Head",
    where: `${model.hc_mult} streams → probabilities of the next token`,
    text: `After ${tokenChip(token)} the model would say ${chip(found[0].id)} with ${percent(found[0].share)}.${truthWords}`,
    body:
      `<div id="candidates">${block("The best candidates", "", bars(found.map(({ id, share }) => ({ label: chip(id), part: share / found[0].share, number: percent(share), share }))))}</div>` +
      block("What the head reads of each stream", "pre", bars(pre.map((share, stream) => ({ label: `stream ${stream}`, part: share / largest, number: share.toFixed(2) })))) +
      shapes([["streams", [length, model.hc_mult, model.hidden_size]], ["logits", [length, model.vocab_size]]]) +
      equation(`x = RMSNorm(Σ_j pre_j · X_j)${isV41 ? ", pre of the last sub-layer" : ""}\nlogits = head @ x`),
  };
};

details.draft = () => {
  const { token } = state;
  const accepted = drafts ? sum(range(drafts.accepted.shape[0]).map((place) => drafts.accepted.at(place))) : 0;
  const count = drafts ? drafts.accepted.shape[0] : 0;
  const own = token < 1 || !drafts ? "" : draftWords(token);
  return {
    title: `${model.drafter} draft`,
    where: drafts?.blocks ? "a drafter that guesses a block at once" : "the module that guesses one token further",
    text: `${drafts?.blocks ? "From what the target layers held of the tokens before, small stages guess a block of tokens behind this one, which the model then checks." : "From the streams of the token before and the embedding of this one, one more block guesses what follows: a draft, which the model then checks."}${own}`,
    body:
      (count ? `<p>Of this text's ${several(count, "draft")}, <b>${accepted}</b> (${percent(accepted / count)}) are the head's own best token: decoding at temperature 0 accepts just those.</p>` : "") +
      (token < 1 || !drafts ? "" : `<div id="drafted">${bars(candidates(drafts.opinions, token - 1).map(({ id, share }) => ({ label: chip(id), part: share, number: percent(share), share })))}</div>`) +
      (drafts?.blocks ? blockDetails(token, count) : mtpDetails(count)),
  };
};

const mtpDetails = (count) =>
  shapes([["streams of t − 1", [count, model.hc_mult, model.hidden_size]], ["embedding of t", [count, model.hidden_size]], ["logits for t + 1", [count, model.vocab_size]]]) +
  equation("X = h_proj @ RMSNorm(streams) + e_proj @ RMSNorm(embed)\nlogits = head(block(X))");

// DSpark's block behind a token: each place with its confidence, and whether the text goes on like that.
function blockDetails(token, count) {
  const places = drafts.blocks.shape[1];
  const rows = token < 1 ? [] : range(places).map((place) => {
    const id = drafts.blocks.at(token - 1, place);
    const [truth] = page.tokens[token + 1 + place] ?? [null];
    const share = drafts.confidence.at(token - 1, place);
    return { label: `${chip(id)}${truth === null ? "" : id === truth ? " ✓" : " ✗"}`, part: share, number: percent(share), share };
  });
  return (
    (rows.length ? `<div id="block">${block("The whole block", "bar: DSpark's confidence; ✓: so the text goes on", bars(rows))}</div>` : "") +
    shapes([["places", [count, places, model.hidden_size]], ["logits", [count, places, model.vocab_size]], ["confidence", [count, places]]]) +
    equation("X = stages(given, noise, …, noise)\nlogits_i = head(X_i) + W2 @ W1[token i]\nconfidence_i = σ(w · [X_i; W1[token i]])")
  );
}

function draftWords(token) {
  const [draft] = candidates(drafts.opinions, token - 1);
  const [best] = candidates(opinions.at(-1), token);
  const judged = drafts.accepted.at(token - 1)
    ? `Here both say ${chip(best.id)}: <b>accepted</b>.`
    : `Here the draft is ${chip(draft.id)}, the head says ${chip(best.id)}: <b>refused</b>.`;
  return ` ${judged} Drawn at temperature 1, a draft would be accepted here with ${percent(drafts.chance.at(token - 1))}.`;
}

details.cache = () => {
  const { token, layer } = state;
  const tokens = token + 1;
  const full = tokens * page.cache.row;
  const totals = layers.map((_, other) => sum(cacheBytes(other, token)));
  return {
    title: "Cache",
    where: `what is kept of ${several(tokens, "token")} for the tokens to come`,
    text: `All layers keep <b>${bytes(sum(totals))}</b>; with full attention, one key for each token in each layer, it would be <b>${bytes(layers.length * full)}</b>. ${decodeWords(layer, token)}`,
    body:
      `<div id="cache">${block("Bytes of each layer", "as the released model stores them", `<div class="scroll">${cacheTable(totals, full)}</div>`)}</div>` +
      growthPicture(layer) +
      shapes([["window", [Math.min(tokens, model.sliding_window), model.head_dim]], ["entries", [layers[layer].makes ? visible(layer, token) : 0, model.head_dim]], ["indexer keys", [layers[layer].makes && layers[layer].chooses ? visible(layer, token) : 0, model.index_head_dim]]]),
  };
};

// What one more token costs where there is a cache.
function decodeWords(layer, token) {
  const { ratio, makes } = layers[layer];
  const reads = Math.min(token + 1, model.sliding_window) + chosenCount(layer, token);
  const completes = makes && (token + 1) % ratio === 0 ? " and completes an entry" : "";
  return `If token ${token} were generated with a cache, layer ${layer} would compute this one token alone: it adds one key${completes}, and its query reads ${several(reads, "row")}.`;
}

function cacheTable(totals, full) {
  const rows = layers.map(({ kind }, layer) => {
    const parts = cacheBytes(layer, state.token).map((size) => `<td>${size ? bytes(size) : "–"}</td>`);
    const here = layer === state.layer ? ' class="here"' : "";
    return `<tr${here}><th scope="row">${layer} ${kind}</th>${parts.join("")}<td data-bytes="${totals[layer]}"><b>${bytes(totals[layer])}</b></td><td>${percent(totals[layer] / full)}</td></tr>`;
  });
  const called = { compressed: "entries", "indexer keys": "keys", "token classes": "classes" };
  const names = page.cache.parts.map((part) => called[part] ?? part).map((name) => `<th scope="col">${name}</th>`);
  return `<table class="bytes"><thead><tr><th scope="col">layer</th>${names.join("")}<th scope="col">all</th><th scope="col">of full</th></tr></thead><tbody>${rows.join("")}</tbody></table>`;
}

// The bytes of this layer as the text grows, beside those of full attention.
function growthPicture(layer) {
  const sizes = range(length).map((token) => sum(cacheBytes(layer, token)));
  const full = range(length).map((token) => (token + 1) * page.cache.row);
  const largest = Math.max(...sizes, ...full);
  const line = (values) => `M${values.map((value, token) => `${(4 + (token / Math.max(1, length - 1)) * 312).toFixed(1)} ${(92 - 84 * (value / largest)).toFixed(1)}`).join("L")}`;
  const x = (4 + (state.token / Math.max(1, length - 1)) * 312).toFixed(1);
  const said = `At the end of the text ${bytes(sizes.at(-1))}, with full attention ${bytes(full.at(-1))}`;
  const drawn = `<path class="curve sinkline" stroke-dasharray="5 3" d="${line(full)}"/><path class="curve" d="${line(sizes)}"/><path class="axis" d="M${x} 4V94"/>`;
  return block(`Layer ${layer} as the text grows`, "dashed: full attention", picture(320, 98, said, drawn) + `<p class="note">${said}.</p>`);
}
