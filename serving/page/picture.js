"use strict";
// One image: how it comes about, what was decided, what it cost, and what its viewer wants otherwise.

class Picture {
  /**
   * @param {object} fields what was asked, with the image's own seed
   * @param {number} index of the image in its request
   * @param {object} facts of the model
   */
  constructor(fields, index, facts) {
    this.fields = fields;
    this.index = index;
    this.facts = facts;
    this.frames = [];
    this.requestId = null;
    this.record = null;
    this.element = document.getElementById("card").content.firstElementChild.cloneNode(true);
    this.element.setAttribute("aria-label", `Image ${index + 1}: ${fields.prompt}`);
    this.find(".look").setAttribute("aria-label", `Decisions of image ${index + 1}`);
    this.find(".look").addEventListener("input", (event) => this.show(Number(event.target.value)));
    this.element.addEventListener("click", (event) => this.act(event.target.dataset.do));
    this.element.addEventListener("keydown", (event) => this.key(event));
    this.enable(false);
    this.drawTimeline(fields.num_inference_steps);
  }

  find(selector) {
    return this.element.querySelector(selector);
  }

  // ---- what the server tells

  begin(requestId) {
    this.requestId = requestId;
    this.enable(true);
  }

  told(event) {
    if (event.type === "image_generation.completed") this.complete(event);
    else this.decided(event);
  }

  decided(event) {
    const { step, num_steps: steps, action, cost, nfe } = event.addiffusion;
    this.add({ image: event.b64_json, mask: event.mask_b64_json, step, action, nfe, words: `step ${step + 1} of ${steps}: ${action}` });
    this.find(".cost").textContent = `${number(cost)} passes so far`;
  }

  complete(event) {
    const record = event.addiffusion;
    this.record = record;
    this.image = event.b64_json;
    const ended = record.stopped_at === null ? "went to the end" : `stopped at step ${record.stopped_at + 1}`;
    this.add({ image: event.b64_json, step: null, action: "result", words: `done: ${ended}` });
    this.end();
    const cost = this.find(".cost"), saved = 1 - record.cost / record.full_cost;
    cost.textContent = `${number(record.cost)} of ${number(record.full_cost)} passes `;
    if (saved > 0) cost.append(Object.assign(document.createElement("b"), { textContent: `${share(saved)} saved` }));
    this.find("[data-do=save]").hidden = false;
    say(`Image ${this.index + 1} is done: ${costWords(record)}.`);
  }

  /** It ends without an image of its own. */
  fail(words) {
    if (this.record) return;
    this.end();
    this.find(".own figcaption").textContent = words;
  }

  end() {
    this.requestId = null;
    this.enable(false);
    for (const name of ["stop", "continue"]) this.find(`[data-do=${name}]`).hidden = true;
    this.find("[data-do=full]").hidden = !this.find(".full").hidden;
    this.drawTimeline();
  }

  // ---- what is shown

  add(frame) {
    const look = this.find(".look"), follows = Number(look.value) >= this.frames.length - 1;
    this.frames.push(frame);
    look.max = this.frames.length - 1;
    look.hidden = this.frames.length < 2;
    if (follows || frame.action === "result") {
      look.value = look.max;
      this.show(this.frames.length - 1);
    }
    this.drawTimeline();
  }

  show(number) {
    const frame = this.frames[number], mask = this.find(".mask"), picture = this.find(".own .picture");
    setImage(this.find(".own .still"), frame.image, `${this.fields.prompt}, ${frame.words}`);
    mask.hidden = !frame.mask;
    if (frame.mask) mask.src = pngOf(frame.mask);
    picture.className = `picture ${frame.action}`;
    this.find(".own figcaption").textContent = frame.words + (frame.mask ? ", the lit region" : "");
    this.find(".look").setAttribute("aria-valuetext", frame.words);
    this.looked = frame.step;
    this.drawTimeline();
  }

