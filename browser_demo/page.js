/**
 * The page: a photo in, the restored photo beside it, and how fast and how faithful this device is.
 *
 * `?job=URL` does a job file instead, without a person (`runJobFile` in jobs.js); once its result is put,
 * `data-job` of the document is `done`.
 */

import { deviceFacts, runJob, runJobFile } from "./jobs.js";
import { Bundle, UserError, isForGpu } from "./bundle.js";
import { checks } from "./fidelity.js";
import { enlarged, planar, rgba } from "./pictures.js";
import { Restorer, hasGpu, isGpuSoftware } from "./restorer.js";

// What photos a model is for, by the domain that its manifest names.
const DOMAINS = { "aligned-face": "for a photo that one upright face fills", photo: "for any photo" };
const NOTES = { fp16: "fp16, slow in browsers" };
const [WARMUP, RUNS] = [3, 20];

const $ = (id) => document.getElementById(id);
const controls = ["choose", "sample", "model", "check"].map($);
let bundle, restorer;
let photo = null; // (3, size, size) in [0, 1]
let photoTimes = null; // milliseconds of its restoration
let checked = null; // row of the last check of this device
const threads = navigator.hardwareConcurrency;

/** Let the page be painted. */
const breath = () => new Promise((resolve) => setTimeout(resolve));

async function showProgress(done, of, what) {
  $("progress").hidden = done >= of;
  $("progress").max = of;
  $("progress").value = done;
  if (what) $("status").textContent = what;
  await breath();
}

/** Do `work` with the controls locked; what goes wrong is shown in one sentence. */
async function busy(what, work) {
  controls.forEach((control) => (control.disabled = true));
  $("problem").hidden = true;
  $("status").textContent = what;
  await breath();
  try {
    await work();
  } catch (error) {
    if (!(error instanceof UserError)) console.error(error);
    $("problem").textContent = error.message ?? String(error);
    $("problem").hidden = false;
    $("status").textContent = "";
  } finally {
    $("progress").hidden = true;
    controls.forEach((control) => (control.disabled = !restorer));
    $("model").disabled = !$("model").length; // another model may work where this one did not
  }
}

/** The centred square of an image file, upright and on white, enlarged to the network's size as its task wants it. */
async function squareOf(blob) {
  const { upscale, enlarge } = bundle.task;
  const size = bundle.size / upscale;
  let image;
  try {
    image = await createImageBitmap(blob); // applies the EXIF orientation
  } catch {
    throw new UserError(`${blob.name ?? "this"} is not an image that can be read: choose another`);
  }
  const side = Math.min(image.width, image.height);
  const [left, top] = [(image.width - side) / 2, (image.height - side) / 2].map(Math.floor);
  const options = { resizeWidth: size, resizeHeight: size, resizeQuality: "high" };
  const square = await createImageBitmap(image, left, top, side, side, options);
  const context = new OffscreenCanvas(size, size).getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, size, size);
  context.drawImage(square, 0, 0);
  const { data } = context.getImageData(0, 0, size, size);
  return planar(enlarged(data, [size, size], 4, upscale, enlarge), 4);
}

function draw(canvas, values) {
  canvas.width = canvas.height = bundle.size;
  canvas.getContext("2d").putImageData(new ImageData(rgba(values), bundle.size), 0, 0);
}

async function restorePhoto() {
  const { image, times } = await restorer.restore(photo, bundle.golden.noise, showProgress);
  draw($("before"), photo);
  draw($("after"), image);
  $("compare").hidden = false;
  $("after").toBlob((png) => {
    URL.revokeObjectURL($("save").href);
    $("save").href = URL.createObjectURL(png);
    $("save").hidden = false;
  });
  photoTimes = times;
  showTimes();
  const way = isForGpu(restorer.entry)
    ? "the GPU"
    : restorer.threads > 1 ? `${restorer.threads} threads` : "one thread";
  $("status").textContent = `Restored in ${Math.round(times.total)} ms with ${way}. Move the slider to compare.`;
}

async function openModel(entry) {
  restorer?.close();
  restorer = null;
  photoTimes = checked = null;
  showTimes();
  fillParity(entry, null);
  restorer = await Restorer.open(bundle, entry, threads);
  $("status").textContent = `Ready: ${entry.precision}, ${(entry.bytes / 1e6).toFixed(1)} MB.`;
  $("reason").textContent = bundle.reason(entry);
  if (photo) await restorePhoto();
}

async function checkDevice() {
  const { entry } = restorer;
  const job = { files: [entry.path], threads, warmup: WARMUP, runs: RUNS, parity: true };
  const progress = (done, of) => showProgress(done, of, "Measuring on the bundle's own picture…");
  const { rows } = await runJob(job, bundle, { progress });
  const [row] = rows;
  if (row.error) throw new UserError(row.error);
  checked = row;
  showTimes();
  $("status").textContent = fillParity(entry, row.parity);
}

