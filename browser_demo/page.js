/**
 * The page: a photo in, the restored photo beside it, and how fast and how faithful this device is.
 *
 * `?job=URL` does a job file instead, without a person (`runJobFile` in jobs.js); once its result is put,
 * `data-job` of the document is `done`.
 */

import { deviceFacts, runJob, runJobFile } from "./jobs.js";
import { Bundle, UserError, isForGpu } from "./bundle.js";
import { FaceFinder } from "./detect.js";
import { checks } from "./fidelity.js";
import { Photo, checkRoom, framesOf, opened, pixelsOf, squareOf, withAlpha } from "./photo.js";
import { rgba } from "./pictures.js";
import { Restorer, hasGpu, isGpuSoftware, openNetwork } from "./restorer.js";
import { Tiled } from "./tiled.js";

// What photos a model is for, by the domain that its manifest names.
const DOMAINS = { "aligned-face": "for a photo that one upright face fills", photo: "for any photo" };
const FACES = "for the faces in a photo";
const NOTES = { fp16: "fp16, slow in browsers" };
const [WARMUP, RUNS] = [3, 20];
const PAINTED_MS = 50; // the page is painted as often while it computes
const FORESEEN_MS = 2000; // of work, before it is said how long the rest will take
const LEAST_SIDE = 16; // of a square that a person marks, pixels

const $ = (id) => document.getElementById(id);
let bundle, restorer;
let finder = null; // of faces, in the runtime of `restorer`
let photo = null;
let fileName = ""; // of the photo, without its ending
let made = null; // what was wished for when it was restored
let square = null; // left, top and side of what a person is marking, in pixels of the photo
let checked = null; // row of the last check of this device
const threads = navigator.hardwareConcurrency;

/** Let the page be painted. */
const breath = () => new Promise((resolve) => setTimeout(resolve));
let painted = 0;
let cancelled = false;
let begun = null; // what is going on: when it began, with how much done, and of how much

/** The person no longer wants it. */
class Cancelled extends UserError {}

/** Show how far the work is, in any unit; ends it where a person cancelled it. */
async function showProgress(done, of, what) {
  const now = performance.now();
  if (begun?.of !== of || done < begun.done) begun = { at: now, done, of };
  if (done && done < of && now - painted < PAINTED_MS) return;
  $("work").hidden = done >= of;
  $("progress").max = of;
  $("progress").value = done;
  $("left").textContent = now - begun.at < FORESEEN_MS ? "" : left(((now - begun.at) / (done - begun.done)) * (of - done));
  if (what) $("status").textContent = what;
  await breath();
  painted = performance.now();
  if (cancelled) throw new Cancelled("Cancelled.");
}

/** How long something will take, for people. */
function left(ms) {
  const seconds = 5 * Math.ceil(ms / 5000);
  return seconds < 90 ? `about ${seconds} s left` : `about ${Math.round(seconds / 60)} min left`;
}

/** Do `work` with the controls locked; what goes wrong is shown in one sentence. */
async function busy(what, work) {
  const controls = document.querySelectorAll("button:not(#cancel), select, input:not(#slider)");
  const lock = (on) => controls.forEach((control) => (control.disabled = on));
  lock(true);
  cancelled = false;
  begun = null;
  $("main").ariaBusy = "true";
  $("problem").hidden = true;
  $("status").textContent = what;
  await breath();
  try {
    await work();
  } catch (error) {
    if (!(error instanceof UserError)) console.error(error);
    const asWished = error instanceof Cancelled;
    $("problem").textContent = error instanceof RangeError ? NO_MEMORY : (error.message ?? String(error));
    $("problem").hidden = asWished;
    $("status").textContent = asWished ? `Cancelled${photo ? "; the photo is as it was" : ""}.` : "";
    if (made) {
      $("fidelity").value = $("shown").value = made.fidelity;
      $("colors").checked = made.colors;
    }
  } finally {
    $("work").hidden = true;
    $("main").ariaBusy = "false";
    lock(!restorer);
    $("model").disabled = !$("model").length; // another model may work where this one did not
  }
}

const NO_MEMORY = "The photo needs more memory than this browser gives: reduce it first.";

