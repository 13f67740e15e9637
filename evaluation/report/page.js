"use strict";
(() => {
  const charts = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const byId = (id) => document.getElementById(id);
  const css = (name) => getComputedStyle(root).getPropertyValue(name).trim();

  // ---- theme: the system's unless the button says otherwise
  const themeButton = byId("theme");
  const dark = () => root.dataset.theme === "dark";
  function setTheme(name) {
    root.dataset.theme = name;
    themeButton.setAttribute("aria-pressed", String(dark()));
    charts.forEach(draw);
  }
  themeButton.addEventListener("click", () => setTheme(dark() ? "light" : "dark"));

  // ---- charts
  function axis(given) {
    return { gridcolor: css("--line"), zerolinecolor: css("--line"), linecolor: css("--soft"), automargin: true, ...given };
  }
  function layoutOf(chart) {
    const layout = {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 48, r: 12, t: 8, b: 40 },
      font: { color: css("--ink"), family: getComputedStyle(document.body).fontFamily, size: 12 },
      legend: { orientation: "h", y: -0.22, font: { size: 11 } }, hovermode: "closest",
      hoverlabel: { bgcolor: css("--card"), bordercolor: css("--line"), font: { color: css("--ink") } },
      colorway: ["#D55E00", "#8A8A8A", "#0072B2", "#56B4E9", "#009E73", "#CC79A7"],
    };
    for (const [key, value] of Object.entries(chart.layout)) layout[key] = key.includes("axis") ? axis(value) : value;
    if (chart.cost) layout.xaxis = { ...layout.xaxis, title: { text: chart.toggle[chart.cost] } };
    return layout;
  }
  function dataOf(chart) {
    return chart.data.map((series) => ({ ...series, visible: chart.cost ? series.meta === chart.cost : series.visible ?? true }));
  }
  function draw(chart) {
    Plotly.react(byId("chart-" + chart.id), dataOf(chart), layoutOf(chart), { displaylogo: false, responsive: true, displayModeBar: false });
  }
  for (const chart of charts) if (chart.toggle) chart.cost = "nfe";
  setTheme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", (event) => setTheme(event.matches ? "dark" : "light"));

  document.querySelectorAll("button[data-cost]").forEach((button) => button.addEventListener("click", () => {
    const chart = charts.find((one) => one.id === button.dataset.chart);
    chart.cost = button.dataset.cost;
    button.parentElement.querySelectorAll("button").forEach((one) => one.setAttribute("aria-pressed", String(one === button)));
    draw(chart);
  }));

  // ---- keyboard: walk along points, from series to series; what is under the cursor is read out
  for (const chart of charts) {
    const place = byId("chart-" + chart.id);
    const at = { series: 0, point: -1 };
    place.addEventListener("keydown", (event) => {
      const moves = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };
      const move = moves[event.key];
      if (!move) return;
      event.preventDefault();
      const shown = dataOf(chart).map((series, index) => index).filter((index) => dataOf(chart)[index].visible !== false);
      at.series = Math.max(0, Math.min(shown.length - 1, at.series + move[0]));
      const number = shown[at.series], series = chart.data[number];
      at.point = Math.max(0, Math.min(series.x.length - 1, at.point + move[1]));
      byId("readout-" + chart.id).textContent = words(series, at.point);
      try { Plotly.Fx.hover(place, [{ curveNumber: number, pointNumber: at.point }]); } catch { /* histograms have no single points */ }
    });
  }
  const round = (value) => typeof value === "number" ? Number(value.toPrecision(4)) : value ?? "-";
  function words(series, point) {
    const label = series.text ? series.text[point] + ": " : "";
    const value = series.y ? " → " + round(series.y[point]) : "";
    return `${series.name}: ${label}${round(series.x[point])}${value}`;
  }

  // ---- numbers behind each chart, built when opened
  document.querySelectorAll("details.numbers").forEach((box) => box.addEventListener("toggle", () => {
    const inner = box.querySelector("div");
    if (!box.open || inner.childElementCount) return;
    const chart = charts.find((one) => one.id === box.dataset.chart);
    const table = document.createElement("table");
    const row = (cells, kind) => {
      const line = document.createElement("tr");
      cells.forEach((text) => line.appendChild(document.createElement(kind)).textContent = text);
      table.appendChild(line);
    };
    row(["series", "label", "x", "y"], "th");
    for (const series of chart.data)
      series.x.forEach((x, index) => row([series.name, series.text ? series.text[index] : "", round(x), series.y ? round(series.y[index]) : ""], "td"));
    inner.appendChild(table);
  }));

  // ---- standings: sort by a column
  document.querySelectorAll("button[data-sort]").forEach((button) => button.addEventListener("click", () => {
    const body = document.querySelector("#table-standings tbody");
    const column = Number(button.dataset.sort);
    const rising = button.dataset.rising !== "true";
    button.dataset.rising = String(rising);
    const value = (line) => { const found = parseFloat(line.children[column].dataset.value); return Number.isNaN(found) ? Infinity : found; };
    [...body.children].sort((a, b) => (value(a) - value(b)) * (rising ? 1 : -1)).forEach((line) => body.appendChild(line));
  }));

  // ---- episodes: filter and order
  const list = byId("strips");
  if (!list) return;
  const strips = [...list.children];
  function refresh() {
    const tier = byId("filter-tier").value, action = byId("filter-action").value, order = byId("order").value;
    const key = order.replace("-", ""), sign = order.startsWith("-") ? -1 : 1;
    strips.sort((a, b) => sign * (Number(a.dataset[key]) - Number(b.dataset[key]))).forEach((strip) => list.appendChild(strip));
    let count = 0;
    for (const strip of strips) {
      strip.hidden = (tier && strip.dataset.tier !== tier) || (action && !strip.dataset.actions.split(" ").includes(action));
      count += !strip.hidden;
    }
    byId("shown").textContent = `${count} of ${strips.length} episodes`;
    list.classList.toggle("nomasks", !byId("masks").checked);
  }
  byId("filters").addEventListener("change", refresh);
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  refresh();
})();
