"use strict";
// Unpacks plotly from the page itself and draws the charts: no network is needed.
(async () => {
  const places = [...document.querySelectorAll(".chart")];
  const hidden = new Set();

  async function loadPlotly() {
    const packed = atob(document.getElementById("plotly").textContent.trim());
    const bytes = Uint8Array.from(packed, (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
  }

  // Replaces var(--ink) by the colour that the theme of the page gives it now.
  function themed(value, look) {
    if (typeof value === "string" && value.startsWith("var(")) {
      return look.getPropertyValue(value.slice(4, -1)).trim();
    }
    if (Array.isArray(value)) return value.map((inner) => themed(inner, look));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, themed(v, look)]));
    }
    return value;
  }

  // plotly reads a little HTML in names.
  const plain = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");

  function draw(place) {
    const look = getComputedStyle(document.documentElement);
    const spec = themed(JSON.parse(place.querySelector("script").textContent), look);
    const ink = look.getPropertyValue("--ink").trim();
    const rule = look.getPropertyValue("--rule").trim();
    const data = spec.data.map((trace) => ({
      x: spec.x, ...trace, name: plain(trace.name), text: trace.text?.map(plain),
      showlegend: false, visible: !hidden.has(trace.name),
    }));
    const layout = {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: ink, size: 12, family: getComputedStyle(document.body).fontFamily },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: rule, activecolor: ink },
      margin: { l: 58, r: 26, t: 12, b: 40 }, hovermode: "closest", ...spec.layout,
    };
    for (const key of Object.keys(layout)) {
      if (/^[xy]axis/.test(key)) {
        layout[key] = { gridcolor: rule, linecolor: rule, zerolinecolor: rule, automargin: true, ...layout[key] };
      }
    }
    const options = { responsive: true, displaylogo: false, modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]] };
    return Plotly.react(place.querySelector(".plot"), data, layout, options);
  }

  // One row of names switches a policy off and on in every chart that has it.
  function addNames(bar) {
    for (const button of bar.querySelectorAll("button")) {
      button.addEventListener("click", () => {
        const name = button.dataset.name;
        hidden.has(name) ? hidden.delete(name) : hidden.add(name);
        document.querySelectorAll(".names button").forEach((twin) => {
          if (twin.dataset.name === name) twin.setAttribute("aria-pressed", String(!hidden.has(name)));
        });
        places.forEach(draw);
      });
    }
  }

  if (!places.length) return;
  if (typeof DecompressionStream === "undefined") {
    places.forEach((place) => { place.querySelector(".plot").textContent = "This chart needs a browser of 2023 or later."; });
    return;
  }
  await loadPlotly();
  await Promise.all(places.map(draw));
  document.querySelectorAll(".names").forEach(addNames);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => places.forEach(draw));
  document.documentElement.dataset.charts = "drawn";
})();
