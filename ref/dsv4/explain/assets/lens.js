// Below the text: what would come next if the head read the streams after each layer, and what was drafted.

function drawLens() {
  const { token } = state;
  const truth = following(token);
  const truthWords = truth === null ? "the text ends here" : `the text goes on with ${chip(truth)}`;
  const here = currentBox().layer === null ? null : state.layer;
  const rows = opinions.map((opinion, number) => lensRow(number ? `<span>after </span>layer ${number - 1}` : "embedding", opinion, token, here === number - 1));
  if (model.drafter) rows.push(draftRow(token));
  element("lens").innerHTML = `<h2>What would come next, if the head read the streams here <span>${truthWords}</span></h2>
    <div class="rows${opinions.length > 12 ? " many" : ""}"><table><thead class="unseen"><tr><th>Where</th><th colspan="5">Best candidates</th><th>What the text goes on with: probability and rank</th></tr></thead><tbody>${rows.join("")}</tbody></table></div>
    <p class="note">The head learned to read the streams after the last layer; what it finds in earlier ones is weak evidence.</p>`;
  const current = document.querySelector("#lens .here");
  const scroller = document.querySelector("#lens .many");
  if (current && scroller) scroller.scrollTop = current.offsetTop - 60;
}

// A row of candidates; end: what stands behind them in place of the truth's probability and rank.
function lensRow(name, opinion, place, isHere, attributes = "", end = null) {
  const truth = following(state.token);
  const cells = candidates(opinion, place).map(({ id, share }) => {
    const right = id === truth ? " right" : "";
    return `<td class="candidate${right}" style="--part:${(100 * share).toFixed(1)}%" data-id="${id}" data-share="${share.toFixed(6)}"><span><bdi>${escaped(wordText(id))}</bdi><small>${percent(share)}</small></span></td>`;
  });
  const known = truth === null ? "–" : `${percent(opinion.truth.at(place))} · #${large(opinion.rank.at(place))}`;
  const here = isHere ? ' class="here" aria-current="true"' : "";
  return `<tr${here} ${attributes}><th scope="row">${name}</th>${cells.join("")}<td class="truth">${end ?? known}</td></tr>`;
}

// The draft for the place behind this token, made one token earlier.
function draftRow(token) {
  const name = `${model.drafter} draft`;
  if (!drafts || token < 1) return `<tr><th scope="row">${name}</th><td colspan="6" class="note">none: it needs the token before</td></tr>`;
  const verdict = drafts.accepted.at(token - 1) ? '<b class="accepted">✓ accepted</b>' : '<b class="refused">✗ refused</b>';
  return lensRow(name, drafts.opinions, token - 1, state.box === "draft", "data-draft", verdict);
}
