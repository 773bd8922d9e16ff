// A short walk: a dozen places worth seeing, chosen from the numbers of this text.

const tour = { steps: [], at: null };

function tourSteps() {
  const first = (test) => layers.findIndex(test);
  const csa = first(({ chooses }) => chooses);
  const hca = first(({ kind }) => kind === "HCA");
  const reuse = first(({ kind }) => kind === "Reuse");
  const pool = first((layer) => layer.pool !== null);
  const engram = first((layer) => layer.lookup !== null);
  const byId = first(({ by_id }) => by_id);
  const byScore = first(({ by_id }) => !by_id);
  const { token } = opening();
  const found = [
    { at: { box: "embedding", token, head: -1 }, text: "Each token is a row of a table. Follow one of them: it is framed in the text." },
    { at: { box: "repeat" }, text: `The row is copied into ${model.hc_mult} streams. They are the memory of the pass: every sub-layer reads from them and writes to them.` },
    engram < 0 ? null : { at: { box: "engram", layer: engram }, text: "This layer begins with a lookup: the last few tokens name rows of a large table, and what stands there is added to the streams." },
    { at: { box: "read1", layer: 0 }, text: "A sub-layer takes one vector, so the streams are mixed into one. The weights depend on the token." },
    { at: { box: "attention", layer: 0 }, text: "Attention to the last tokens, the window. Blue words are read. The sink takes the attention that goes to no word." },
    csa < 0 ? null : { at: { box: "entries", layer: csa }, text: isV41 ? "To see further, this layer makes entries of the text, which the layers behind it read, too." : "To see further, this layer turns every 4 tokens into one entry, which also looks at the 4 before." },
    csa < 0 ? null : { at: { box: "indexer", layer: csa, token: length - 1 }, text: "There may be many entries, so the indexer scores them and chooses the best. Dotted ones are not read." },
    csa < 0 ? null : { at: { box: "attention", layer: csa, token: mostToEntries(csa) }, text: "Window words and entries compete in one softmax. This token gives the most attention to distant text." },
    reuse < 0 ? null : { at: { box: "attention", layer: reuse, token: length - 1 }, text: "This layer neither makes entries nor chooses: it reads what an earlier one has chosen, with queries of its own." },
    pool < 0 ? null : { at: { box: "indexer", layer: pool, token: length - 1 }, text: "This layer says which blocks of entries later layers may choose from, so that they need not score all." },
    hca < 0 || length < 128 ? null : { at: { box: "attention", layer: hca, token: mostToEntries(hca) }, text: "This layer squeezes 128 tokens into one entry: coarse, but cheap enough to read all of them." },
    { at: { box: "write1", layer: Math.max(0, csa), token }, text: "The result is added to each stream with its own weight, and the old streams are mixed by the matrix comb." },
    byId < 0 ? null : { at: { box: "experts", layer: byId }, text: "Each token uses a few experts. In the first layers, its id alone decides which." },
    byScore < 0 ? null : { at: { box: "experts", layer: byScore }, text: "Each token uses a few experts, and here the router chooses by score. Filled words use the same expert." },
    { at: { box: "head", layer: layers.length - 1 }, text: "At the end the streams are summed up, and the head gives each possible next token a probability. The table below the text shows how they developed from layer to layer." },
    drafts ? { at: { box: "draft", token: Math.max(1, token) }, text: drafts.blocks ? "The DSpark drafter guesses a block of tokens. Those that the head agrees with come out of one pass." : "The MTP module guesses one token further. If the head agrees, two tokens come out of one pass." } : null,
    { at: { box: "cache", layer: Math.max(0, csa), token: length - 1 }, text: "What is kept for later tokens: a window, and a few entries instead of every token." },
  ];
  return found.filter(Boolean);
}

// The token that gives most to entries in a layer, over all heads.
const mostToEntries = (layer) =>
  range(length).reduce((best, one) => (sums(layer, one, -1)[1] > sums(layer, best, -1)[1] ? one : best), 0);

function goTour(to) {
  if (!tour.steps.length) tour.steps = tourSteps();
  tour.at = to === null || to < 0 || to >= tour.steps.length ? null : to;
  if (tour.at !== null) look(tour.steps[tour.at].at);
  else redraw();
}

function drawTour() {
  const panel = element("tour");
  panel.hidden = tour.at === null;
  element("tour-open").setAttribute("aria-pressed", String(tour.at !== null));
  if (tour.at === null) return;
  const last = tour.at === tour.steps.length - 1;
  panel.innerHTML = `<p><b>${tour.at + 1} of ${tour.steps.length}</b> ${tour.steps[tour.at].text}</p>
    <p class="buttons"><button data-tour="${tour.at - 1}" ${tour.at ? "" : "disabled"}>Back</button><button data-tour="${last ? -1 : tour.at + 1}" class="strong">${last ? "End of the tour" : "Next stop"}</button>${last ? "" : '<button data-tour="-1">End</button>'}</p>`;
}
