// Drawing on the canvas behind the text: where the tokens stand, and colours of the style sheet.

const marks = { context: element("marks").getContext("2d"), colours: new Map(), places: [], top: 0, bottom: 0 };

// A colour of the style sheet with an opacity; names: window, csa, hca, stream, sink, expert.
function colour(name, opacity = 1) {
  if (!marks.colours.has(name)) {
    marks.colours.set(name, getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim());
  }
  return `rgb(${marks.colours.get(name)} / ${opacity})`;
}

// Where each token stands in the text: rectangles {x, y, width, height}, two where it is broken over two lines.
function measure() {
  const origin = element("text").getBoundingClientRect();
  marks.places = Array.from(element("text").querySelectorAll(".token"), (token) =>
    Array.from(token.getClientRects(), ({ left, top, width, height }) => ({
      x: left - origin.left,
      y: top - origin.top,
      width,
      height,
    })),
  );
}

// The canvas, cleared and moved so that places in the text are places on it.
function clearMarks() {
  const canvas = element("marks");
  const frame = element("frame").getBoundingClientRect();
  const text = element("text").getBoundingClientRect();
  const scale = window.devicePixelRatio || 1;
  canvas.width = Math.round(frame.width * scale);
  canvas.height = Math.round(frame.height * scale);
  marks.context.setTransform(scale, 0, 0, scale, 0, 0);
  marks.context.translate(text.left - frame.left, text.top - frame.top);
  marks.top = frame.top - text.top - 30;
  marks.bottom = frame.bottom - text.top + 30;
}

// The lines that a run of tokens fills, of those that can be seen: {left, right, y, height}.
function lines(first, last) {
  const found = [];
  for (let token = first; token <= Math.min(last, length - 1); token++) {
    for (const { x, y, width, height } of marks.places[token]) {
      if (y < marks.top || y > marks.bottom || !width) continue;
      const line = found.at(-1);
      if (line && Math.abs(line.y - y) < height / 2) {
        line.left = Math.min(line.left, x);
        line.right = Math.max(line.right, x + width);
      } else {
        found.push({ left: x, right: x + width, y, height });
      }
    }
  }
  return found;
}

// A filled run of tokens.
function fill(first, last, style) {
  marks.context.fillStyle = style;
  for (const { left, right, y, height } of lines(first, last)) {
    marks.context.fillRect(left, y - 2, right - left, height + 4);
  }
}

// A bar along a run of tokens: `lane` 0 and 1 below the text, −1 above it.
function bar(first, last, lane, style, thickness = 4) {
  marks.context.fillStyle = style;
  for (const { left, right, y, height } of lines(first, last)) {
    const at = lane < 0 ? y - 8 : y + height + 2 + 5 * lane;
    marks.context.beginPath();
    marks.context.roundRect(left + 1.5, at, Math.max(1, right - left - 3), thickness, thickness / 2);
    marks.context.fill();
  }
}

// A dotted line in the place of a bar.
function dots(first, last, lane) {
  marks.context.strokeStyle = colour("sink");
  marks.context.setLineDash([1.5, 2.5]);
  for (const { left, right, y, height } of lines(first, last)) {
    const at = lane < 0 ? y - 6 : y + height + 4 + 5 * lane;
    marks.context.beginPath();
    marks.context.moveTo(left + 2, at);
    marks.context.lineTo(right - 2, at);
    marks.context.stroke();
  }
  marks.context.setLineDash([]);
}

// A frame around one token.
function frameToken(token, style) {
  marks.context.strokeStyle = style;
  marks.context.lineWidth = 1.5;
  for (const { x, y, width, height } of marks.places[token]) {
    marks.context.strokeRect(x + 0.5, y - 2, Math.max(2, width - 1), height + 4);
  }
  marks.context.lineWidth = 1;
}

// Slanted lines over one token.
function hatch(token, style) {
  marks.context.strokeStyle = style;
  for (const { x, y, width, height } of marks.places[token]) {
    marks.context.save();
    marks.context.beginPath();
    marks.context.rect(x, y - 2, width, height + 4);
    marks.context.clip();
    marks.context.beginPath();
    for (let start = x - height; start < x + width; start += 4) {
      marks.context.moveTo(start, y + height + 2);
      marks.context.lineTo(start + height + 4, y - 2);
    }
    marks.context.stroke();
    marks.context.restore();
  }
}

// How strong a colour stands for a share, where the largest has the full one.
const strength = (share, largest) => (share > 0 ? 0.06 + 0.9 * Math.sqrt(share / largest) : 0);