/** What is wished for, with the noise of `seed`. A grey photo stays grey unless keeping colours was switched off. */
function wishes(seed = made.seed) {
  const { keep_colors: kept = false, keep_grey: keepsGrey = kept } = bundle.manifest;
  const colors = $("colors").checked;
  return { seed, fidelity: Number($("fidelity").value), colors, grey: keepsGrey && (colors || !kept) };
}

/**
 * Do `work` with each of `parts`; they change when all of it is done.
 *
 * @param work (part, progress) → a promise of what is new of the part.
 * @param what is said meanwhile of part `i`.
 */
async function remake(parts, work, what) {
  const all = parts.reduce((sum, { tiles }) => sum + tiles, 0);
  const found = [];
  let before = 0;
  for (const [i, part] of parts.entries()) {
    const progress = (done, of) => showProgress(before + (part.tiles * done) / of, all, what(i));
    found.push(await work(part, progress));
    before += part.tiles;
  }
  parts.forEach((part, i) => Object.assign(part, found[i]));
}

/** Restore `parts` of `whose` photo. */
function restoreParts(whose, parts, wanted) {
  const what = (i) => (whose.whole ? "Restoring…" : `Restoring face ${i + 1} of ${parts.length}…`);
  return remake(parts, (part, progress) => part.restore(restorer, wanted, progress), what);
}

/** Restore all of `next` with the noise of `seed` and show it. A new photo's faces are left alone where they are sharp. */
async function restorePhoto(next = photo, seed = made.seed) {
  const wanted = wishes(seed);
  await restoreParts(next, next.parts, wanted);
  if (next !== photo && !next.whole) next.parts.forEach((part) => part.judge());
  [photo, made] = [next, wanted];
  show();
  const way = isForGpu(restorer.entry)
    ? "the GPU"
    : restorer.threads > 1 ? `${restorer.threads} threads` : "one thread";
  const ms = photo.parts.reduce((sum, { times, tiles }) => sum + times.total * tiles, 0);
  const took = `${ms < 10_000 ? `${Math.round(ms)} ms` : `${Math.round(ms / 1000)} s`} with ${way}`;
  if (photo.whole) $("status").textContent = `Restored in ${took}. Move the slider to compare.`;
  else $("status").textContent = photo.parts.length ? `${told()}. The model took ${took}.` : NO_FACE;
}

const NO_FACE = "No face found, so the photo is left as it is. If there is one, mark it by hand.";

/** What was done with the faces of the photo, as the beginning of a sentence. */
function told() {
  const { parts } = photo;
  const sharp = parts.filter((part) => part.sharp && !part.on).length;
  const left = sharp ? `; ${sharp} left, as sharp as the model would make ${sharp > 1 ? "them" : "it"}` : "";
  const of = `${parts.filter(({ on }) => on).length} of ${parts.length}`;
  return `${of} ${parts.length > 1 ? "faces" : "face"} restored${left}`;
}

function draw(canvas, { data, width, height }) {
  [canvas.width, canvas.height] = [width, height];
  canvas.getContext("2d").putImageData(new ImageData(data, width), 0, 0);
}

/** Show the photo as it is now. */
function show() {
  mark(null);
  const { width, height } = photo.size;
  draw($("before"), photo.pixels);
  draw($("after"), photo.changed ? photo.restored : photo.pixels);
  $("compare").style.setProperty("--ratio", width / height);
  $("compare").hidden = false;
  for (const id of ["save", "again", "settings"]) $(id).hidden = !photo.changed;
  $("mark").hidden = photo.whole;
  $("rings").replaceChildren(...(photo.whole ? [] : photo.parts.map(ringOf)));
  showTimes();
}

/** The ring around a face, with a button that switches it on and off. */
function ringOf(part, i) {
  const { width, height } = photo.size;
  const [left, top, right, bottom] = part.box;
  const share = (value, side) => `${(100 * value) / side}%`;
  const ring = document.createElement("div");
  ring.className = "ring";
  ring.dataset.box = part.box.join();
  Object.assign(ring.style, {
    left: share((left + right) / 2, width),
    top: share((top + bottom) / 2, height),
    width: share(right - left, width),
    height: share(bottom - top, height),
  });
  const button = document.createElement("button");
  button.ariaPressed = String(part.on);
  button.ariaLabel = `Restore face ${i + 1}`;
  button.title = part.on ? "restored; press to leave it" : `left${part.sharp ? ", as it is sharp" : ""}; press to restore it`;
  button.textContent = part.on ? "✓" : "–";
  button.onclick = () =>
    busy("Putting the faces together…", async () => {
      part.on = !part.on;
      show();
      $("status").textContent = `${told()}.`;
      $("rings").children[i].querySelector("button").focus();
    });
  ring.append(button);
  return ring;
}

