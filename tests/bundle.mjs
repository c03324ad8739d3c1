/**
 * What the page's modules make of the golden files: `node bundle.mjs MODULES FIXTURES`, the first the page's folder and
 * the second the address of what `tests/app_fixtures.py` wrote. Prints one line of JSON: what was read of each bundle, the
 * sentence for each damaged one and for a browser without digests, the SHA-256 of each enlarged picture, decibels, and
 * what holds of budgets.
 */

import { bytes, fixtures, floats, json, modules } from "./served.mjs";

const { Bundle, UserError, fileStem, sha256 } = await import(`${modules}/bundle.js`);
const { checks, goldenParity, psnr, sqnr } = await import(`${modules}/fidelity.js`);
const { enlarged } = await import(`${modules}/pictures.js`);

const index = await json("index.json");

const open = (path) => Bundle.open(new URL(`${path}/`, fixtures));
const read = {};
for (const { path } of index.tasks) {
  const bundle = await open(path);
  const recommended = bundle.manifest.recommendation?.browser ?? null;
  read[path] = { ...bundle.task, recommended, reason: bundle.reason({ path: recommended }) };
}
const refused = {};
for (const { path } of index.damaged) {
  try {
    await open(path);
    refused[path] = null; // files are verified when they are used
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    refused[path] = error.message;
  }
}
const { input, enlarged: cases } = index.resize;
const given = await bytes(input.path);
const pictures = {};
for (const { filter, factor, path } of cases) {
  pictures[path] = await sha256(enlarged(given, input.shape, 3, factor, filter));
}
const decibels = [];
for (const { reference, out } of index.fidelity) {
  const pair = [await floats(reference.path), await floats(out.path)];
  decibels.push([psnr(...pair), sqnr(...pair)]);
}
const budgets = Object.fromEntries(["encode", "step", "decode"].map((name) => [name, { budget_db: 20 }]));
const held = [null, { encode: 20, step: 19.9, decode: null, image: 50 }, { encode: NaN, step: 21, decode: 21, image: 1 }]
  .map((parity) => checks(parity, budgets).map(({ holds }) => holds));
const unasked = checks({ encode: 50, step: 50, decode: 50, image: 50 }, undefined).map(({ holds }) => holds);
let finite = "";
try {
  goldenParity({ encode: Float32Array.of(1, NaN) }, { coarse: Float32Array.of(1, 2) });
} catch (error) {
  finite = error.message;
}
let unchecked = "";
Object.defineProperty(globalThis, "crypto", { value: {} }); // as on a page by http:// from elsewhere
try {
  await open(index.tasks[0].path);
} catch (error) {
  if (!(error instanceof UserError)) throw error;
  unchecked = error.message;
}
console.log(JSON.stringify({ finite, unchecked, stem: fileStem("litert/webgpu", "w8a8"), read, refused, pictures, decibels, held: [...held, unasked] }));
