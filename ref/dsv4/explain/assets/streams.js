// Details of the streams: the embedding, its repeat, and how each sub-layer reads and writes.

details.embedding = () => ({
  title: "Embedding",
  where: "a token becomes numbers",
  text: `Token ${state.token} ${tokenChip(state.token)} has the number ${large(page.tokens[state.token][0])}: that row of a table of ${large(model.vocab_size)}. Its ${large(model.hidden_size)} numbers have the size ${short(firstSizes.at(state.token))} (root mean square).`,
  body:
    shapes([["ids", [length]], ["embed", [model.vocab_size, model.hidden_size]], ["x", [length, model.hidden_size]]]) +
    equation("x_t = embed[id_t]"),
});

details.repeat = () => ({
  title: `${model.hc_mult} streams`,
  where: "the residual connection is wider than the layers",
  text: `The embedding is copied ${model.hc_mult} times. From here on each sub-layer reads one mixture of the streams and writes to all of them, and they part.`,
  body:
    sizePicture() +
    shapes([["streams", [length, model.hc_mult, model.hidden_size]]]) +
    equation(`X_i = x   for i = 0 … ${model.hc_mult - 1}`),
});

// The size of each stream on its way through the sub-layers.
function sizePicture() {
  const sizes = streamSizes(state.token);
  const largest = Math.max(...sizes.flat());
  const wide = 285 / Math.max(1, sizes.length - 1);
  const dashes = ["", "6 3", "2 2", "8 2 2 2"];
  const curves = range(model.hc_mult).map((stream) => {
    const points = sizes.map((row, place) => `${(8 + place * wide).toFixed(1)} ${(100 - 88 * (row[stream] / largest)).toFixed(1)}`);
    return `<path class="curve" stroke-dasharray="${dashes[stream % 4]}" d="M${points.join("L")}"/><text x="${300 + 8 * (stream % 3)}" y="${(103 - 88 * (sizes.at(-1)[stream] / largest)).toFixed(1)}">${stream}</text>`;
  });
  const said = `Sizes at the end: ${sizes.at(-1).map((size, stream) => `stream ${stream} ${short(size)}`).join(", ")}`;
  return block("Size of each stream on its way", "root mean square, after each sub-layer", picture(320, 110, said, curves.join("")));
}

const partWords = () => (state.box.endsWith("1") ? "attention" : "the experts");

for (const box of ["read1", "read2"]) {
  details[box] = () => {
    const { pre } = mixing(state.layer, box.endsWith("1") ? 0 : 1, state.token);
    const most = pre.indexOf(Math.max(...pre));
    return {
      title: "mHC read",
      where: `before ${partWords()}`,
      text: `What goes into ${partWords()} is a weighted sum of the ${model.hc_mult} streams, here mostly of <b>stream ${most}</b>. ${weightWords(box)}`,
      body:
        `<div id="pre">${block("pre", "how much of each stream is read", bars(pre.map((share, stream) => ({ label: `stream ${stream}`, part: share, number: share.toFixed(2), share }))))}</div>` +
        sizePicture() +
        shapes([["streams", [length, model.hc_mult, model.hidden_size]], ["pre", [length, model.hc_mult]], ["x", [length, model.hidden_size]]]) +
        equation(`x = RMSNorm(Σ_j pre_j · X_j)\npre = σ(…) + ε${isV41 ? ", of the sub-layer before" : ""}`),
    };
  };
}

// Where the weights come from with which a sub-layer reads.
function weightWords(box) {
  if (!isV41) return "The weights lie between 0 and 1 and are computed from the streams themselves.";
  if (box === "read1" && !state.layer) return "No sub-layer stands before it that could have computed weights, so it reads stream 0 alone.";
  const before = box === "read2" ? "before attention" : "before the experts of the layer before";
  return `The weights lie between 0 and 1 and were computed ${before}, in one pass over the streams with those that write: single-pass mHC.`;
}

for (const box of ["write1", "write2"]) {
  details[box] = () => {
    const part = box.endsWith("1") ? 0 : 1;
    const { post, comb } = mixing(state.layer, part, state.token);
    const most = post.indexOf(Math.max(...post));
    const kept = sum(range(model.hc_mult).map((stream) => comb[stream][stream])) / model.hc_mult;
    return {
      title: "mHC write",
      where: `after ${partWords()}`,
      text: `The answer, of size ${short(layers[state.layer].answers.at(part, state.token))}, goes mostly to <b>stream ${most}</b> (× ${post[most].toFixed(2)}), and the old streams are mixed: on average each keeps ${percent(kept)} of itself. Rows and columns of comb sum to 1, so mixing enlarges nothing.`,
      body:
        combTable(comb, post) +
        shapes([["answer F(x)", [length, model.hidden_size]], ["post", [length, model.hc_mult]], ["comb", [length, model.hc_mult, model.hc_mult]]]) +
        equation(`X′_i = post_i · F(x) + Σ_j comb[j, i] · X_j\npost = 2σ(…), comb = Sinkhorn(…), ${model.hc_sinkhorn_iters} rounds`),
    };
  };
}

// comb as a table: old stream j in row j, new stream i in column i; below it what each new stream gets of the answer.
function combTable(comb, post) {
  const head = range(model.hc_mult).map((stream) => `<th scope="col">new ${stream}</th>`).join("");
  const cell = (value) => `<td class="heat" data-value="${value.toFixed(5)}" style="--part:${Math.min(1, value).toFixed(3)}">${value.toFixed(2)}</td>`;
  const rows = comb.map((row, stream) => `<tr><th scope="row">old ${stream}</th>${row.map(cell).join("")}</tr>`);
  const last = `<tr class="post"><th scope="row">answer</th>${post.map((value) => `<td data-value="${value.toFixed(5)}">${value.toFixed(2)}</td>`).join("")}</tr>`;
  return block("comb and post", "what each new stream is made of", `<table id="comb"><thead><tr><th></th>${head}</tr></thead><tbody>${rows.join("")}${last}</tbody></table>`);
}
