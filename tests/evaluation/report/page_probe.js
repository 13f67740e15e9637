// Put into a page under test: uses it once it has loaded, and leaves what it saw as JSON in its place.
addEventListener("error", (event) => errors.push(event.message), true);
const errors = [];
addEventListener("load", () => setTimeout(() => {
  const shown = () => [...document.querySelectorAll(".strip")].filter((one) => !one.hidden).map((one) => Number(one.dataset.index)).sort();
  const pick = (id, value) => { const box = document.getElementById(id); box.value = value; box.dispatchEvent(new Event("change", { bubbles: true })); };
  const all = shown();
  pick("filter-tier", "2"); const tier = shown();
  pick("filter-tier", ""); pick("filter-action", "refine"); const refined = shown();
  pick("filter-action", "");
  const chart = document.getElementById("chart-nfe");
  chart.focus();
  for (const key of ["ArrowRight", "ArrowDown", "ArrowDown"]) chart.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  document.querySelector('button[data-cost="seconds"]').click();
  const before = document.documentElement.dataset.theme; document.getElementById("theme").click();
  const found = { errors, all, tier, refined, focused: document.activeElement === chart || chart.contains(document.activeElement),
    readout: document.getElementById("readout-nfe").textContent,
    broken: [...document.images].filter((one) => !one.complete || one.naturalWidth === 0).length,
    plots: document.querySelectorAll(".chart .main-svg").length > 0, charts: document.querySelectorAll(".chart").length,
    drawn: [...document.querySelectorAll(".chart")].filter((one) => one.querySelector(".main-svg")).length,
    cost: document.querySelector(".chart[id^=chart-pareto] .xtitle").textContent,
    themes: [before, document.documentElement.dataset.theme] };
  const out = document.createElement("pre"); out.id = "probe"; out.textContent = JSON.stringify(found); document.body.replaceChildren(out);
}, 300));
