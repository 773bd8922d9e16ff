// The keyboard, and the panel that lists its keys.

const keyList = [
  ["← →", "the token before, the next"],
  ["↑ ↓", "the token one line up or down, in the text"],
  ["Home, End", "the first token, the last"],
  ["n, p", "the next box, the one before"],
  ["[, ]", "the layer before, the next"],
  ["0 – 9", "a head; the same again for all heads"],
  ["h, a", "the next head; all heads"],
  ["c", "pin this place and compare others with it"],
  ["t", "the tour: start it, or its next stop"],
  ["d", "light or dark"],
  ["?", "these keys, and what the page leaves out"],
  ["Esc", "end the tour or the comparison"],
];

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || element("help").open) return;
  if (event.target.closest("select, input")) return;
  const inText = document.activeElement === element("text");
  const action = actions(inText)[event.key] ?? (/^\d$/.test(event.key) && Number(event.key) < heads ? () => toggleHead(Number(event.key)) : null);
  if (!action) return;
  event.preventDefault();
  action();
}

function actions(inText) {
  const token = (to) => () => look({ token: to });
  const always = {
    ArrowLeft: token(state.token - 1),
    ArrowRight: token(state.token + 1),
    n: () => step(1),
    p: () => step(-1),
    "[": () => toLayer((state.layer + layers.length - 1) % layers.length),
    "]": () => toLayer((state.layer + 1) % layers.length),
    h: () => look({ head: state.head + 1 < heads ? state.head + 1 : -1 }),
    a: () => look({ head: -1 }),
    c: togglePin,
    t: () => goTour(tour.at === null ? 0 : tour.at + 1),
    d: toggleTheme,
    "?": openHelp,
    Escape: endAll,
  };
  const ofText = { ArrowUp: () => look({ token: tokenInLine(-1) }), ArrowDown: () => look({ token: tokenInLine(1) }), Home: token(0), End: token(length - 1) };
  return inText ? { ...always, ...ofText } : always;
}

const toggleHead = (head) => look({ head: state.head === head ? -1 : head });

function toggleTheme() {
  look({ theme: state.theme === "dark" ? "light" : "dark" });
}

function endAll() {
  tour.at = null;
  look({ pin: null });
}

function openHelp() {
  const rows = keyList.map(([keys, words]) => `<tr><th scope="row"><kbd>${keys}</kbd></th><td>${words}</td></tr>`);
  element("help").innerHTML = `<h2 id="help-title">Keys</h2><table>${rows.join("")}</table><h2>What this page rounds and leaves out</h2><ul>${notes().map((line) => `<li>${line}</li>`).join("")}</ul><form method="dialog"><button class="strong">Close</button></form>`;
  element("help").showModal();
}
