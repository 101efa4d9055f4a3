// The view of a LiveWidget: it draws the traits that the kernel sets, and shows when the kernel does not answer.
const SILENT_MS = 3500; // the kernel sends a beat every second
const LIVE = ["waiting", "fresh", "undetermined", "stale"];
const LABELS = { waiting: "Waiting", fresh: "Live", undetermined: "Live", stale: "Not fresh", ended: "Ended", failed: "Failed", closed: "Closed" };

function render({ model, el }) {
  const root = document.createElement("div");
  root.innerHTML = `<div class="head"><a target="_blank" rel="noopener noreferrer"></a><span class="state"></span></div><img alt="">
    <div class="head"><span><span class="rate"></span> <span class="unit"></span></span><span class="when"></span></div>
    <div class="why" role="status"></div><canvas></canvas>`;
  el.append(root);
  const part = (name) => root.querySelector(name);
  let heard = performance.now();
  let url = "";

  function show() {
    const silent = LIVE.includes(model.get("state")) && performance.now() - heard > SILENT_MS;
    const state = silent ? "stale" : model.get("state");
    root.className = `atomstream-live ${state}`;
    part(".state").textContent = silent ? "No kernel" : LABELS[state] ?? state;
    const [rate, sigma] = [model.get("rate"), model.get("sigma")];
    part(".rate").textContent = rate === null ? "–" : number(rate, sigma);
    part(".unit").textContent = rate === null ? "growth rate undetermined" : model.get("unit");
    const seconds = Math.round((performance.now() - heard) / 1000);
    part(".why").textContent = silent ? `The notebook's kernel has not answered for ${seconds} s: these numbers are old.` : [model.get("why"), model.get("note")].filter(Boolean).join(" ");
  }

  function showPicture() {
    URL.revokeObjectURL(url);
    const bytes = model.get("picture");
    if (!bytes?.byteLength) return;
    url = URL.createObjectURL(new Blob([bytes], { type: "image/jpeg" }));
    part("img").src = url;
    part("img").alt = `Frame ${model.get("picture_frame")}`;
    const time = model.get("picture_s");
    part(".when").textContent = `${time === null ? "" : `${time.toFixed(1)} s · `}frame ${model.get("picture_frame")}`;
  }

  function showAll() {
    part("a").textContent = model.get("name") || model.get("data_id");
    const page = model.get("page");
    if (/^https?:/.test(page)) part("a").href = page;
    show();
    showPicture();
    drawTrace(part("canvas"), model);
  }

  const onChange = () => { heard = performance.now(); show(); };
  const onPicture = () => showPicture();
  const onTrace = () => drawTrace(part("canvas"), model);
  model.on("change", onChange);
  model.on("change:picture", onPicture);
  model.on("change:trace", onTrace);
  const timer = setInterval(show, 1000);
  requestAnimationFrame(showAll); // after it has a width
  return () => {
    clearInterval(timer);
    URL.revokeObjectURL(url);
    model.off("change", onChange);
    model.off("change:picture", onPicture);
    model.off("change:trace", onTrace);
  };
}

/** A value with its uncertainty: two digits of the uncertainty, and as many decimals of the value. */
function number(value, sigma) {
  if (!sigma) return value.toPrecision(4);
  const decimals = Math.max(0, Math.min(8, 1 - Math.floor(Math.log10(sigma))));
  return `${value.toFixed(decimals)} ± ${sigma.toFixed(decimals)}`;
}

function drawTrace(canvas, model) {
  const raw = model.get("trace");
  const scale = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  canvas.width = width * scale;
  canvas.height = height * scale;
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  pen.fillStyle = pen.strokeStyle = getComputedStyle(canvas).color;
  pen.font = "11px sans-serif";
  pen.fillText(`${model.get("trace_name").replaceAll("_", " ")} (${model.get("trace_unit")})`, 0, 10);
  if (!raw?.byteLength) return;
  const all = new Float32Array(raw.buffer.slice(raw.byteOffset, raw.byteOffset + raw.byteLength));
  const n = all.length / 2;
  const [times, values] = [all.subarray(0, n), all.subarray(n)];
  const finite = values.filter(Number.isFinite);
  if (!finite.length) return;
  const [low, high] = [Math.min(...finite), Math.max(...finite)];
  const x = (t) => (width * (t - times[0])) / (times[n - 1] - times[0] || 1);
  const y = (v) => 16 + (height - 34) * (1 - (v - low) / (high - low || 1));
  pen.beginPath();
  for (let k = 0, down = false; k < n; k++) {
    if (!Number.isFinite(values[k])) { down = false; continue; }
    pen[down ? "lineTo" : "moveTo"](x(times[k]), y(values[k]));
    down = true;
  }
  pen.stroke();
  const range = `${brief(low)} to ${brief(high)}`;
  pen.fillText(range, width - pen.measureText(range).width, 10);
  pen.fillText(`${times[0].toFixed(1)} s`, 0, height - 2);
  const end = `${times[n - 1].toFixed(1)} s`;
  pen.fillText(end, width - pen.measureText(end).width, height - 2);
}

export default { render };

/** Four significant digits; no exponent for counts. */
function brief(value) {
  return String(Math.abs(value) >= 1e4 ? Math.round(value) : Number(value.toPrecision(4)));
}
