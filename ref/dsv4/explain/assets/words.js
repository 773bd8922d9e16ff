// Text for people: tokens, shares, sizes.

const escaped = (text) =>
  String(text).replace(/[&<>"]/g, (one) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[one]);

// A share as a percentage, with a digit behind the point where it is below 10 %.
function percent(share) {
  if (share > 0 && share < 0.0005) return "&lt;\u00a00.1\u00a0%";
  return `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)}\u00a0%`;
}

// Bytes as people read them.
function bytes(count) {
  if (count < 1e3) return `${count} B`;
  if (count < 1e6) return `${(count / 1e3).toPrecision(3)} kB`;
  return `${(count / 1e6).toPrecision(3)} MB`;
}

const large = (count) => Math.round(count).toLocaleString("en");
const several = (count, noun, plural) => `${large(count)} ${count === 1 ? noun : (plural ?? `${noun}s`)}`;

// White space that can be seen.
const seen = (text) => text.replace(/\r/g, "␍").replace(/\n/g, "⏎").replace(/\t/g, "⇥");

// The text of a token by itself, its leading space shown.
function wordText(id) {
  const [text, kind] = page.words[id];
  return kind === "text" ? seen(text).replace(/^ /, "␣") : text;
}

const chip = (id) => `<bdi class="chip ${page.words[id][1]}">${escaped(wordText(id))}</bdi>`;
const tokenChip = (token) => chip(page.tokens[token][0]);

// What stands in the text at a token: its characters, or the bytes of one that later tokens complete.
function shownInText(token) {
  const [id, piece] = page.tokens[token];
  const [text, kind] = page.words[id];
  if (kind === "text") return { text: seen(text), kind };
  if (kind === "bytes" && piece !== "" && !piece.includes("\uFFFD")) return { text: seen(piece), kind: "text" };
  return { text, kind };
}

// The words of some tokens in a row, for labels.
function words(first, last) {
  const text = range(last - first + 1).map((step) => page.tokens[first + step][1]).join("");
  return seen(text);
}

// A span of tokens in few words: all of a short one, beginning and end of a long one.
const spanWords = (first, last) =>
  last - first < 12 ? words(first, last) : `${words(first, first + 4)} … ${words(last - 3, last)}`;

const layerKinds = {
  SWA: "sliding window", CSA: "CSA, entries of 4", HCA: "HCA, entries of 128",
  Full: "Full: makes entries, chooses", Reindex: "Reindex: chooses anew", Reuse: "Reuse: reads what was chosen",
};
const layerName = (layer) => `Layer ${layer} · ${layerKinds[layers[layer].kind]}`;

const isV41 = model.version === "V4.1";
const drafterWords = model.drafter === "DSpark" ? "the DSpark drafter" : "the MTP module";