  drawTimeline() {
    const line = this.find(".timeline"), kinds = this.kinds();
    line.classList.toggle("dense", kinds.length > 80);
    line.setAttribute("aria-label", `Timeline: ${this.summary(kinds)}`);
    line.replaceChildren(...kinds.map((kind, step) => {
      const cell = document.createElement("i");
      cell.className = kind + (step === this.looked ? " looked" : "");
      cell.title = `step ${step + 1}: ${kind}`;
      return cell;
    }));
  }

  /** What happened at each step of the full run. */
  kinds() {
    const warmup = this.facts.least_num_inference_steps - 1, kinds = Array(this.fields.num_inference_steps).fill("unspent");
    const decisions = this.frames.filter((frame) => frame.step !== null);
    if (decisions.length) kinds.fill("warmup", 0, warmup);
    for (const { step, action } of decisions) if (kinds[step] !== "refine") kinds[step] = action;
    if (this.record) this.fillFromRecord(kinds, warmup, decisions);
    return kinds;
  }

  /** Decisions that were not watched, and the passes after a stop. */
  fillFromRecord(kinds, warmup, decisions) {
    const { actions, stopped_at: stop, nfe } = this.record;
    kinds.fill("warmup", 0, warmup);
    actions.forEach((action, index) => { if (warmup + index < kinds.length) kinds[warmup + index] = action; });
    const last = decisions.at(-1);
    if (stop !== null && last?.action === "stop") kinds.fill("finish", stop + 1, stop + 1 + nfe - last.nfe);
  }

  summary(kinds) {
    const counts = new Map();
    for (const kind of kinds) counts.set(kind, (counts.get(kind) ?? 0) + 1);
    return [...counts].map(([kind, count]) => `${count} ${kind}`).join(", ");
  }

  enable(on) {
    for (const name of ["stop", "continue"]) this.find(`[data-do=${name}]`).disabled = !on;
  }

  // ---- what the viewer wants

  key(event) {
    if (event.target.matches("input, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
    const wanted = { s: "stop", g: "continue" }[event.key.toLowerCase()];
    if (wanted && this.requestId) this.act(wanted);
  }

  act(wanted) {
    if (wanted === "stop" || wanted === "continue") this.override(wanted);
    if (wanted === "full") compare([this]);
    if (wanted === "save") save(this.image, this.record.seed);
  }

  /** Stop at the next decision, or go on to the end, whatever the policy says. */
  override(action) {
    const words = action === "stop" ? "stops at its next decision" : "goes to the end of the schedule";
    steer(this.requestId, this.index, action).then(() => say(`Image ${this.index + 1} ${words}.`), complain);
    for (const name of ["stop", "continue"]) this.find(`[data-do=${name}]`).disabled = name === action;
  }

  /** Make room for the full run beside it. */
  beginFull() {
    this.element.classList.add("compared");
    this.find(".full").hidden = false;
    this.find("[data-do=full]").hidden = true;
  }

  toldFull(event) {
    const { step, cost } = event.addiffusion, steps = this.fields.num_inference_steps;
    setImage(this.find(".full .still"), event.b64_json, `${this.fields.prompt}, full run`);
    this.sayFull(step === undefined ? `${number(cost)} passes` : `step ${step + 1} of ${steps}`);
  }

  sayFull(words) {
    this.find(".full figcaption").textContent = `full run: ${words}`;
  }
}

/** Draw the full runs of images of one request: of all by one connection, for a browser has few of them. */
function compare(pictures) {
  const { speed, quality, every_decision, ...fields } = pictures[0].fields, n = pictures.length;
  for (const picture of pictures) picture.beginFull();
  const told = (event) => pictures[event.image_index].toldFull(event);
  const drawn = (signal) => draw({ ...fields, n, full_run: true, partial_images: 3 }, { signal, begun() {}, told });
  underWay(drawn).catch((error) => {
    for (const picture of pictures) picture.sayFull(wordsOf(error));
  });
}

function setImage(image, base64, alt) {
  image.onload = () => { image.className = smallOf(image); };
  image.src = pngOf(base64);
  image.alt = alt;
}
