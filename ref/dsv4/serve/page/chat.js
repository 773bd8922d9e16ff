"use strict";

const at = (id) => document.getElementById(id);
const EFFORTS = { "non-think": "none", low: "low", high: "high", xhigh: "xhigh", max: "max" };

let messages = []; // of the conversation, as the endpoint takes them
let running = null; // what stops the answer that is being made

/** An element with a class and a text; what anybody wrote is only ever put in as text. */
function made(name, kind = "", text = "") {
  const element = document.createElement(name);
  element.className = kind;
  element.textContent = text;
  return element;
}

async function ask(path, body, signal) {
  const headers = { "content-type": "application/json" };
  if (at("key").value) headers.authorization = `Bearer ${at("key").value}`;
  const options = body ? { method: "POST", headers, body: JSON.stringify(body), signal } : { headers };
  const answer = await fetch(path, options);
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => ({}));
  throw new Error(told.error?.message ?? `status ${answer.status}`);
}

async function begin() {
  try {
    const [model] = (await (await ask("/v1/models")).json()).data;
    at("model").textContent = `${model.id}, ${model.max_model_len} tokens`;
    at("mode").replaceChildren(...model.modes.map((mode) => new Option(mode, mode, false, mode === model.mode)));
  } catch (error) {
    at("model").textContent = error.message;
    at("settings").open = true;
  }
  document.documentElement.dataset.ready = "true";
}

/** The body of a request, from the settings and the conversation. */
function request() {
  const body = { messages: [...messages], stream: true, stream_options: { include_usage: true }, return_token_ids: true };
  if (at("mode").value) body.reasoning_effort = EFFORTS[at("mode").value];
  for (const name of ["temperature", "top_p", "seed", "max_tokens"]) {
    if (at(name).value !== "") body[name] = Number(at(name).value);
  }
  if (at("system").value.trim()) body.messages.unshift({ role: "system", content: at("system").value });
  if (at("tools").value.trim()) body.tools = JSON.parse(at("tools").value);
  return body;
}

/** The values of server-sent events, as they come. */
async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let held = ""; ; ) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (held + value).split("\n");
    held = lines.pop();
    for (const line of lines) {
      if (line.startsWith("data: ") && line !== "data: [DONE]") yield JSON.parse(line.slice(6));
    }
  }
}

/** Do something that makes the page longer, and stay at its end if that is where the reader is. */
function growing(grow) {
  const page = document.documentElement;
  const atEnd = page.scrollHeight - page.scrollTop - page.clientHeight < 80;
  grow();
  if (atEnd) page.scrollTop = page.scrollHeight;
}

function addTurn(role, text = "") {
  const turn = made("section", `turn ${role}`);
  const said = made("div", "said", text);
  turn.append(made("b", "", role), said);
  at("turns").append(turn);
  document.documentElement.scrollTop = document.documentElement.scrollHeight;
  return turn;
}

/** An answer on the page, and the message that it becomes. */
class Reply {
  constructor() {
    this.turn = addTurn("model");
    this.said = this.turn.querySelector(".said");
    this.figures = made("div", "figures", "…");
    this.turn.append(this.figures);
    this.message = { role: "assistant", content: "", reasoning_content: "", tool_calls: [] };
    this.blocks = [];
    this.ids = [];
  }

  take(chunk) {
    if (chunk.error) throw new Error(chunk.error.message);
    this.prompt ??= chunk.prompt_token_ids;
    this.usage = chunk.usage ?? this.usage;
    for (const { delta, finish_reason, stop_reason, token_ids } of chunk.choices) {
      if (delta.reasoning_content || delta.content || delta.tool_calls) this.began ??= performance.now();
      if (delta.reasoning_content) this.reason(delta.reasoning_content);
      if (delta.content) this.said.textContent = this.message.content += delta.content;
      for (const call of delta.tool_calls ?? []) this.call(call);
      if (finish_reason) [this.ended, this.note, this.ids] = [finish_reason, stop_reason, token_ids ?? []];
    }
  }

  reason(text) {
    if (!this.folded) {
      this.folded = made("details", "reasoning");
      this.folded.append(made("summary", "", "reasoning"), made("div", "said"));
      this.said.before(this.folded);
    }
    this.folded.lastChild.textContent = this.message.reasoning_content += text;
  }

