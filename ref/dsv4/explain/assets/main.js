// Everything is drawn from the state; what the reader does changes it.

function drawAll() {
  if (document.documentElement.dataset.theme !== state.theme) {
    document.documentElement.dataset.theme = state.theme;
    marks.colours.clear();
  }
  element("sentence").innerHTML = sentence();
  drawTour();
  drawLegend();
  drawText();
  paint();
  drawLens();
  drawDetails();
  drawStrip();
  drawHeader();
  showPointed(null);
}

function drawHeader() {
  element("step").textContent = `${boxNumber() + 1} of ${boxes.length}`;
  element("pin").setAttribute("aria-pressed", String(state.pin !== null));
  element("jump-layer").value = String(state.layer);
  const inLayer = boxes.filter(({ layer }) => layer === null || layer === state.layer);
  element("jump-box").innerHTML = inLayer.map((box) => `<option value="${boxes.indexOf(box)}">${box.label}</option>`).join("");
  element("jump-box").value = String(boxNumber());
}

function about() {
  const units = [[1e9, "billion"], [1e6, "million"], [1e3, "thousand"]];
  const [size, unit] = units.find(([least]) => model.parameters >= least) ?? [1, ""];
  const count = `${(model.parameters / size).toPrecision(2)} ${unit}`.trim();
  return `a DeepSeek-${model.version} of ${count} parameters · ${several(length, "token")} · computed by ${model.backend}`;
}

// Draw a part again and keep the focus on the button that was used.
function keepingFocus(container, selector, change) {
  change();
  container.querySelector(selector)?.focus({ preventScroll: true });
}

function onStrip(event) {
  const button = event.target.closest("button");
  if (!button) return;
  const { box, layer } = button.dataset;
  const change = () => {
    if (layer !== undefined) return toLayer(Number(layer));
    const chosen = boxes[Number(box)];
    look(chosen.layer === null ? { box: chosen.id } : { box: chosen.id, layer: chosen.layer });
  };
  keepingFocus(element("strip"), "[aria-current]", change);
}

function onLegend(event) {
  const { head, order } = event.target.closest("button")?.dataset ?? {};
  if (head !== undefined) keepingFocus(element("legend"), `[data-head="${head}"]`, () => look({ head: Number(head) }));
  if (order !== undefined) keepingFocus(element("legend"), `[data-order="${order}"]`, () => look({ order }));
}

// Pointing at a row of a list shows its tokens in the text.
function onRow(event) {
  const row = event.target.closest("[data-first]");
  paint();
  if (!row) return;
  for (let token = Number(row.dataset.first); token <= Number(row.dataset.last); token++) {
    frameToken(token, getComputedStyle(document.body).color);
  }
}

function listen() {
  element("strip").addEventListener("click", onStrip);
  element("legend").addEventListener("click", onLegend);
  element("details").addEventListener("pointerover", onRow);
  element("details").addEventListener("pointerleave", paint);
  element("details").addEventListener("click", (event) => event.target.id === "unpin" && look({ pin: null }));
  element("tour").addEventListener("click", (event) => event.target.dataset.tour !== undefined && goTour(Number(event.target.dataset.tour)));
  element("previous").addEventListener("click", () => step(-1));
  element("next").addEventListener("click", () => step(1));
  element("jump-layer").addEventListener("change", (event) => toLayer(Number(event.target.value)));
  element("jump-box").addEventListener("change", (event) => step(Number(event.target.value) - boxNumber()));
  element("theme").addEventListener("click", toggleTheme);
  element("pin").addEventListener("click", togglePin);
  element("tour-open").addEventListener("click", () => goTour(tour.at === null ? 0 : null));
  element("help-open").addEventListener("click", openHelp);
  element("scroller").addEventListener("scroll", paint, { passive: true });
  addEventListener("keydown", onKey);
  addEventListener("hashchange", () => look(readAddress()));
  new ResizeObserver(() => {
    measure();
    drawLegend();
    paint();
    drawStrip();
  }).observe(element("frame"));
}

element("about").textContent = about();
element("jump-layer").innerHTML = layers.map((_, layer) => `<option value="${layer}">${layerName(layer)}</option>`).join("");
buildText();
Object.assign(state, readAddress());
document.documentElement.dataset.theme = state.theme;
measure();
redraw = drawAll;
look({});
listen();
document.documentElement.dataset.ready = "true";