/** Open the photo in `blob`: whole where the model takes it so, in tiles or as one square, else with its faces found. */
async function openPhoto(blob) {
  const image = await opened(blob);
  const { task, size } = bundle;
  const fits = [image.width, image.height].every((side) => side * task.upscale === size);
  let next;
  if (task.domain === "photo") {
    next = new Tiled(pixelsOf(image), size, bundle.latentShape[1], task);
    checkRoom(next.size);
  } else if (fits || !finder) {
    next = Photo.whole(await squareOf(image, size, task));
  } else {
    const pixels = pixelsOf(image);
    const faces = await finder.find(pixels, (done, of) => showProgress(done, of, "Looking for faces…"));
    next = Photo.of(pixels, faces, size);
  }
  await restorePhoto(next, bundle.seed);
  const frames = await framesOf(blob);
  if (frames > 1) $("status").textContent += ` The file holds ${frames} pictures; this is the first.`;
  fileName = (blob.name ?? "photo").replace(/\.\w+$/, "");
}

/** Do `work` with every part of the photo, as other things are wished for, and show it anew. */
const change = (what, work) =>
  busy(what, async () => {
    const wanted = wishes();
    await remake(photo.parts, (part, progress) => work(part, wanted, progress), () => what);
    made = wanted;
    show();
    $("status").textContent = photo.whole ? "Restored." : `${told()}.`;
  });

/** Let a person mark `next` (left, top, side), moved into the photo; null: no more. */
function mark(next) {
  square = next;
  $("square").hidden = $("marking").hidden = !next;
  $("tools").hidden = Boolean(next) || !photo;
  if (!next) return;
  const { width, height } = photo.size;
  const side = Math.min(Math.max(next[2], LEAST_SIDE), width, height);
  const inside = (value, most) => Math.min(Math.max(value, 0), most - side);
  square = [inside(next[0], width), inside(next[1], height), side];
  $("side").min = LEAST_SIDE;
  $("side").max = Math.min(width, height);
  $("side").value = side;
  Object.assign($("square").style, {
    left: `${(100 * square[0]) / width}%`,
    top: `${(100 * square[1]) / height}%`,
    width: `${(100 * side) / width}%`,
    height: `${(100 * side) / height}%`,
  });
}

async function restoreMarked() {
  const part = photo.mark(square, bundle.size);
  try {
    await restoreParts(photo, [part], wishes());
  } catch (error) {
    photo.parts.pop();
    throw error;
  }
  show();
  $("status").textContent = `${told()}.`;
}

