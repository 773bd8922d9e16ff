// The sentence on top: what is to be seen, in true numbers. Screen readers hear it at each change.

function sentence() {
  const { layer, token } = state;
  const parts = {
    nothing: () => `Follow token ${token} ${tokenChip(token)} through the model: press <b>Next box</b>, or choose any box of the picture.`,
    shares: sharesSentence,
    scores: scoresSentence,
    slots: slotsSentence,
    mixing: () => `Layer ${layer}: token ${token} ${tokenChip(token)} ${state.box.startsWith("read") ? "reads from" : "writes to"} its ${model.hc_mult} streams, ${mixingWords()}.`,
    experts: expertsSentence,
    foreseen: foreseenSentence,
    drafts: draftSentence,
    ngrams: ngramSentence,
    cache: () => `After ${several(token + 1, "token")}, layer ${layer} keeps <b>${bytes(sum(cacheBytes(layer, token)))}</b>; full attention would keep ${bytes((token + 1) * page.cache.row)}.`,
  };
  return parts[pictureOf[state.box]]();
}

function mixingWords() {
  if (!isV41 || state.box.startsWith("write")) return "with weights that it computes from them";
  return state.box === "read1" && !state.layer ? "the first one alone" : "with weights that the sub-layer before has computed";
}

function headWords() {
  if (state.head < 0) return "";
  const size = heads / page.room.sums;
  const first = chosenGroup(size);
  return size === 1 ? `, head ${first}` : `, heads ${first}–${first + size - 1}`;
}

function sharesSentence() {
  const { layer, token, head } = state;
  const [window, entries, sink] = sums(layer, token, head);
  const kind = kindOf(layer);
  const count = visible(layer, token);
  const middle = !layers[layer].ratio ? "" : count
    ? `, <b class="${kind}">${percent(entries)}</b> to ${several(Math.min(count, chosenCount(layer, token)), "compressed entry", "compressed entries")}`
    : ", nothing to entries (none is complete yet)";
  return `Layer ${layer}${headWords()}: token ${token} ${tokenChip(token)} gives <b class="window">${percent(window)}</b> of its attention to ${token ? `the last ${Math.min(token + 1, model.sliding_window)} tokens` : "itself"}${middle} and <b class="sink">${percent(sink)}</b> to the sink, which adds nothing to the output.`;
}

const chosenCount = (layer, token) => (layers[layer].choice ? layers[layer].choice.chosen.at(token) : visible(layer, token));

function scoresSentence() {
  const { layer, token } = state;
  const count = visible(layer, token);
  const chosen = chosenCount(layer, token);
  if (!count) return `Token ${token} ${tokenChip(token)} sees no entry of layer ${layer}: the first is complete with token ${layers[layer].ratio - 1}.`;
  const refused = count - chosen;
  return `For token ${token} ${tokenChip(token)}, the indexer of layer ${layer} chooses <b class="csa">${chosen}</b> of ${several(count, "entry", "entries")}${refused ? ` and refuses ${refused}` : ""}.${poolWords(layer, token)}`;
}

function slotsSentence() {
  const { layer, token } = state;
  const { ratio, kind } = layers[layer];
  const made = kind === "CSA" ? "8 tokens, 4 of them new," : several(ratio, "token");
  const newest = visible(layer, token) - 1;
  const rest = newest < 0 ? `None is complete at token ${token}.` : `The newest that token ${token} ${tokenChip(token)} can read is entry ${newest}.`;
  return `Layer ${layer} turns ${ratio === 1 ? "each token" : made} into one <b class="${kindOf(layer)}">entry</b>. ${rest}`;
}

function expertsSentence() {
  const visited = experts(state.layer, state.token).filter(({ weight }) => weight !== undefined);
  visited.sort((one, other) => other.weight - one.weight);
  const named = visited.map(({ expert, weight }) => `<b>${expert}</b> (weight ${weight.toFixed(2)})`).join(" and ");
  const others = visitors(state.layer)[visited[0].expert].length - 1;
  return `Layer ${state.layer}: token ${state.token} ${tokenChip(state.token)} visits experts ${named}. ${several(others, "other token")} of the text ${others === 1 ? "visits" : "visit"} expert ${visited[0].expert}, too.`;
}

function foreseenSentence() {
  const { token } = state;
  const last = opinions.at(-1);
  const [best] = candidates(last, token);
  const said = `After token ${token} ${tokenChip(token)}, the model would say ${chip(best.id)} with <b class="stream">${percent(best.share)}</b>.`;
  if (following(token) === null) return `${said} The text ends here.`;
  return `${said} The text goes on with ${chip(following(token))}, which it gave ${percent(last.truth.at(token))}.`;
}

function draftSentence() {
  const { token } = state;
  if (token < 1) return "A draft needs two tokens: go to token 1 or a later one.";
  const [best] = candidates(drafts.opinions, token - 1);
  const accepted = drafts.accepted.at(token - 1);
  return `For the place behind token ${token} ${tokenChip(token)}, ${drafterWords} had drafted ${chip(best.id)} one token earlier: <b class="${accepted ? "stream" : "sink"}">${accepted ? "accepted" : "refused"}</b>.`;
}