  call({ index, id, function: called }) {
    if (id) {
      const block = made("div", "call");
      block.append(made("b", "", called.name), made("pre"));
      this.said.after(...this.blocks, block);
      this.blocks.push(block);
      this.message.tool_calls.push({ id, type: "function", function: { name: called.name, arguments: "" } });
    }
    const made_so_far = this.message.tool_calls[index].function;
    made_so_far.arguments += called.arguments;
    this.blocks[index].querySelector("pre").textContent = made_so_far.arguments;
  }

  /** The figures, and what can be done next; the message goes into the conversation as it is. */
  finish(problem) {
    this.figures.replaceChildren();
    const seconds = (performance.now() - (this.began ?? performance.now())) / 1000;
    if (this.usage) {
      const { prompt_tokens, completion_tokens, prompt_tokens_details } = this.usage;
      const rate = completion_tokens > 1 && seconds > 0 ? `, ${((completion_tokens - 1) / seconds).toFixed(1)} tokens/s` : "";
      const reused = `${prompt_tokens} read (${prompt_tokens_details.cached_tokens} of them before)`;
      this.figures.append(made("span", "speed", `${completion_tokens} tokens${rate}`), made("span", "", reused));
    }
    if (problem) this.figures.append(made("span", "wrong", problem));
    else if (this.ended !== "stop" || this.note) this.figures.append(made("span", "", this.note ?? this.ended));
    const ids = [...(this.prompt ?? []), ...this.ids];
    if (this.ids.length) {
      const button = made("button", "look", "look inside");
      button.onclick = () => lookInside(button, ids);
      this.figures.append(button);
    }
    if (this.ended !== "tool_calls") this.message.tool_calls = [];
    for (const field of ["reasoning_content", "tool_calls"]) if (!this.message[field].length) delete this.message[field];
    messages.push(this.message);
    if (this.ended === "tool_calls") this.askForResults();
  }

  askForResults() {
    this.blocks.forEach((block) => block.append(made("textarea", "result")));
    this.blocks.forEach((block) => (block.lastChild.placeholder = block.lastChild.ariaLabel = "the tool's result"));
    const button = made("button", "results", "send the results");
    button.onclick = () => {
      button.disabled = true;
      this.blocks.forEach((block, index) => {
        const content = block.querySelector("textarea").value;
        messages.push({ role: "tool", tool_call_id: this.message.tool_calls[index].id, content });
      });
      answer();
    };
    this.blocks.at(-1).after(button);
  }
}

async function answer() {
  if (running) return;
  const reply = new Reply();
  running = new AbortController();
  at("send").disabled = true;
  at("stop").disabled = false;
  let problem = "";
  try {
    for await (const chunk of events(await ask("/v1/chat/completions", request(), running.signal))) {
      growing(() => reply.take(chunk));
    }
  } catch (error) {
    problem = running.signal.aborted ? "stopped" : error.message;
  }
  growing(() => reply.finish(problem));
  running = null;
  at("send").disabled = false;
  at("stop").disabled = true;
}

async function lookInside(button, ids) {
  button.disabled = true;
  try {
    const page = await (await ask("/explain", { ids })).blob();
    const frame = made("iframe");
    frame.src = URL.createObjectURL(page);
    at("inside").querySelector("iframe")?.remove();
    at("inside").append(frame);
    at("inside").showModal();
  } catch (error) {
    button.after(made("span", "wrong", error.message));
  }
  button.disabled = false;
}

at("ask").onsubmit = (event) => {
  event.preventDefault();
  const text = at("text").value;
  if (running || !text.trim()) return;
  at("text").value = "";
  messages.push({ role: "user", content: text });
  addTurn("user", text);
  answer();
};
at("text").onkeydown = (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    at("ask").requestSubmit();
  }
};
at("stop").onclick = () => running?.abort();
at("fresh").onclick = () => {
  running?.abort();
  messages = [];
  at("turns").replaceChildren();
};
at("close").onclick = () => at("inside").close();
at("key").onchange = begin;
begin();
