"use strict";
(() => {
  const streams = JSON.parse(document.getElementById("data").textContent).streams;
  const charts = document.getElementById("charts");
  const DRAWN_AT_ONCE = 6;
  const PANEL = 150, GAP = 34, TOP = 34, BOTTOM = 44;

  function bytes(text) {
    const binary = atob(text), result = new Uint8Array(binary.length);
    for (let i = 0; i < binary.length; i++) result[i] = binary.charCodeAt(i);
    return result;
  }
  function numbers(array) {
    return Float64Array.from(new Float32Array(bytes(array.v).buffer), v => array.offset + array.scale * v);
  }
  // Plotly reads a little HTML in every text of its own.
  function plain(text) {
    return text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  }
  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  }

  // The outline of each run of known bounds, as separate closed shapes: forth along the upper, back along the lower.
  function outline(x, low, high) {
    const xs = [], ys = [];
    for (let i = 0; i < x.length;) {
      if (Number.isNaN(low[i]) || Number.isNaN(high[i])) { i++; continue; }
      let end = i;
      while (end < x.length && !Number.isNaN(low[end]) && !Number.isNaN(high[end])) end++;
      if (xs.length) { xs.push(null); ys.push(null); }
      for (let k = i; k < end; k++) { xs.push(x[k]); ys.push(high[k]); }
      for (let k = end - 1; k >= i; k--) { xs.push(x[k]); ys.push(low[k]); }
      i = end;
    }
    return [xs, ys];
  }

  // A bucket of several records is a vertical stroke from its lowest to its highest value.
  function strokes(x, lowest, highest) {
    if (!highest) return [x, lowest];
    const xs = new Float64Array(2 * x.length), ys = new Float64Array(2 * x.length);
    for (let i = 0; i < x.length; i++) {
      const down = i % 2;
      xs[2 * i] = xs[2 * i + 1] = x[i];
      ys[2 * i] = down ? highest[i] : lowest[i];
      ys[2 * i + 1] = down ? lowest[i] : highest[i];
    }
    return [xs, ys];
  }

  function decode(stream) {
    if (stream.decoded) return stream.decoded;
    return stream.decoded = {
      x: new Float64Array(bytes(stream.x).buffer),
      score: numbers(stream.score),
      threshold: numbers(stream.threshold),
      flags: bytes(stream.flags),
      features: stream.features.map(f => {
        const lowest = numbers(f.lowest), highest = f.highest && numbers(f.highest);
        return { name: f.name, lowest, highest, expected: numbers(f.expected), low: numbers(f.low), high: numbers(f.high) };
      }),
    };
  }

  // Of each bucket the value that is farther from what was expected.
  function farthest({ lowest, highest, expected }) {
    return highest ? lowest.map((low, i) => expected[i] - low > highest[i] - expected[i] ? low : highest[i]) : lowest;
  }

  function marks(x, y, flags, axis) {
    const xs = [], ys = [];
    for (let i = 0; i < x.length; i++) if (flags[i]) { xs.push(x[i]); ys.push(y[i]); }
    return { x: xs, y: ys, yaxis: axis, mode: "markers", name: "flag", hoverinfo: "skip",
      marker: { symbol: "circle-open", size: 6, color: colour("flag"), line: { width: 1.5 } } };
  }

  function figure(stream) {
    const data = decode(stream), x = data.x, panels = data.features.length + 1;
    const height = TOP + BOTTOM + panels * PANEL + (panels - 1) * GAP, inner = height - TOP - BOTTOM;
    const traces = [], annotations = [], axes = {};
    const small = charts.clientWidth < 560;
    for (let p = 0; p < panels; p++) {
      const from = inner - p * (PANEL + GAP) - PANEL, feature = data.features[p];
      const axis = p ? "y" + (p + 1) : "y";
      axes["yaxis" + (p ? p + 1 : "")] = { domain: [Math.max(0, from / inner), Math.min(1, (from + PANEL) / inner)],
        gridcolor: colour("grid"), zeroline: false, nticks: 5, automargin: false, rangemode: feature ? "normal" : "tozero",
        exponentformat: "SI", tickfont: { size: 11 } };
      const title = feature ? feature.name : "score against threshold";
      const room = Math.max(12, Math.floor(charts.clientWidth / 9));
      annotations.push({ text: plain(title.length > room ? title.slice(0, room - 1) + "…" : title), showarrow: false, xref: "paper",
        yref: "paper", x: 0, y: Math.min(1, (from + PANEL) / inner), xanchor: "left", yanchor: "bottom", yshift: p ? 3 : 9,
        font: { size: 12.5, color: colour("text") } });
      if (feature) {
        const [bx, by] = outline(x, feature.low, feature.high);
        traces.push({ x: bx, y: by, yaxis: axis, mode: "lines", line: { width: 0 }, fill: "toself", fillcolor: colour("band"),
          name: "band", hoverinfo: "skip" });
        traces.push({ x, y: feature.expected, yaxis: axis, mode: "lines", name: "expected",
          line: { width: 1.2, color: colour("expected"), dash: "4px,2px" },
          customdata: Array.from(feature.low, (low, i) => [low, feature.high[i]]),
          hovertemplate: "%{y:.5~g}, %{customdata[0]:.5~g} to %{customdata[1]:.5~g}" });
        const [vx, vy] = strokes(x, feature.lowest, feature.highest);
        traces.push({ x: vx, y: vy, yaxis: axis, mode: "lines", name: "value", line: { width: 1.3, color: colour("value") },
          hovertemplate: "%{y:.6~g}" });
        traces.push(marks(x, farthest(feature), data.flags, axis));
      } else {
        traces.push({ x, y: data.threshold, yaxis: axis, mode: "lines", name: "threshold",
          line: { width: 1.3, color: colour("text"), dash: "6px,3px" }, hovertemplate: "%{y:.4~g}" });
        traces.push({ x, y: data.score, yaxis: axis, mode: "lines", name: "score", line: { width: 1.3, color: colour("score") },
          hovertemplate: "%{y:.4~g}" });
        traces.push(marks(x, data.score, data.flags, axis));
      }
    }
    for (const trace of traces) trace.type = "scatter";
    const area = (range, fill, edge, y0, y1, layer) => ({ type: "rect", xref: "x", yref: "paper", x0: range[0], x1: range[1], y0, y1,
      fillcolor: fill, line: { width: 1, color: edge }, layer });
    const strip = 6 / inner;
    const shapes = [
      ...stream.windows.flatMap(w => [area(w, colour("label"), "rgba(0,0,0,0)", 0, 1, "below"),
        area(w, colour("label-edge"), colour("label-edge"), 1 + strip / 3, 1 + 4 * strip / 3, "above")]),
      ...stream.episodes.map(e => area(e, colour("episode"), colour("episode-edge"), 0, 1, "below")),
    ];
    const layout = {
      height, margin: { l: small ? 44 : 56, r: 10, t: TOP, b: BOTTOM }, showlegend: false, shapes, annotations, hovermode: "x unified",
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", dragmode: "zoom",
      modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("muted"), activecolor: colour("text") },
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colour("muted") },
      hoverlabel: { bgcolor: colour("card"), bordercolor: colour("line"), font: { color: colour("text"), size: 12 } },
      xaxis: { type: stream.timed ? "date" : "linear", range: whole(x), anchor: panels > 1 ? "y" + panels : "y", gridcolor: colour("grid"),
        zeroline: false, ticks: "outside", ticklen: 6, tickcolor: "rgba(0,0,0,0)", title: { text: stream.timed ? "time (UTC)" : "record of the stream", font: { size: 12 }, standoff: 8 },
        nticks: small ? 4 : 10, tickfont: { size: 11 }, hoverformat: stream.timed ? "%Y-%m-%d %H:%M:%S UTC" : ",d" },
      ...axes,
    };
    return { data: traces, layout };
  }

  function whole(x) {
    let low = Infinity, high = -Infinity;
    for (const v of x) { if (v < low) low = v; if (v > high) high = v; }
    const pad = (high - low) * 0.01 || 1;
    return [low - pad, high + pad];
  }

  function note(stream) {
    const parts = [stream.caption];
    if (stream.width > 1) parts.push(`a point is ${stream.width.toLocaleString("en")} records, drawn from lowest to highest`);
    if (stream.first > 0) parts.push(`drawn from record ${stream.first.toLocaleString("en")} on`);
    if (stream.omitted) parts.push(`the ${stream.features.length} features with the largest share of the flags, ` +
      `${stream.omitted.toLocaleString("en")} more not drawn`);
    return parts.join(" · ");
  }

  function rows(index) {
    return document.querySelectorAll(`.list tr[data-stream="${index}"]`);
  }

  function card(index) {
    return document.getElementById("stream-" + index);
  }

  function draw(index, first) {
    if (card(index)) return card(index);
    const stream = streams[index], element = document.createElement("article");
    element.className = "card chart";
    element.id = "stream-" + index;
    const header = document.createElement("header"), heading = document.createElement("h3");
    const close = document.createElement("button"), caption = document.createElement("div"), plot = document.createElement("div");
    heading.textContent = stream.key;
    close.className = "close";
    close.textContent = "✕";
    close.setAttribute("aria-label", "close " + stream.key);
    close.onclick = () => {
      Plotly.purge(plot);
      element.remove();
      rows(index).forEach(row => row.classList.remove("drawn"));
    };
    caption.className = "caption";
    caption.textContent = note(stream);
    plot.className = "plot";
    header.append(heading);
    if (streams.length > 1) header.append(close);
    element.append(header, caption, plot);
    if (first) charts.prepend(element); else charts.append(element);
    const { data, layout } = figure(stream);
    Plotly.newPlot(plot, data, layout, { displaylogo: false, scrollZoom: false,
      modeBarButtons: [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]] });
    // Plotly follows the window only, and the page's own scroll bar or a turned phone changes the card alone.
    new ResizeObserver(() => { if (plot.isConnected) Plotly.Plots.resize(plot); }).observe(plot);
    rows(index).forEach(row => row.classList.add("drawn"));
    return element;
  }

  function show(index, range) {
    const element = draw(index, true);
    element.scrollIntoView({ behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth", block: "start" });
    if (range) {
      const all = whole(decode(streams[index]).x);
      const pad = Math.max(2 * (range[1] - range[0]), (all[1] - all[0]) / 100);
      Plotly.relayout(element.querySelector(".plot"), { "xaxis.range": [range[0] - pad, range[1] + pad] });
    }
  }

  document.querySelectorAll("tr.pick").forEach(row => {
    row.addEventListener("click", () => {
      const { stream, from, to } = row.dataset;
      show(Number(stream), from === undefined ? null : [Number(from), Number(to)]);
    });
  });

  const filter = document.getElementById("filter");
  if (filter) filter.addEventListener("input", () => {
    const wanted = filter.value.trim().toLowerCase();
    document.querySelectorAll(".list tbody tr").forEach(row => {
      row.hidden = !row.querySelector(".name").textContent.toLowerCase().includes(wanted);
    });
  });

  let next = 0;
  (function drawNext() {
    if (next >= Math.min(DRAWN_AT_ONCE, streams.length)) return;
    draw(next++, false);
    setTimeout(drawNext, 0);
  })();

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    document.querySelectorAll(".chart").forEach(element => {
      const { data, layout } = figure(streams[Number(element.id.slice(7))]);
      Plotly.react(element.querySelector(".plot"), data, layout);
    });
  });
})();
