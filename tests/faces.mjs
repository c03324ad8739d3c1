/**
 * What the page's modules make of faces: `node faces.mjs MODULES FIXTURES`, the first the page's folder and the second the
 * address of what `tests/test_page_faces.py` serves. Prints one line of JSON: how far each result is from Python's, and the
 * faces of each photograph.
 */

import { apart, bytes, fixtures, floats, json, modules } from "./served.mjs";

const { TEMPLATE, inverse, mapped, scaleOf, similarity, warp } = await import(`${modules}/align.js`);
const { keepColors } = await import(`${modules}/colors.js`);
const { FaceFinder, suppressed, tiles } = await import(`${modules}/detect.js`);
const { compared, paste } = await import(`${modules}/paste.js`);
const { blurred, resized } = await import(`${modules}/pictures.js`);

const index = await json("index.json");
const pictures = {};
for (const [name, { width, height }] of Object.entries(index.pictures)) {
  pictures[name] = { data: await bytes(`${name}.rgba`), width, height };
}
const seen = {};
seen.resized = [];
for (const { picture, size, filter, gap, expected } of index.resized) {
  const { data, width, height } = pictures[picture];
  seen.resized.push(apart(resized(data, [height, width], 4, size, filter, gap), await bytes(expected)));
}
seen.blurred = [];
for (const { picture, spread, expected } of index.blurred) {
  const { data, width, height } = pictures[picture];
  seen.blurred.push(apart(blurred(data, [height, width], 4, spread), await bytes(expected)));
}
seen.similarity = index.similarity.map(({ source, target, matrix }) => {
  const found = similarity(source, target);
  const back = inverse(found);
  const there = source.map((point) => mapped(back, mapped(found, point)));
  return [apart(found.flat(), matrix.flat())[0], apart(there.flat(), source.flat())[0], scaleOf(found)];
});
seen.template = TEMPLATE;
seen.warped = [];
for (const { picture, matrix, width, height, expected } of index.warped) {
  seen.warped.push(apart(warp(pictures[picture], matrix, width, height), await floats(expected)));
}
seen.suppressed = suppressed(index.proposals.map((row, i) => ({ row, score: index.scores[i] })));
seen.tiles = [];
for (const { picture, expected } of index.tiled) {
  const all = [...tiles(pictures[picture])];
  const joined = Buffer.concat(all.map(({ pixels }) => pixels));
  seen.tiles.push([...apart(joined, await bytes(expected)), all.map(({ left, top, inner }) => [left, top, ...inner])]);
}
seen.pasted = [];
for (const { picture, patches, margin, expected } of index.pasted) {
  const given = patches.map(({ restored, ...patch }) => ({ ...patch, restored: restored && pictures[restored] }));
  seen.pasted.push(apart(paste(pictures[picture], given, margin), await bytes(expected)));
}
seen.compared = index.compared.map(({ given, restored, side }) => compared(pictures[given], pictures[restored], side));
seen.colored = [];
for (const { restored, given, expected } of index.colored) {
  const made = { ...pictures[restored], data: Uint8ClampedArray.from(pictures[restored].data) };
  keepColors(made, pictures[given]);
  seen.colored.push(apart(made.data, await bytes(expected)));
}
/** One of the two networks, which LiteRT runs in the process that serves the fixtures. */
const network = (name, lengths) => async (values) => {
  const response = await fetch(new URL(name, fixtures), { method: "POST", body: values });
  const joined = new Float32Array(await response.arrayBuffer());
  return [joined.subarray(0, lengths[0]), joined.subarray(lengths[0], lengths[0] + lengths[1])];
};
seen.faces = {};
for (const name of index.photographs) {
  const finder = new FaceFinder(network("detect", [2304 * 16, 2304]), network("mesh", [1404, 1]));
  seen.faces[name] = await finder.find(pictures[name]);
}
console.log(JSON.stringify(seen));
