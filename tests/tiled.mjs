/**
 * What the page's modules make of whole photos: `node tiled.mjs MODULES FIXTURES`, the first the page's folder and the
 * second the address of what `tests/test_page.py` wrote. Prints one line of JSON: how far each result is from Python's.
 *
 * The network is the stub of `tests/app_fixtures.py`, whose level may be made to depend on the tile.
 */

import { apart, bytes, floats, json, modules } from "./served.mjs";

const { seededNoise } = await import(`${modules}/noise.js`);
const { sample } = await import(`${modules}/sampling.js`);
const { Tiled } = await import(`${modules}/tiled.js`);
const { axisWindows, levelOffsets } = await import(`${modules}/tiling.js`);

const index = await json("index.json");
const tiled = await json("tiled.json");
const manifest = await json(`${index.bundle}/manifest.json`);
const [, channels, side] = manifest.golden.arrays.noise.shape;
const table = await floats(`${index.bundle}/${manifest.table.path}`);
const { a, b } = await json(`${index.bundle}/stub/fp32.stub`);

const opaque = (rgb) => Uint8ClampedArray.from({ length: (rgb.length / 3) * 4 }, (_, i) =>
  i % 4 === 3 ? 255 : rgb[3 * Math.floor(i / 4) + (i % 4)],
);
const pixelsOf = async ({ path, shape: [height, width] }) => ({ data: opaque(await bytes(path)), width, height });

const large = 8 * side;
const programs = (sway) => ({
  async encode(image) {
    const mean = image.reduce((sum, value) => sum + value, 0) / image.length;
    const coarse = new Float32Array(channels * side * side);
    for (let c = 0; c < channels; c++) {
      for (let i = 0; i < large * large; i++) {
        const [y, x] = [Math.floor(i / large), i % large];
        coarse[(c * side + (y >> 3)) * side + (x >> 3)] += image[(c % 3) * large * large + i] / 64;
      }
    }
    return coarse.map((value, i) => value * (1 - Math.floor(i / side ** 2) / 32) * (1 - sway + 2 * sway * mean));
  },
  async step(z, k) {
    const { steps } = manifest;
    return z.map((value, i) => value + (a * value + b * table[k * channels + Math.floor(i / side ** 2)]) / steps);
  },
  async decode(z) {
    return Float32Array.from({ length: 3 * large * large }, (_, i) => {
      const [c, y, x] = [Math.floor(i / large ** 2), Math.floor(i / large) % large, i % large];
      return Math.min(Math.max(z[(c * side + (y >> 3)) * side + (x >> 3)], 0), 1);
    });
  },
});
const restorerOf = (sway) => ({
  ...programs(sway),
  restore: (image, noise, options) =>
    sample(programs(sway), image, noise, { steps: manifest.steps, sigma: manifest.sigma_s, ...options }),
});

const seen = { noise: [], windows: [], offsets: [], restored: [], whole: [] };
for (const { seed, path, shape } of index.noise) {
  seen.noise.push(apart(seededNoise(shape[0], Number(BigInt(seed) & 0xffffffffn)), await floats(path))[0]);
}
for (const { length, tile, overlap, starts, weights } of index.windows) {
  const found = axisWindows(length, tile, overlap);
  const all = Float32Array.from(found.flatMap((window) => [...window.weights]));
  seen.windows.push([apart(all, await floats(weights.path))[0], apart(found.map(({ start }) => start), starts)[0]]);
}
for (const { tiles, before, offsets } of tiled.levels) seen.offsets.push(apart(levelOffsets(tiles, before), offsets)[0]);
const plain = { upscale: 1, enlarge: "nearest" };
for (const { seed, tiles, input, output } of index.restore) {
  const photo = new Tiled(await pixelsOf(input), large, channels, plain);
  const { restored } = await photo.restore(restorerOf(0), { seed, fidelity: 0, colors: false });
  seen.restored.push([...apart(restored.data, opaque(await bytes(output.path))), photo.tiles - tiles]);
}
for (const { seed, fidelity, colors, grey, task, input, output } of tiled.whole) {
  const photo = new Tiled(await pixelsOf(input), large, channels, task);
  const looks = [];
  const progress = async (done, of) => looks.push([done, of]);
  Object.assign(photo, await photo.restore(restorerOf(tiled.sway), { seed, fidelity, colors, grey }, progress));
  const expected = opaque(await bytes(output.path));
  const first = apart(photo.restored.data, expected);
  // As something else, and back again.
  Object.assign(photo, await photo.decode(restorerOf(tiled.sway), { seed, fidelity: 1 - fidelity, colors: !colors }));
  const other = apart(photo.restored.data, expected);
  Object.assign(photo, await photo.finish(restorerOf(tiled.sway), { seed, fidelity, colors, grey }));
  const cancelled = await photo
    .restore(restorerOf(0), { seed: seed + 1, fidelity, colors, grey }, async (done) => done > 2 && Promise.reject("enough"))
    .catch((error) => error);
  seen.whole.push({
    first,
    other: other[0],
    again: apart(photo.restored.data, expected),
    size: [photo.restored.height, photo.restored.width],
    counted: looks.every(([done, of], i) => done === i && of === photo.tiles * (manifest.steps + 2)) && looks.length,
    tiles: photo.tiles,
    cancelled,
    positive: Object.values(photo.times).every((ms) => ms >= 0),
  });
}
console.log(JSON.stringify(seen));
