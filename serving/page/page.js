"use strict";
// The form, and what goes on because of it.

const byId = (id) => document.getElementById(id);
let facts = null;

// ---- words

function say(words) {
  byId("said").textContent = words;
}

function complain(error) {
  const problem = byId("problem");
  problem.hidden = !error;
  problem.textContent = error ? wordsOf(error) : "";
}

function wordsOf(error) {
  if (error.name === "AbortError") return "cancelled";
  return error instanceof ServerError ? error.message : `The server can't be reached (${error.message}).`;
}

// ---- theme: the system's unless the button says otherwise

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  byId("theme").setAttribute("aria-pressed", String(name === "dark"));
}

function beginTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)"), chosen = kept("addiffusion-theme", {}).name;
  const system = () => (dark.matches ? "dark" : "light");
  setTheme(chosen ?? system());
  dark.addEventListener("change", () => setTheme(kept("addiffusion-theme", {}).name ?? system()));
  byId("theme").addEventListener("click", () => {
    setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
    keep("addiffusion-theme", { name: document.documentElement.dataset.theme });
  });
}

// ---- the form

/** Fit the form to the model. */
function offer(model) {
  facts = model.addiffusion;
  byId("model").textContent = `${model.id}, ${facts.size}, policy ${facts.policy}`;
  Object.assign(byId("steps"), { min: facts.least_num_inference_steps, value: facts.num_inference_steps });
  byId("guidance").value = facts.guidance_scale;
  byId("guidance-field").hidden = byId("negative-field").hidden = !facts.guided;
  byId("solver").replaceChildren(...facts.solvers.map((name) => new Option(name, name, name === facts.solver, name === facts.solver)));
  byId("quality-field").hidden = facts.speeds !== null || facts.policy === "none";
  byId("speed-field").hidden = facts.speeds === null;
  if (facts.speeds) Object.assign(byId("speed"), { min: facts.speeds[0], max: facts.speeds[1], value: facts.speed });
  showSpeed();
  byId("fields").disabled = false;
}

function showSpeed() {
  const speed = Number(byId("speed").value), steps = Number(byId("steps").value);
  byId("speed-words").textContent = `${speed.toFixed(1)}×: about ${number(steps / speed)} of ${steps} passes`;
}

/** The fields of a request, by the form. */
function fieldsOfForm() {
  const seed = byId("seed").value, watch = byId("watch").checked;
  const fields = {
    prompt: byId("prompt").value,
    n: Number(byId("count").value),
    seed: seed === "" ? Math.floor(Math.random() * 2 ** 32) : Number(seed),
    num_inference_steps: Number(byId("steps").value),
    solver: byId("solver").value,
    ...(watch ? { every_decision: true } : { partial_images: 3 }),
  };
  if (facts.guided) fields.guidance_scale = Number(byId("guidance").value);
  if (byId("negative").value.trim() && facts.guided) fields.negative_prompt = byId("negative").value;
  if (facts.speeds) fields.speed = Number(byId("speed").value);
  else if (facts.policy !== "none") fields.quality = byId("quality").value;
  return fields;
}

/** Put the settings of an image back into the form. */
function useSettings({ fields, record }) {
  const values = { prompt: fields.prompt, count: 1, seed: record.seed, steps: fields.num_inference_steps, solver: fields.solver,
    guidance: fields.guidance_scale, negative: fields.negative_prompt ?? "", speed: fields.speed, quality: fields.quality };
  for (const [id, value] of Object.entries(values)) if (value !== undefined) byId(id).value = value;
  showSpeed();
  byId("prompt").focus();
}

// ---- requests under way

const running = new Set();

/** Do work that `Cancel` ends. */
async function underWay(work) {
  const controller = new AbortController();
  running.add(controller);
  byId("cancel").disabled = false;
  try {
    return await work(controller.signal);
  } finally {
    running.delete(controller);
    byId("cancel").disabled = !running.size;
  }
}

function cancelAll() {
  for (const controller of running) controller.abort();
  if (running.size) say("Cancelled.");
}

/** Draw what the form says. */
async function submit() {
  const fields = fieldsOfForm(), pictures = [];
  complain(null);
  for (let index = 0; index < fields.n; index += 1) pictures.push(new Picture({ ...fields, seed: fields.seed + index }, index, facts));
  place(fields, pictures);
  if (byId("beside").checked) compare(pictures);
  const begun = (requestId) => { for (const picture of pictures) picture.begin(requestId); };
  const told = (event) => {
    const picture = pictures[event.image_index];
    picture.told(event);
    if (picture.record) finished(picture);
  };
  try {
    await underWay((signal) => draw(fields, { signal, begun, told }));
  } catch (error) {
    for (const picture of pictures) picture.fail(wordsOf(error));
    if (error.name !== "AbortError") complain(error);
  }
}

function finished({ fields, record, image }) {
  addToTotals(record);
  remember({ at: Date.now(), fields, record, image });
}

function place(fields, pictures) {
  const drawing = byId("drawing").content.firstElementChild.cloneNode(true);
  drawing.querySelector("h2").textContent = fields.prompt;
  drawing.querySelector(".cards").append(...pictures.map((picture) => picture.element));
  byId("drawings").prepend(drawing);
  byId("nothing").hidden = true;
}

// ---- keyboard

function onKey(event) {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("form").requestSubmit();
  if (event.key === "Escape" && !document.querySelector("dialog[open]")) cancelAll();
}

function begin() {
  beginTheme();
  showTotals();
  showHistory();
  byId("form").addEventListener("submit", (event) => { event.preventDefault(); submit(); });
  for (const id of ["speed", "steps"]) byId(id).addEventListener("input", showSpeed);
  byId("cancel").addEventListener("click", cancelAll);
  byId("forget").addEventListener("click", forgetAll);
  byId("shown-close").addEventListener("click", () => byId("shown-dialog").close());
  document.addEventListener("keydown", onKey);
  servedModel().then(offer, complain);
}

begin();