async function save() {
  const png = await new Promise((resolve) => withAlpha($("after"), photo.pixels).toBlob(resolve));
  if (!png) throw new UserError("the photo is larger than this browser can save: reduce it first");
  const link = document.createElement("a");
  Object.assign(link, { href: URL.createObjectURL(png), download: `${fileName}-restored.png` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // phones ask before they save
  $("status").textContent = `Saved as ${link.download}.`;
}

async function openModel(entry) {
  restorer?.close();
  const gpu = isForGpu(entry);
  if (restorer && isForGpu(restorer.entry) !== gpu) finder = null; // its networks went with the runtime
  restorer = null;
  checked = null;
  fillParity(entry, null);
  restorer = await Restorer.open(bundle, entry, threads);
  const { detector } = bundle.manifest;
  if (detector && !finder) {
    const { detect, mesh } = detector.files;
    finder = new FaceFinder(await openNetwork(bundle, detect), await openNetwork(bundle, mesh));
  }
  $("status").textContent = `Ready: ${entry.precision}, ${(entry.bytes / 1e6).toFixed(1)} MB.`;
  $("reason").textContent = bundle.reason(entry);
  showTimes();
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

/** Fill the table of times: those of the photo, or of its first face, and those of the last check. */
function showTimes() {
  const times = photo?.parts[0]?.times;
  $("whose").textContent = photo && !photo.whole ? "first face" : times && photo.parts[0].tiles > 1 ? "a tile" : "this photo";
  const parts = { encode: "encode", step: `step (× ${bundle.manifest.steps})`, decode: "decode", total: "whole" };
  const median = (part) => (part === "total" ? checked?.total : checked?.programs[part])?.median_ms;
  const rows = Object.entries(parts).map(([part, name]) =>
    cells(document.createElement("tr"), name, shown(times?.[part]), shown(median(part))),
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

const take = (blob) => busy("Opening the photo…", () => openPhoto(blob));

function listen() {
  for (const [button, input] of [["choose", "file"], ["shoot", "camera"]]) {
    $(button).onclick = () => $(input).click();
    $(input).onchange = async () => {
      const [file] = $(input).files;
      $(input).value = ""; // so that the same photo can be chosen again
      if (file) await take(file);
    };
  }
  $("sample").onclick = () =>
    busy("Restoring…", async () => {
      const [width, height] = [bundle.size, bundle.size];
      const sample = Photo.whole({ data: rgba(bundle.golden.input), width, height });
      await restorePhoto(sample, bundle.seed);
      fileName = "sample";
    });
  $("model").onchange = () =>
    busy("Loading the model…", () => openModel(bundle.files.find(({ path }) => path === $("model").value)));
  $("check").onclick = () => busy("Measuring…", checkDevice);
  $("save").onclick = () => busy("Saving…", save);
  $("again").onclick = () =>
    busy("Restoring…", () => restorePhoto(photo, crypto.getRandomValues(new Uint32Array(1))[0]));
  $("fidelity").oninput = () => ($("shown").value = $("fidelity").value);
  $("fidelity").onchange = () =>
    change("Decoding…", (part, wanted, progress) => part.decode(restorer, wanted, progress));
  $("colors").onchange = () =>
    change("Putting colours in…", (part, wanted, progress) => part.finish(restorer, wanted, progress));
  $("cancel").onclick = () => (cancelled = true);
  $("slider").oninput = () => $("compare").style.setProperty("--cut", `${$("slider").value}%`);
  listenToSquare();
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

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** The square that a person marks follows the pointer, the arrow keys and its slider. */
function listenToSquare() {
  const moved = (dx, dy) => mark([square[0] + dx, square[1] + dy, square[2]]);
  $("mark").onclick = () => {
    const { width, height } = photo.size;
    const side = Math.min(width, height) / 2;
    mark([(width - side) / 2, (height - side) / 2, side]);
    $("square").focus();
    $("status").textContent = "Move the square onto an upright face, so that all of the head is in it.";
  };
  $("unmark").onclick = () => {
    mark(null);
    $("status").textContent = photo.parts.length ? `${told()}.` : NO_FACE;
  };
  $("marked").onclick = () => busy("Restoring…", restoreMarked);
  $("side").oninput = () => {
    const grown = Number($("side").value) - square[2];
    mark([square[0] - grown / 2, square[1] - grown / 2, square[2] + grown]);
  };
  let held = null; // where the pointer was last
  $("square").onpointerdown = ({ pointerId, clientX, clientY }) => {
    held = [clientX, clientY];
    $("square").setPointerCapture(pointerId);
  };
  $("square").onpointermove = ({ pointerId, clientX, clientY }) => {
    if (!$("square").hasPointerCapture(pointerId)) return;
    const scale = photo.size.width / $("compare").clientWidth;
    moved((clientX - held[0]) * scale, (clientY - held[1]) * scale);
    held = [clientX, clientY];
  };
  $("square").onkeydown = (event) => {
    const arrow = ARROWS[event.key];
    if (!arrow) return;
    event.preventDefault();
    moved(...arrow.map((step) => (step * square[2]) / 20));
  };
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
  const suit = bundle.manifest.detector ? FACES : DOMAINS[domain];
  const suited = suit ? `, ${suit}` : "";
  $("colors").checked = bundle.manifest.keep_colors ?? false;
  $("fidelity").value = $("shown").value = bundle.manifest.fidelity ?? 0;
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
