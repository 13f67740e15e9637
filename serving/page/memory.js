"use strict";
// What this browser keeps: what was saved in total, and the images that were drawn.

const TOTALS = "addiffusion-totals", MOST = 200;
const NOTHING_YET = { images: 0, cost: 0, full: 0 };

function kept(name, otherwise) {
  try {
    return { ...otherwise, ...JSON.parse(localStorage.getItem(name)) };
  } catch {
    return otherwise;
  }
}

function keep(name, value) {
  try {
    localStorage.setItem(name, JSON.stringify(value));
  } catch { /* a browser that keeps nothing */ }
}

function addToTotals(record) {
  const totals = kept(TOTALS, NOTHING_YET);
  totals.images += 1;
  totals.cost += record.cost;
  totals.full += record.full_cost;
  keep(TOTALS, totals);
  showTotals();
}

function showTotals() {
  const totals = kept(TOTALS, NOTHING_YET), put = (name, text) => { document.getElementById(`total-${name}`).textContent = text; };
  put("images", totals.images);
  put("cost", number(totals.cost));
  put("full", number(totals.full));
  put("saved", totals.full ? share(1 - totals.cost / totals.full) : "–");
}

const number = (value) => value.toLocaleString("en", { maximumFractionDigits: 1 });
const share = (value) => `${Math.round(100 * value)} %`;
const pngOf = (base64) => `data:image/png;base64,${base64}`;

// ---- images, in IndexedDB

/** Do something with the store of images; what it returns is waited for. Null where the browser keeps nothing. */
function withStore(mode, work) {
  return new Promise((resolve) => {
    const opening = indexedDB.open("addiffusion", 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore("images", { keyPath: "id", autoIncrement: true });
    opening.onerror = () => resolve(null);
    opening.onsuccess = () => {
      const database = opening.result, transaction = database.transaction("images", mode);
      const asked = work(transaction.objectStore("images"));
      const end = (value) => { database.close(); resolve(value); };
      transaction.oncomplete = () => end(asked.result);
      transaction.onerror = transaction.onabort = () => end(null);
    };
  });
}

async function remember(item) {
  await withStore("readwrite", (store) => store.add(item));
  const ids = await withStore("readonly", (store) => store.getAllKeys());
  if (ids && ids.length > MOST) await withStore("readwrite", (store) => store.delete(IDBKeyRange.upperBound(ids[ids.length - MOST - 1])));
  await showHistory();
}

async function forgetAll() {
  await withStore("readwrite", (store) => store.clear());
  keep(TOTALS, NOTHING_YET);
  showTotals();
  await showHistory();
}

async function showHistory() {
  const items = (await withStore("readonly", (store) => store.getAll())) ?? [];
  document.getElementById("thumbs").replaceChildren(...items.reverse().map(thumb));
  document.getElementById("forget").disabled = !items.length;
}

function thumb(item) {
  const entry = document.createElement("li"), button = document.createElement("button");
  const image = document.createElement("img"), words = document.createElement("span");
  image.src = pngOf(item.image);
  image.alt = item.fields.prompt;
  image.loading = "lazy";
  image.onload = () => { image.className = smallOf(image); };
  words.textContent = `${number(item.record.cost)} of ${number(item.record.full_cost)}`;
  button.type = "button";
  button.append(image, words);
  button.onclick = () => showKept(item);
  entry.append(button);
  return entry;
}

function showKept(item) {
  const dialog = document.getElementById("shown-dialog"), image = document.getElementById("shown-image");
  document.getElementById("shown-title").textContent = item.fields.prompt;
  image.onload = () => { image.className = smallOf(image); };
  image.src = pngOf(item.image);
  image.alt = item.fields.prompt;
  document.getElementById("shown-words").textContent =
    `${costWords(item.record)}; seed ${item.record.seed}, ${new Date(item.at).toLocaleString()}`;
  document.getElementById("shown-save").onclick = () => save(item.image, item.record.seed);
  document.getElementById("shown-again").onclick = () => { dialog.close(); useSettings(item); };
  dialog.showModal();
}

/** Offer an image as a file; its parameters are in it already. */
function save(image, seed) {
  const link = document.createElement("a");
  link.href = pngOf(image);
  link.download = `addiffusion-${seed}.png`;
  link.click();
}

function costWords(record) {
  const saved = 1 - record.cost / record.full_cost;
  return `${number(record.cost)} of ${number(record.full_cost)} passes${saved > 0 ? `, ${share(saved)} saved` : ""}`;
}

/** Images of few pixels show them as they are. */
const smallOf = (image) => (image.naturalWidth < 200 ? "still small" : "still");
