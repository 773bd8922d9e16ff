// Pieces that the details of several boxes share.

// Where to read on: the concept page, the notebook, and the source of each box.
const readings = {
  embedding: ["docs/concepts/index.md", "notebooks/01_tour.ipynb", "ref/dsv4/model/model.py"],
  repeat: ["docs/concepts/hyper-connections.md", "notebooks/02_hyper_connections.ipynb", "ref/dsv4/model/model.py"],
  read1: ["docs/concepts/hyper-connections.md", "notebooks/02_hyper_connections.ipynb", "ref/dsv4/ops/mhc.py"],
  latent: ["docs/concepts/rope-windows-sinks.md", "notebooks/03_rope_windows_sinks.ipynb", "ref/dsv4/model/attention.py"],
  attention: ["docs/concepts/rope-windows-sinks.md", "notebooks/03_rope_windows_sinks.ipynb", "ref/dsv4/ops/attention.py"],
  unrotate: ["docs/concepts/rope-windows-sinks.md", "notebooks/03_rope_windows_sinks.ipynb", "ref/dsv4/ops/rope.py"],
  entries4: ["docs/concepts/csa.md", "notebooks/04_compressed_attention.ipynb", "ref/dsv4/ops/compressor.py"],
  entries128: ["docs/concepts/hca.md", "notebooks/06_heavy_compression_and_the_schedule.ipynb", "ref/dsv4/ops/compressor.py"],
  indexer: ["docs/concepts/indexer.md", "notebooks/05_lightning_indexer.ipynb", "ref/dsv4/ops/indexer.py"],
  experts: ["docs/concepts/experts.md", "notebooks/07_experts.ipynb", "ref/dsv4/ops/moe.py"],
  head: ["docs/concepts/hyper-connections.md", "notebooks/01_tour.ipynb", "ref/dsv4/model/block.py"],
  draft: ["docs/concepts/mtp.md", "notebooks/10_speculative_decoding.ipynb", "ref/dsv4/model/mtp.py"],
  cache: ["docs/concepts/cache.md", "notebooks/09_cache.ipynb", "ref/dsv4/model/cache.py"],
};

// The same of V4.1.
const readings41 = {
  engram: "model41/engram.py", embedding: "model41/model.py", repeat: "model41/model.py", read1: "model41/block.py",
  latent: "model41/attention.py", attention: "model41/attention.py", unrotate: "ops/rope.py", entries: "model41/source.py",
  indexer: "model41/indexer.py", experts: "model41/moe.py", head: "model41/model.py", draft: "model41/dspark.py", cache: "model41/cache.py",
};

function readOn() {
  const alike = { read2: "read1", write1: "read1", write2: "read1", queries: "latent", keys: "attention", output: "latent" };
  const whole = alike[state.box] ?? state.box;
  const id = whole === "entries" ? `entries${layers[state.layer].ratio}` : whole;
  const found = isV41 ? ["docs/v41.md", "notebooks/20_what_v41_changed.ipynb", `ref/dsv4/${readings41[whole]}`] : readings[id];
  const names = ["Concept", "Notebook", "Source"];
  const items = found.map((path, number) => {
    const shown = page.base === null ? `<code>${path}</code>` : `<a href="${escaped(page.base + path)}"><code>${path}</code></a>`;
    return `<li>${names[number]}: ${shown}</li>`;
  });
  return `<section class="block"><h2>Read on</h2><ul class="plain">${items.join("")}</ul></section>`;
}

const block = (title, more, content) => `<section class="block"><h2>${title} <span>${more}</span></h2>${content}</section>`;

function shapes(rows) {
  const cells = rows.map(([name, shape]) => `<tr><th scope="row">${name}</th><td><code>[${shape.join(", ")}]</code></td></tr>`);
  return block("Shapes", "of this text", `<table class="shapes"><tbody>${cells.join("")}</tbody></table>`);
}

const equation = (text) => block("Equation", "", `<pre>${escaped(text)}</pre>`);

// Rows of a label, a bar and a number: {label, part (0 … 1), number, kind, title, first, last, other}.
function bars(rows) {
  const items = rows.map(({ label, part, number, kind = "stream", first, last, share, other }) => {
    const range = first === undefined ? "" : ` data-first="${first}" data-last="${last}"`;
    const value = share === undefined ? "" : ` data-share="${share.toFixed(6)}"`;
    const pinned = other === undefined ? "" : `<i class="pinned" style="width:${(100 * other).toFixed(1)}%"></i>`;
    return `<li${range}${value}><span class="label">${label}</span><span class="track" aria-hidden="true"><i class="${kind}" style="width:${(100 * Math.max(0, part)).toFixed(1)}%"></i>${pinned}</span><span class="number">${number}</span></li>`;
  });
  return `<ul class="bars">${items.join("")}</ul>`;
}

const picture = (width, height, said, content) =>
  `<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="${escaped(said)}">${content}</svg>`;

// A number in three digits.
function short(value) {
  const size = Math.abs(value);
  if (size === 0) return "0";
  const digits = size >= 100 ? size.toFixed(0) : size < 0.001 ? size.toExponential(1) : size.toPrecision(3);
  return value < 0 ? `−${digits}` : digits;
}
