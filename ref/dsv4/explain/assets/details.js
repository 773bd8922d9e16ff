// The right column: the chosen box, and below it what the page leaves out.

function drawDetails() {
  const { title, where, text, body } = details[state.box]();
  const { layer } = currentBox();
  const place = layer === null ? where : `${layerName(layer)} · ${where}`;
  element("details").innerHTML = `<h2 class="title">${title}</h2><p class="where">${place}</p>${comparison()}<p>${text}</p>${body}${readOn()}`;
}

// What was rounded and what was left out, in numbers.
function notes() {
  const { room } = page;
  const left = layers.map(({ shares }) => shares.left_out);
  const most = Math.max(...left.map(([largest]) => largest));
  const mean = sum(left.map(([, average]) => average)) / left.length;
  const steps = 2 ** room.bits - 1;
  const lines = [
    `Of each query's shares the ${room.keys} largest are kept${most < 1e-6 ? "; nothing else is above zero" : `; what is left out is ${percent(mean)} of a query's attention on average, ${percent(most)} at most`}.`,
    `Shares, mixing weights and scores are stored in ${large(steps)} steps; a share of 1 can be off by ${(1 / steps).toPrecision(1)}, a small one by less.`,
  ];
  if (room.groups < heads) lines.push(`Shares of single keys are the mean of ${heads / room.groups} neighbouring heads.`);
  if (room.sums < heads) lines.push(`Window, entries and sink are the mean of ${heads / room.sums} neighbouring heads.`);
  if (layers.some(({ choice }) => choice)) lines.push(`Of the indexer's scores up to ${room.scores} for each token are kept, the chosen first.`);
  if (room.experts < model.n_routed_experts) lines.push(`Of the experts' scores the ${room.experts} best for each token are kept.`);
  if (layers.some(({ lookup }) => lookup)) lines.push("Tokens count as the same n-gram where all rows of an order are the same.");
  lines.push("Weights of a compressor are the mean over its channels. Vectors are shown by their size alone.");
  return lines;
}