function cells(row, ...texts) {
  texts.forEach((text, i) => {
    const cell = document.createElement(i ? "td" : "th");
    if (!i) cell.scope = "row";
    cell.textContent = text;
    row.append(cell);
  });
  return row;
}

const shown = (value, digits = 1) => (value == null ? "–" : value.toFixed(digits));

/** Fill the table of times from `photoTimes` and `checked`. */
function showTimes() {
  const parts = { encode: "encode", step: `step (× ${bundle.manifest.steps})`, decode: "decode", total: "whole" };
  const median = (part) => (part === "total" ? checked?.total : checked?.programs[part])?.median_ms;
  const rows = Object.entries(parts).map(([part, name]) =>
    cells(document.createElement("tr"), name, shown(photoTimes?.[part]), shown(median(part))),
  );
  $("latency").tBodies[0].replaceChildren(...rows);
}

/** Fill the table of parity and return what it says in a sentence. */
function fillParity(entry, parity) {
  const found = checks(parity, entry.parity);
  $("parity").tBodies[0].replaceChildren(
    ...found.map(({ name, here, budget, holds }) => {
      const verdict = holds === null ? "" : holds ? "✓ holds" : "✗ misses";
      const value = here === Infinity ? "equal" : shown(here);
      const tr = cells(document.createElement("tr"), name, value, shown(budget), verdict);
      if (verdict) tr.lastChild.className = holds ? "good" : "bad";
      return tr;
    }),
  );
  if (found.every(({ holds }) => holds)) return "This device computes what the file computed where it was made.";
  if (found.some(({ holds }) => holds === false)) return "This device is further from float than the budget allows.";
  return "The bundle has no budget to hold this device against: write it again.";
}

function take(blob) {
  return busy("Restoring…", async () => {
    photo = await squareOf(blob);
    await restorePhoto();
  });
}

function listen() {
  $("choose").onclick = () => $("file").click();
  $("file").onchange = async () => {
    const [file] = $("file").files;
    $("file").value = ""; // so that the same photo can be chosen again
    if (file) await take(file);
  };
  $("sample").onclick = () =>
    busy("Restoring…", async () => {
      photo = bundle.golden.input;
      await restorePhoto();
    });
  $("model").onchange = () =>
    busy("Loading the model…", () => openModel(bundle.files.find(({ path }) => path === $("model").value)));
  $("check").onclick = () => busy("Measuring…", checkDevice);
  $("slider").oninput = () => $("compare").style.setProperty("--cut", `${$("slider").value}%`);
  const over = (on) => (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", on);
  };
  addEventListener("dragover", over(true));
  addEventListener("dragleave", over(false));
  addEventListener("drop", async (event) => {
    over(false)(event);
    const [file] = event.dataTransfer.files;
    if (file && restorer && !$("choose").disabled) await take(file);
  });
}

async function openPage() {
  bundle = await Bundle.open(new URL("bundle/", document.baseURI));
  const { model, size } = bundle.manifest;
  const { title, domain } = bundle.task;
  const gpu = await hasGpu();
  const slow = gpu && (await isGpuSoftware());
  const entries = bundle.files
    .filter((entry) => gpu || !isForGpu(entry))
    .toSorted((a, b) => (slow ? isForGpu(a) - isForGpu(b) : 0));
  if (!entries.length) {
    throw new UserError("the bundle has no .tflite file: export it with --targets litert");
  }
  if (!bundle.golden.noise) throw new UserError("the bundle has no golden vectors: write it again");
  $("title").textContent = title;
  const suited = DOMAINS[domain] ? `, ${DOMAINS[domain]}` : "";
  $("about").textContent =
    `Model ${model.name}, ${size}×${size} pixels${suited}. Everything runs on this device: the photo does not leave it.`;
  $("model").replaceChildren(
    ...entries.map((entry) => {
      const { path, precision, bytes } = entry;
      const note = isForGpu(entry) ? `${precision} on the GPU` : (NOTES[precision] ?? precision);
      return new Option(`${note} · ${(bytes / 1e6).toFixed(1)} MB`, path);
    }),
  );
  const { name, system, arch, cpu } = await deviceFacts();
  $("device").textContent = [name, system, arch, cpu].filter(Boolean).join(" · ");
  await openModel(entries[0]);
}

const job = new URLSearchParams(location.search).get("job");
if (job) {
  await busy("", () => runJobFile(new URL(job, document.baseURI), showProgress));
  if ($("problem").hidden) document.documentElement.dataset.job = "done";
} else {
  listen();
  await busy("Loading the model…", openPage);
}
