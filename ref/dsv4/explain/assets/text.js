// The text itself: a list of tokens to choose from.

function buildText() {
  const paragraphs = [[]];
  let breaks = 0; // line breaks at the end of the text so far
  for (let token = 0; token < length; token++) {
    paragraphs.at(-1).push(tokenMarkup(token));
    const piece = page.tokens[token][1];
    if (piece === "") continue;
    breaks = /^\n+$/.test(piece) ? breaks + piece.length : /\n*$/.exec(piece)[0].length;
    if (breaks > 1 && token + 1 < length) {
      paragraphs.push([]); // an empty line ends a paragraph; a single line break is only shown
      breaks = 0;
    }
  }
  const markup = paragraphs.map((tokens) => `<div class="paragraph" dir="auto">${tokens.join("")}</div>`);
  element("text").innerHTML = markup.join("");
  element("text").addEventListener("click", chooseToken);
  element("text").addEventListener("pointermove", pointAt);
  element("text").addEventListener("pointerleave", () => showPointed(null));
}

// What is no text has a direction of its own, so that it does not decide that of its paragraph.
function tokenMarkup(token) {
  const { text, kind } = shownInText(token);
  const direction = kind === "text" ? "" : ' dir="ltr"';
  const attributes = `class="token ${kind}" id="token-${token}" data-token="${token}" role="option" aria-selected="false"${direction}`;
  return `<span ${attributes}>${escaped(text).replace(/[⏎⇥␍]/g, "<i>$&</i>")}</span>`;
}

const tokenAt = (event) => {
  const found = event.target.closest(".token");
  return found ? Number(found.dataset.token) : null;
};

function chooseToken(event) {
  const token = tokenAt(event);
  if (token !== null) look({ token });
}

function pointAt(event) {
  showPointed(tokenAt(event));
}

// The chosen token, those behind it, and the pinned one; it is scrolled into view.
let drawnToken = null;
let drawnPin = null;
function drawText() {
  const text = element("text");
  const tokens = text.querySelectorAll(".token");
  const [from, to] = drawnToken === null ? [0, length - 1] : [drawnToken, state.token].sort((one, other) => one - other);
  for (let token = from; token <= to; token++) tokens[token].classList.toggle("later", token > state.token);
  if (drawnToken !== null) tokens[drawnToken].setAttribute("aria-selected", "false");
  tokens[state.token].setAttribute("aria-selected", "true");
  if (drawnPin !== null) tokens[drawnPin].classList.remove("pinned");
  drawnPin = state.pin?.token ?? null;
  if (drawnPin !== null) tokens[drawnPin].classList.add("pinned");
  text.setAttribute("aria-activedescendant", `token-${state.token}`);
  if (drawnToken !== state.token) reveal(tokens[state.token]);
  drawnToken = state.token;
}

// Scroll the text, and not the page, so that a token can be seen.
function reveal(token) {
  const scroller = element("scroller");
  const view = scroller.getBoundingClientRect();
  const place = token.getBoundingClientRect();
  if (place.top < view.top + 20) scroller.scrollTop += place.top - view.top - 60;
  if (place.bottom > view.bottom - 20) scroller.scrollTop += place.bottom - view.bottom + 60;
}

// The token one line up (−1) or down (1), at about the same place in the line.
function tokenInLine(direction) {
  const middle = ({ x, width }) => x + width / 2;
  const here = marks.places[state.token][0];
  let best = state.token;
  let line = null;
  for (let token = state.token + direction; token >= 0 && token < length; token += direction) {
    const place = marks.places[token][0];
    if (!place || Math.abs(place.y - here.y) < here.height / 2) continue;
    line ??= place.y;
    if (Math.abs(place.y - line) > here.height / 2) break;
    const nearer = Math.abs(middle(place) - middle(here)) < Math.abs(middle(marks.places[best][0]) - middle(here));
    if (best === state.token || nearer) best = token;
  }
  return best;
}

// The line below the text: what the chosen token gives to the one that is pointed at.
function showPointed(token) {
  element("pointed").innerHTML = token === null ? pointHint() : pointedSentence(token);
}

const pointHint = () => 'Point at a token for its share. <span class="keys">Keys: ← → ↑ ↓ token · n p box · [ ] layer · ? all keys</span>';

function pointedSentence(token) {
  if (token > state.token) return `Token ${token} ${tokenChip(token)} comes later: token ${state.token} cannot see it.`;
  const reading = keysRead(state.layer, state.token, state.head);
  const [alone, ...more] = [
    reading.find((key) => key.kind === "window" && key.first === token),
    ...reading.filter((key) => key.kind !== "window" && key.first <= token && token <= key.last),
  ];
  const parts = [alone ? `<b>${percent(alone.share)}</b> in the window` : windowWord(token)];
  for (const { entry, share } of more) parts.push(`<b>${percent(share)}</b> in entry ${entry}`);
  return `Layer ${state.layer}: token ${state.token} reads token ${token} ${tokenChip(token)}: ${parts.join(", ")}.`;
}

const windowWord = (token) =>
  state.token - token < model.sliding_window ? "too little in the window to be kept" : "not in the window";
