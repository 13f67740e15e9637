"use strict";
// What the page asks of the server it came from.

const KEY = "addiffusion-key";

class ServerError extends Error {
  constructor(status, said) {
    super(said.message);
    this.status = status;
    this.code = said.code;
  }
}

/** The answer to a request; where the server wants its key, once it is given. */
async function ask(path, { body, signal } = {}) {
  for (;;) {
    const answer = await sent(path, body, signal);
    if (answer.ok) return answer;
    const said = (await answer.json().catch(() => ({}))).error ?? { message: `The server answered with ${answer.status}.` };
    if (answer.status !== 401) throw new ServerError(answer.status, said);
    sessionStorage.setItem(KEY, await keyFromUser());
  }
}

function sent(path, body, signal) {
  const headers = body ? { "Content-Type": "application/json" } : {};
  const key = sessionStorage.getItem(KEY);
  if (key) headers.Authorization = `Bearer ${key}`;
  return fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal });
}

let asked = null;

/** The key, from one dialog for all requests that want it. */
function keyFromUser() {
  const dialog = document.getElementById("key-dialog"), field = document.getElementById("key");
  asked ??= new Promise((resolve) => {
    field.value = "";
    dialog.addEventListener("close", () => {
      asked = null;
      resolve(field.value.trim());
    }, { once: true });
    dialog.showModal();
  });
  return asked;
}

/** Server-sent events of an answer, one after the other. */
async function* eventsOf(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const events = (text + value).split("\n\n");
    text = events.pop();
    for (const event of events) {
      const data = event.split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6));
      if (data.length) yield JSON.parse(data.join("\n"));
    }
  }
}

/** Draw images: `begun` gets the request's id, `told` each event. Ends when all are there. */
async function draw(fields, { signal, begun, told }) {
  const answer = await ask("/v1/images/generations", { body: { ...fields, stream: true }, signal });
  begun(answer.headers.get("X-Request-Id"));
  let left = fields.n ?? 1;
  for await (const event of eventsOf(answer)) {
    if (event.type === "error") throw new ServerError(500, event.error);
    told(event);
    if (event.type === "image_generation.completed") left -= 1;
  }
  if (left) throw new ServerError(503, { message: "The connection ended before the images were there." });
}

function steer(requestId, image, action) {
  return ask(`/v1/images/${requestId}/steer`, { body: { image, action } });
}

async function servedModel() {
  return (await (await ask("/v1/models")).json()).data[0];
}
