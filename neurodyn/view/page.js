"use strict";
(async () => {
  const meta = JSON.parse(document.getElementById("meta").textContent);
  const times = meta.along.values, count = times.length;
  const LEFT = 46, RIGHT = 8, FOOT = 16;
  const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#888888"];
  const ON_DARK = ["#56B4E9", "#FF8A4D", "#2FC79A", "#F0B840", "#E3A0C5", "#8FA8FF", "#AAAAAA"];
  const state = { now: 0, at: {}, traces: [], chosen: new Set(), playing: false, log: false, fit: false };

  // ---- the values -------------------------------------------------------------------------------------------------

  // Bytes of the same weight stand together in the file; here they come back beside each other.
  async function decode(text, bytes) {
    const packed = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    const planes = new Uint8Array(await new Response(stream).arrayBuffer());
    if (bytes === 1) return planes;
    const size = planes.length / bytes, whole = new Uint8Array(planes.length);
    for (let b = 0; b < bytes; b++) for (let i = 0, o = b * size; i < size; i++) whole[i * bytes + b] = planes[o + i];
    return bytes === 4 ? new Float32Array(whole.buffer) : new Float64Array(whole.buffer);
  }
  const sliders = Object.fromEntries(meta.sliders.map((s) => [s.name, s]));
  for (const s of meta.sliders) state.at[s.name] = 0;
  await Promise.all(meta.variables.map(async (v, n) => {
    const element = document.getElementById("values" + n);
    v.values = await decode(element.textContent, v.bytes);
    element.remove();
    v.rows = v.shape.reduce((a, [, size]) => a * size, 1);
    v.columns = v.across ? count : 1;
    v.limits = auto(v);
    v.least = v.kind === "curve" ? v.values.reduce((a, x) => x > 0 && x < a ? x : a, Infinity) : 0; // above 0
  }));

  // What is shown of a variable: its rows of values, where the sliders stand.
  const place_of = (v) => v.others.reduce((place, name) => place * sliders[name].values.length + state.at[name], 0);
  function slice(v) {
    const place = place_of(v), size = v.rows * v.columns;
    return v.values.subarray(place * size, (place + 1) * size);
  }
  function value(v, row, column) { return slice(v)[row * v.columns + (v.across ? column : 0)]; }
  function auto(v) {
    if (v.low < 0 && v.high > 0) { const most = Math.max(-v.low, v.high); return [-most, most]; }
    return v.low < v.high ? [v.low, v.high] : [v.low - 0.5, v.high + 0.5];
  }
  const text = (x) => Number.isFinite(x) ? String(+x.toPrecision(6)) : x === undefined ? "" : String(x);
  const short = (x) => Number.isFinite(x) ? String(+x.toPrecision(3)) : "";
  const called = (dim, i) => dim.texts.length ? dim.texts[i] : text(dim.values[i]);
  // The numbers, or the names, of the unit in a row, along each of its dimensions.
  function numbers_of(v, row) {
    const found = [];
    for (let d = v.shape.length - 1; d >= 0; d--) {
      const size = v.shape[d][1], place = row % size;
      found.unshift(v.numbers[d].length ? v.numbers[d][place] : place);
      row = Math.floor(row / size);
    }
    return found;
  }
  const unit = (v, row) => numbers_of(v, row).map((number, d) => `${v.shape[d][0]} ${number}`).join(", ");

  // ---- across the page --------------------------------------------------------------------------------------------

  const first = times[0], last = times[count - 1];
  const whole = times.every(Number.isInteger);
  const x_of = (i, width) => LEFT + (count > 1 ? (times[i] - first) / (last - first) : 0) * (width - LEFT - RIGHT);
  function index_at(t) { // the last time that is not after t
    let low = 0, high = count - 1;
    while (low < high) { const mid = (low + high + 1) >> 1; if (times[mid] <= t) low = mid; else high = mid - 1; }
    return low;
  }
  function nearest(t) {
    const i = index_at(t);
    return i + 1 < count && times[i + 1] - t < t - times[i] ? i + 1 : i;
  }
  const time_at = (x, width) => first + (x - LEFT) / Math.max(1, width - LEFT - RIGHT) * (last - first);
  function ticks(low, high, most) {
    if (!(high > low)) return [low];
    const rough = (high - low) / most, power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((m) => m * power >= rough), found = [];
    for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) found.push(+(k * step).toPrecision(12));
    return found;
  }

  // ---- colours ----------------------------------------------------------------------------------------------------

  const VIRIDIS = ["#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725"];
  const LIGHT = ["#053061", "#2166ac", "#4393c3", "#92c5de", "#f7f7f7", "#f4a582", "#d6604d", "#b2182b", "#67001f"];
  const DARK = ["#9ecbff", "#58a0e8", "#2b6cb0", "#1c3c63", "#161719", "#5f2a22", "#a8432f", "#e8704f", "#ffb199"];
  const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  function palette(stops) {
    const table = new Uint32Array(256), colours = stops.map(rgb);
    for (let i = 0; i < 256; i++) {
      const p = i / 255 * (stops.length - 1), k = Math.min(Math.floor(p), stops.length - 2), f = p - k;
      const [r, g, b] = [0, 1, 2].map((c) => Math.round(colours[k][c] * (1 - f) + colours[k + 1][c] * f));
      table[i] = (255 << 24) | (b << 16) | (g << 8) | r;
    }
    return table;
  }
  const palettes = { viridis: palette(VIRIDIS), light: palette(LIGHT), dark: palette(DARK) };
  const dark = () => document.documentElement.dataset.theme === "dark";
  const table = (v) => v.limits[0] < 0 && v.limits[1] > 0 ? palettes[dark() ? "dark" : "light"] : palettes.viridis;
  const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();

  // ---- the page ---------------------------------------------------------------------------------------------------

  function make(kind, inside, attributes = {}, words = "") {
    const element = document.createElement(kind);
    for (const [name, each] of Object.entries(attributes)) element.setAttribute(name, each);
    if (words) element.textContent = words;
    inside.append(element);
    return element;
  }
  const main = document.getElementById("panels"), controls = document.getElementById("controls");
  const tip = make("div", document.body, { id: "tip" });
  const panels = [];
  function panel(title, detail, kind, variable, height) {
    const box = make("section", main, { class: "panel", "data-name": variable ? variable.name : title });
    const head = make("div", box, { class: "head" });
    make("h2", head, {}, title);
    make("span", head, { class: "soft" }, detail);
    const canvas = make("canvas", box, { tabindex: 0, "aria-label": `${title} ${detail}` });
    const it = { box, head, canvas, kind, variable, height, seen: true, cached: null, pen: canvas.getContext("2d") };
    canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); press(it, event, true); });
    canvas.addEventListener("pointermove", (event) => { if (event.buttons) press(it, event, false); hover(it, event); });
    canvas.addEventListener("pointerleave", () => { tip.style.display = "none"; });
    panels.push(it);
    return it;
  }

  function limits(it) {
    const v = it.variable;
    const scale = make("canvas", it.head, { class: "scale", width: 70, height: 1 });
    const fields = [0, 1].map((i) => {
      const input = make("input", it.head, { type: "number", step: "any", "aria-label": `${i ? "upper" : "lower"} colour limit of ${v.name}` });
      input.addEventListener("change", () => {
        const wanted = [...v.limits];
        wanted[i] = Number(input.value);
        if (input.value !== "" && wanted[0] < wanted[1]) v.limits = wanted;
        changed();
      });
      return input;
    });
    const fit = make("button", it.head, { title: "The limits of what is shown now" }, "fit");
    fit.addEventListener("click", () => {
      let low = Infinity, high = -Infinity;
      for (const x of slice(v)) { if (x < low && x > -Infinity) low = x; if (x > high && x < Infinity) high = x; }
      if (low <= high) v.limits = auto({ low, high });
      changed();
    });
    make("button", it.head, { title: "The limits of all values" }, "all").addEventListener("click", () => { v.limits = auto(v); changed(); });
    it.limits = () => {
      fields.forEach((input, i) => { if (document.activeElement !== input) input.value = +v.limits[i].toPrecision(4); });
      const pen = scale.getContext("2d"), image = pen.createImageData(70, 1), out = new Uint32Array(image.data.buffer), colours = table(v);
      for (let i = 0; i < 70; i++) out[i] = colours[Math.floor(i / 70 * 256)];
      pen.putImageData(image, 0, 0);
    };
  }

  const of_kind = (kind) => meta.variables.filter((v) => v.kind === kind);
  for (const v of of_kind("curve")) panel(v.name, v.label === v.name ? v.unit : v.label, "curve", v, 120);
  const traces = panel("traces", "", "traces", null, 140);
  for (const v of meta.variables.filter((v) => v.kind === "map" || v.kind === "raster")) {
    const it = panel(v.name, v.shape.map(([name, size]) => `${size} ${name}${size > 1 ? "s" : ""}`).join(" × "), v.kind, v,
      Math.min(260, Math.max(48, 12 * v.rows)));
    if (v.kind === "map") limits(it);
  }

  const row = make("div", controls, { class: "row" });
  const buttons = {};
  for (const [name, words, title, act] of [
    ["play", "▶ play", "Space", play],
    ["theme", "dark", "D", theme],
    ["log", "log curves", "L", () => { state.log = !state.log; changed(); }],
    ["fit", "fit curves", "F: the limits of what is shown now, not of all values", () => { state.fit = !state.fit; changed(); }],
    ["clear", "clear traces", "C", () => { state.traces = []; changed(); }],
    ["png", "PNG", "P", png],
    ["help", "?", "Keys", help],
  ]) {
    buttons[name] = make("button", row, { title, id: name }, words);
    buttons[name].addEventListener("click", act);
  }
  function slider(id, label, most, get, set) {
    const box = make("div", controls, { class: "slider" });
    const line = make("label", box, { for: id });
    make("span", line, {}, label);
    const shown = make("output", line);
    const input = make("input", box, { type: "range", min: 0, max: most, step: 1, id });
    input.addEventListener("input", () => set(Number(input.value)));
    return () => { const [i, words] = get(); input.value = i; shown.textContent = words; };
  }
  const refresh = [];
  if (count > 1) {
    refresh.push(slider("along", meta.along.label || meta.along.name, count - 1, () => [state.now, called(meta.along, state.now)], go));
  }
  meta.sliders.forEach((s, n) => {
    if (s.values.length > 1) refresh.push(slider("slider-" + n, s.label, s.values.length - 1, () => [state.at[s.name], called(s, state.at[s.name])], (i) => { state.at[s.name] = i; changed(); }));
  });
  const numbers = make("div", controls, { class: "numbers" });
  for (const v of of_kind("number")) {
    make("span", numbers, { class: "soft", title: v.label }, v.name);
    const shown = make("output", numbers, { "data-name": v.name });
    refresh.push(() => { shown.textContent = text(value(v, 0, 0)); });
  }
  for (const v of meta.texts) {
    make("span", numbers, { class: "soft" }, v.name);
    const shown = make("output", numbers, { "data-name": v.name });
    refresh.push(() => { shown.textContent = v.values[place_of(v)]; });
  }
  for (const [name, words] of meta.facts) {
    make("span", numbers, { class: "soft" }, name);
    make("output", numbers, { "data-name": name }, words);
  }
  for (const note of meta.notes) make("p", controls, { class: "note" }, note);
  const keys = make("details", controls, { id: "keys" });
  make("summary", keys, {}, "Keys and clicks");
  make("dd", keys, {}, [
    "← →  a step back, forth; with Shift, a tenth", "Home End  the first, the last", "Space  play", "↑ ↓  the next unit, for the last trace",
    "[ ]  the first slider back, forth", "D  dark or light", "L  logarithmic curves", "F  curves fitted to what is shown", "C  clear the traces", "P  a PNG of what one sees", "Esc  all populations",
    "A click in a map moves the cursor and traces the unit; a click on a population of the diagram shows it alone, with Shift beside the others.",
  ].join("\n"));
  const facts = make("details", controls);
  make("summary", facts, {}, "What ran");
  const list = make("dl", facts);
  for (const [name, words] of Object.entries(meta.attributes)) { make("dt", list, {}, name); make("dd", list, {}, words); }

  // ---- the diagram ------------------------------------------------------------------------------------------------

  const diagram = document.getElementById("diagram");
  const populations = [...new Set(meta.variables.filter((v) => v.shape.length).map((v) => v.population))];
  let nodes = [...diagram.querySelectorAll(".population")];
  if (!nodes.length) {
    const row = make("div", diagram, { class: "row" });
    nodes = populations.map((name) => make("button", row, { class: "population", "data-name": name }, name));
  }
  for (const node of nodes) {
    const name = node.dataset.name;
    if (!populations.includes(name)) { node.classList.add("none"); continue; }
    node.setAttribute("tabindex", 0);
    node.setAttribute("role", "button");
    node.addEventListener("click", (event) => choose(name, event.shiftKey));
    node.addEventListener("keydown", (event) => { if (event.key === "Enter") choose(name, event.shiftKey); });
  }
  function choose(name, beside) {
    const alone = state.chosen.has(name) && (beside || state.chosen.size === 1);
    if (!beside) state.chosen.clear();
    if (alone) state.chosen.delete(name); else state.chosen.add(name);
    changed();
  }

  // ---- drawing ----------------------------------------------------------------------------------------------------

  function prepare(it) {
    const ratio = window.devicePixelRatio || 1, width = it.box.clientWidth, height = it.height + FOOT;
    if (it.width !== width || it.ratio !== ratio) {
      it.width = width; it.ratio = ratio;
      it.canvas.width = Math.max(1, Math.round(width * ratio));
      it.canvas.height = Math.round(height * ratio);
      it.canvas.style.height = height + "px";
      it.cached = null;
    }
    it.pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    it.pen.fillStyle = ink("page");
    it.pen.fillRect(0, 0, width, height);
    it.pen.font = "10px system-ui, sans-serif";
    return it.pen;
  }
  function frame(it, pen, marks) {
    const { width, height } = it;
    pen.strokeStyle = ink("line"); pen.fillStyle = ink("soft"); pen.lineWidth = 1;
    pen.strokeRect(LEFT - 0.5, 0.5, width - LEFT - RIGHT + 1, height - 1);
    pen.textAlign = "right"; pen.textBaseline = "middle";
    for (const [y, words] of marks) pen.fillText(words, LEFT - 4, Math.min(height - 5, Math.max(6, y)));
    pen.textAlign = "center"; pen.textBaseline = "top";
    if (meta.along.texts.length) {
      const some = Math.max(1, Math.ceil(count / 8));
      for (let i = 0; i < count; i += some) pen.fillText(meta.along.texts[i].slice(0, 14), x_of(i, width), height + 3);
    } else {
      for (const t of ticks(first, last, 8).filter((t) => !whole || Number.isInteger(t))) {
        const x = LEFT + (count > 1 ? (t - first) / (last - first) : 0) * (width - LEFT - RIGHT);
        pen.fillText(short(t), Math.min(width - 12, x), height + 3);
      }
    }
  }
  function cursor(it, pen) {
    if (count < 2) return;
    const x = x_of(state.now, it.width);
    pen.strokeStyle = ink("mark"); pen.lineWidth = 1.5;
    pen.beginPath(); pen.moveTo(x, 0); pen.lineTo(x, it.height); pen.stroke();
  }

  // The pixels of a panel's map, kept from one drawing to the next.
  function sheet_of(it) {
    const width = Math.max(1, Math.round((it.width - LEFT - RIGHT) * it.ratio)), height = Math.round(it.height * it.ratio);
    if (!it.image || it.image.width !== width || it.image.height !== height) {
      it.image = new ImageData(width, height);
      it.pixels = new Uint32Array(it.image.data.buffer);
      it.sheet = new OffscreenCanvas(width, height);
      it.sheet_pen = it.sheet.getContext("2d", { willReadFrequently: true });
      it.across = Int32Array.from({ length: width }, (_, p) => it.variable.across && count > 1 ? nearest(first + (p + 0.5) / width * (last - first)) : 0);
    }
    return [width, height, it.pixels];
  }

  // A map is painted pixel by pixel: each shows the value nearest in time, of the unit in its row.
  function paint(it) {
    const v = it.variable, [width, height, out] = sheet_of(it), shown = slice(v), colours = table(v), across = it.across;
    const low = v.limits[0], gain = 256 / (v.limits[1] - low), columns = v.columns;
    let before = -1;
    for (let y = 0, p = 0; y < height; y++) {
      const unit = Math.floor((y + 0.5) / height * v.rows);
      if (unit === before) { out.copyWithin(p, p - width, p); p += width; continue; }
      before = unit;
      const start = unit * columns;
      for (let x = 0; x < width; x++, p++) {
        const level = (shown[start + across[x]] - low) * gain;
        out[p] = level >= 0 ? colours[level < 256 ? level | 0 : 255] : level < 0 ? colours[0] : 0;
      }
    }
    it.sheet_pen.putImageData(it.image, 0, 0);
  }
  // A raster shows every spike, however many share a pixel.
  function dots(it) {
    const v = it.variable, [width, height, out] = sheet_of(it), shown = slice(v);
    out.fill(0);
    const [red, green, blue] = rgb(ink("ink")), colour = (255 << 24) | (blue << 16) | (green << 8) | red;
    const span = last - first || 1, gap = height / v.rows > 3 ? 1 : 0;
    const wide = Math.round(Math.max(1, Math.min(width / Math.max(1, count - 1) - 1, 6 * it.ratio)));
    const starts = times.map((t) => Math.min(width - wide, Math.max(0, Math.round((t - first) / span * width - wide / 2))));
    for (let row = 0, k = 0; row < v.rows; row++) {
      const top = Math.floor(row / v.rows * height), end = Math.max(top + 1, Math.floor((row + 1) / v.rows * height) - gap);
      for (let i = 0; i < v.columns; i++, k++) {
        if (!shown[k]) continue;
        for (let y = top; y < end; y++) for (let x = 0, p = y * width + starts[i]; x < wide; x++) out[p + x] = colour;
      }
    }
    it.sheet_pen.putImageData(it.image, 0, 0);
  }
  function draw_map(it, fresh) {
    const pen = prepare(it), v = it.variable;
    if (fresh || !it.cached) { (it.kind === "raster" ? dots : paint)(it); it.cached = true; if (it.limits) it.limits(); }
    pen.imageSmoothingEnabled = false;
    pen.drawImage(it.sheet, LEFT, 0, it.width - LEFT - RIGHT, it.height);
    const marks = v.rows > 1 ? ticks(0, v.rows - 1, 4).filter(Number.isInteger).map((u) => [(u + 0.5) / v.rows * it.height, numbers_of(v, u).join(",").slice(0, 7)]) : [];
    frame(it, pen, marks);
    cursor(it, pen);
  }

  function draw_lines(it, lines) {
    const pen = prepare(it), { width, height } = it;
    const log = state.log && it.kind === "curve";
    const put = (y) => log ? (y > 0 ? Math.log10(y) : NaN) : y;
    // Where sliders move a curve, its limits stay, so that one sees it move.
    const all = it.kind === "curve" && !state.fit;
    let low = all ? put(log ? it.variable.least : it.variable.low) : Infinity, high = all ? put(it.variable.high) : -Infinity;
    if (!all) for (const { shown, columns } of lines) for (let i = 0; i < columns; i++) {
      const y = put(shown[i]);
      if (y < low && y > -Infinity) low = y;
      if (y > high && y < Infinity) high = y;
    }
    if (!(low <= high)) { low = 0; high = 1; }
    if (low === high) { low -= 0.5; high += 0.5; }
    const room = 0.06 * (high - low); low -= room; high += room;
    const y_of = (y) => height - (y - low) / (high - low) * height;
    frame(it, pen, ticks(low, high, 4).map((y) => [y_of(y), log ? short(10 ** y) : short(y)]));
    pen.save(); pen.beginPath(); pen.rect(LEFT, 0, width - LEFT - RIGHT, height); pen.clip();
    for (const { shown, columns, colour } of lines) {
      pen.strokeStyle = colour; pen.lineWidth = 1.5; pen.beginPath();
      let down = false;
      for (let i = 0; i < (columns > 1 ? columns : count); i++) {
        const y = put(shown[columns > 1 ? i : 0]);
        if (!Number.isFinite(y)) { down = false; continue; }
        const x = x_of(i, width);
        if (down) pen.lineTo(x, y_of(y)); else pen.moveTo(x, y_of(y));
        down = true;
      }
      pen.stroke();
      const y = put(shown[columns > 1 ? state.now : 0]);
      if (Number.isFinite(y)) { pen.fillStyle = colour; pen.beginPath(); pen.arc(x_of(state.now, width), y_of(y), 3, 0, 7); pen.fill(); }
    }
    pen.restore();
    cursor(it, pen);
  }
  const trace_name = ({ v, row }) => `${v.name} · ${unit(v, row)}`;
  const colour_of = (k) => (dark() ? ON_DARK : COLOURS)[k % COLOURS.length];
  function draw_traces(it) {
    it.head.querySelectorAll(".chip").forEach((chip) => chip.remove());
    state.traces.forEach((trace, k) => {
      const chip = make("button", it.head, { class: "chip", title: "Remove" }, `${trace_name(trace)} = ${text(value(trace.v, trace.row, state.now))}`);
      chip.style.borderLeftColor = colour_of(k);
      chip.addEventListener("click", () => { state.traces.splice(k, 1); changed(); });
    });
    if (!state.traces.length) {
      const pen = prepare(it);
      frame(it, pen, []);
      pen.font = "13px system-ui, sans-serif"; pen.textBaseline = "middle";
      pen.fillText("Click a unit in a map to see its trace here.", (LEFT + it.width - RIGHT) / 2, it.height / 2);
      cursor(it, pen);
      return;
    }
    draw_lines(it, state.traces.map(({ v, row }, k) => ({
      shown: slice(v).subarray(row * v.columns, (row + 1) * v.columns), columns: v.columns, colour: colour_of(k),
    })));
  }

  function redraw(fresh = true) {
    for (const step of refresh) step();
    for (const node of nodes) node.classList.toggle("chosen", state.chosen.has(node.dataset.name));
    buttons.play.textContent = state.playing ? "❚❚ pause" : "▶ play";
    buttons.theme.textContent = dark() ? "light" : "dark";
    for (const name of ["log", "fit"]) buttons[name].setAttribute("aria-pressed", state[name]);
    for (const it of panels) {
      const v = it.variable;
      const wanted = it.kind === "traces" ? populations.length > 0 : !v.shape.length || !state.chosen.size || state.chosen.has(v.population);
      if (it.box.hidden === wanted) it.box.hidden = !wanted;
      if (fresh) it.cached = null;
      if (!wanted || !it.seen) continue;
      if (it.kind === "traces") draw_traces(it);
      else if (it.kind === "curve") {
        it.head.querySelector(".soft").textContent = `${v.label === v.name ? "" : v.label}${v.unit ? ` (${v.unit})` : ""} = ${text(value(v, 0, state.now))}`;
        draw_lines(it, [{ shown: slice(v), columns: v.columns, colour: colour_of(0) }]);
      } else draw_map(it, fresh);
    }
  }
  let waiting = false, stale = false;
  function changed(values = true) { // however many changes come, a frame draws once
    stale ||= values;
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { const fresh = stale; waiting = stale = false; redraw(fresh); });
  }

  // ---- pointer and keys -------------------------------------------------------------------------------------------

  function row_at(it, event) {
    const y = event.offsetY;
    return y >= 0 && y < it.height ? Math.floor(y / it.height * it.variable.rows) : -1;
  }
  function go(i) { state.now = Math.max(0, Math.min(count - 1, i)); changed(false); }
  function press(it, event, start) {
    if (start && (it.kind === "map" || it.kind === "raster") && event.offsetX >= LEFT) {
      const row = row_at(it, event);
      if (row >= 0 && !state.traces.some((t) => t.v === it.variable && t.row === row)) state.traces.push({ v: it.variable, row });
    }
    go(nearest(time_at(event.offsetX, it.width)));
  }
  function hover(it, event) {
    const row = it.kind === "map" || it.kind === "raster" ? row_at(it, event) : -1;
    tip.style.display = row >= 0 && event.offsetX >= LEFT ? "block" : "none";
    if (row < 0) return;
    const i = it.variable.across ? nearest(time_at(event.offsetX, it.width)) : 0;
    tip.textContent = `${unit(it.variable, row)}, ${meta.along.name} ${called(meta.along, i)}: ${text(value(it.variable, row, i))}`;
    tip.style.left = Math.min(innerWidth - 240, event.clientX + 12) + "px";
    tip.style.top = event.clientY + 12 + "px";
  }
  let began = 0, from = 0;
  function play() {
    state.playing = !state.playing && count > 1;
    if (state.playing) {
      if (state.now === count - 1) state.now = 0;
      began = performance.now(); from = state.now;
      requestAnimationFrame(tick);
    }
    changed();
  }
  function tick(now) { // from the first to the last in eight seconds, or five steps a second
    if (!state.playing) return;
    const next = Math.min(count - 1, from + Math.max(0, Math.floor((now - began) / 1000 * Math.max(count / 8, Math.min(5, count)))));
    if (next >= count - 1) state.playing = false;
    go(next);
    if (state.playing) requestAnimationFrame(tick);
  }
  function theme() { document.documentElement.dataset.theme = dark() ? "light" : "dark"; changed(); }
  function help() { keys.open = !keys.open; }
  function nudge(by) {
    const s = meta.sliders.find((s) => s.values.length > 1);
    if (!s) return;
    state.at[s.name] = Math.max(0, Math.min(s.values.length - 1, state.at[s.name] + by));
    changed();
  }
  function neighbour(by) {
    const trace = state.traces[state.traces.length - 1];
    if (!trace) return;
    trace.row = Math.max(0, Math.min(trace.v.rows - 1, trace.row + by));
    changed();
  }
  const acts = {
    ArrowLeft: (e) => go(state.now - (e.shiftKey ? Math.ceil(count / 10) : 1)),
    ArrowRight: (e) => go(state.now + (e.shiftKey ? Math.ceil(count / 10) : 1)),
    Home: () => go(0), End: () => go(count - 1), " ": play, ArrowUp: () => neighbour(-1), ArrowDown: () => neighbour(1),
    "[": () => nudge(-1), "]": () => nudge(1), d: theme, l: () => buttons.log.click(), f: () => buttons.fit.click(), c: () => buttons.clear.click(),
    p: png, "?": help, Escape: () => { state.chosen.clear(); changed(); },
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "INPUT") return;
    if (event.key === " " && event.target.tagName === "BUTTON") return; // which it presses
    const act = acts[event.key] || acts[event.key.toLowerCase()];
    if (!act) return;
    if ((event.key === "ArrowUp" || event.key === "ArrowDown") && !state.traces.length) return; // which scroll
    event.preventDefault();
    act(event);
  });

  // ---- a picture of what one sees ----------------------------------------------------------------------------------

  async function picture() {
    const shown = panels.filter((it) => !it.box.hidden), ratio = window.devicePixelRatio || 1;
    const svg = diagram.querySelector("svg"), width = main.clientWidth;
    let drawn = null, tall = 0;
    if (svg) {
      const copy = svg.cloneNode(true);
      copy.setAttribute("color", ink("ink"));
      drawn = new Image();
      drawn.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(new XMLSerializer().serializeToString(copy));
      await drawn.decode();
      tall = Math.min(260, svg.viewBox.baseVal.height) + 8;
    }
    for (const it of shown) if (!it.seen) { it.seen = true; redraw(true); }
    const sheet = document.createElement("canvas"), pen = sheet.getContext("2d");
    const height = 44 + tall + shown.reduce((sum, it) => sum + it.height + FOOT + 26, 0);
    sheet.width = width * ratio; sheet.height = height * ratio;
    pen.scale(ratio, ratio);
    pen.fillStyle = ink("page"); pen.fillRect(0, 0, width, height);
    pen.fillStyle = ink("ink"); pen.font = "600 15px system-ui, sans-serif"; pen.fillText(meta.title, 8, 20);
    pen.font = "12px system-ui, sans-serif";
    const where = [meta.along, ...meta.sliders].filter((s) => s.values.length > 1).map((s) => `${s.name} = ${called(s, s === meta.along ? state.now : state.at[s.name])}`);
    pen.fillText(where.join(", "), 8, 38);
    let y = 44;
    if (drawn) { const box = svg.viewBox.baseVal, scale = Math.min((tall - 8) / box.height, (width - 16) / box.width); pen.drawImage(drawn, 8, y, box.width * scale, box.height * scale); y += tall; }
    for (const it of shown) {
      const v = it.variable;
      pen.fillText(it.kind === "traces" ? state.traces.map(trace_name).join("   ") || "traces" : v.kind === "map" ? `${v.name}, from ${short(v.limits[0])} to ${short(v.limits[1])}` : v.name, 8, y + 16);
      pen.drawImage(it.canvas, 0, y + 22, it.width, it.height + FOOT);
      y += it.height + FOOT + 26;
    }
    return sheet;
  }
  async function png() {
    const sheet = await picture();
    sheet.toBlob((blob) => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(blob);
      link.download = `${meta.title.replace(/[^\p{L}\p{N}]+/gu, "-") || "view"}.png`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
  }

  if (matchMedia("(prefers-color-scheme: dark)").matches) document.documentElement.dataset.theme = "dark";
  new ResizeObserver(() => changed()).observe(main);
  const seeing = new IntersectionObserver((entries) => {
    for (const entry of entries) { const it = panels.find((p) => p.box === entry.target); it.seen = entry.isIntersecting; }
    changed();
  }, { rootMargin: "200px" });
  redraw();
  for (const it of panels) seeing.observe(it.box);
  window.neurodyn = { state, meta, value: (name, row, column) => value(meta.variables.find((v) => v.name === name), row, column), redraw, picture };
  document.documentElement.dataset.ready = "true";
})();
