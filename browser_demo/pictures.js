/** Pictures as bytes and as the network's float32: converting between the two, and enlarging. */

/** (H, W, `channels`) bytes → (3, H, W) float32 in [0, 1]. */
export function planar(bytes, channels = 3) {
  const area = bytes.length / channels;
  const values = new Float32Array(3 * area);
  for (let i = 0; i < area; i++) {
    for (let c = 0; c < 3; c++) values[c * area + i] = bytes[channels * i + c] / 255;
  }
  return values;
}

/** (3, H, W) in [0, 1] → (H, W, 4) bytes, opaque. */
export function rgba(values) {
  const area = values.length / 3;
  const bytes = new Uint8ClampedArray(4 * area).fill(255); // clamped arrays round to nearest
  for (let i = 0; i < area; i++) {
    for (let c = 0; c < 3; c++) bytes[4 * i + c] = 255 * values[c * area + i];
  }
  return bytes;
}

/** A filter: reach of the kernel in pixels, and its weight at a distance `d` within that. */
export const FILTERS = {
  nearest: { reach: 0.5, kernel: () => 1 },
  box: { reach: 0.5, kernel: () => 1 },
  bilinear: { reach: 1, kernel: (d) => 1 - d },
  bicubic: { reach: 2, kernel: (d) => (d < 1 ? (1.5 * d - 2.5) * d * d + 1 : ((2.5 - 0.5 * d) * d - 4) * d + 2) },
};
const ONE = 2 ** 22; // weights of bytes are fixed-point numbers, as in Pillow's Resample.c, whose bytes these are

/** Python's `round`: the nearest whole number, of two the even one. */
export function rounded(value) {
  const down = Math.floor(value);
  const rest = value - down;
  return rest > 0.5 || (rest === 0.5 && down % 2) ? down + 1 : down;
}

/** (height, width, `channels`) bytes, `factor` times as large, by the filter called `name`. */
export function enlarged(bytes, [height, width], channels, factor, name) {
  return enlargedLines(bytes, [height, width], channels, factor, name, [0, height * factor]);
}

/** The lines `top` to `bottom` alone of what `enlarged` gives: a large picture is never there as a whole. */
export function enlargedLines(bytes, [height, width], channels, factor, name, [top, bottom]) {
  if (factor === 1) return bytes.subarray(top * width * channels, bottom * width * channels);
  const filter = FILTERS[name];
  const reach = Math.ceil(filter.reach);
  const first = Math.max(Math.floor(top / factor) - reach, 0);
  const last = Math.min(Math.ceil(bottom / factor) + reach, height);
  const given = bytes.subarray(first * width * channels, last * width * channels);
  const wide = along(given, [last - first, width, channels], width * factor, width, filter);
  const after = width * factor * channels;
  return along(wide, [1, height, after], height * factor, height, filter, { from: top, to: bottom, first });
}

/**
 * (height, width, `channels`) bytes or floats in another size, by the filter called `name`, antialiased where it shrinks.
 *
 * Both axes in turn, across first; bytes are rounded between them.
 *
 * @param gap where the picture shrinks more than that many times, whole pixels are averaged first: Pillow's
 *   `reducing_gap`. 0: never.
 */
export function resized(values, [height, width], channels, [high, wide], name, gap = 0) {
  // What is averaged may end with a part of a pixel.
  let [lines, columns] = [height, width];
  if (gap) {
    const [down, across] = [height / high, width / wide].map((times) => Math.max(1, Math.floor(times / gap)));
    values = averaged(values, [height, width], channels, [down, across]);
    [lines, columns] = [height / down, width / across].map(Math.fround);
    [height, width] = [lines, columns].map(Math.ceil);
  }
  if (columns !== wide) values = along(values, [height, width, channels], wide, columns, FILTERS[name]);
  if (lines !== high) values = along(values, [1, height, wide * channels], high, lines, FILTERS[name]);
  return values;
}

/**
 * The middle axis of `values`, whose sizes are `before`, `size` and `after`: its first `length` in `out` places.
 *
 * @param from, to which of these places are wanted.
 * @param first place of the axis that `values` begins with, where `before` is 1.
 */
export function along(values, [before, size, after], out, length, filter, { from = 0, to = out, first = 0 } = {}) {
  const { reach, kernel } = filter;
  const whole = values instanceof Uint8Array || values instanceof Uint8ClampedArray;
  const scale = length / out;
  const spread = Math.max(scale, 1);
  const taps = Array.from({ length: to - from }, (_, i) => {
    const centre = (from + i + 0.5) * scale;
    const start = Math.max(Math.floor(centre - reach * spread + 0.5), 0);
    const end = Math.min(Math.floor(centre + reach * spread + 0.5), size);
    const given = Array.from({ length: end - start }, (_, k) => kernel(Math.abs(start + k - centre + 0.5) / spread));
    const sum = given.reduce((a, b) => a + b);
    const weights = Float64Array.from(given, (weight) => weight / sum);
    if (whole) weights.forEach((weight, k) => (weights[k] = Math.trunc(weight * ONE + (weight < 0 ? -0.5 : 0.5))));
    return { start, weights };
  });
  const target = new (whole ? Uint8ClampedArray : Float32Array)(before * taps.length * after);
  let place = 0;
  for (let b = 0; b < before; b++) {
    for (const { start, weights } of taps) {
      const begin = (b * size + start - first) * after;
      for (let a = 0; a < after; a++) {
        let total = whole ? ONE / 2 : 0;
        for (let k = 0, at = begin + a; k < weights.length; k++, at += after) total += weights[k] * values[at];
        target[place++] = whole ? Math.floor(total / ONE) : total; // clamped to a byte
      }
    }
  }
  return target;
}

/** The mean of each `down` × `across` pixels, as Pillow's Reduce.c rounds it; fewer count at the end of an axis. */
function averaged(bytes, [height, width], channels, [down, across]) {
  if (down === 1 && across === 1) return bytes;
  const [high, wide] = [Math.ceil(height / down), Math.ceil(width / across)];
  const target = new Uint8ClampedArray(high * wide * channels);
  for (let i = 0; i < high; i++) {
    const [top, bottom] = [i * down, Math.min((i + 1) * down, height)];
    for (let j = 0; j < wide; j++) {
      const [left, right] = [j * across, Math.min((j + 1) * across, width)];
      const count = (bottom - top) * (right - left);
      const share = Math.floor(Math.fround(2 ** 24 / count));
      for (let c = 0; c < channels; c++) {
        let sum = count >> 1;
        for (let y = top; y < bottom; y++) {
          for (let x = left; x < right; x++) sum += bytes[(y * width + x) * channels + c];
        }
        target[(i * wide + j) * channels + c] = Math.floor((sum * share) / 2 ** 24);
      }
    }
  }
  return target;
}

const PASSES = 3; // boxes that make a Gaussian, as in Pillow's BoxBlur.c

/** (height, width, `channels`) bytes through a Gaussian of that spread in pixels: Pillow's `GaussianBlur`. */
export function blurred(bytes, [height, width], channels, spread) {
  if (!spread) return bytes;
  const variance = spread ** 2 / PASSES;
  const whole = Math.floor((Math.sqrt(12 * variance + 1) - 1) / 2);
  const part = ((2 * whole + 1) * (whole * (whole + 1) - 3 * variance)) / (6 * (variance - (whole + 1) ** 2));
  for (let pass = 0; pass < PASSES; pass++) bytes = boxed(bytes, [height, width, channels], whole + part);
  for (let pass = 0; pass < PASSES; pass++) bytes = boxed(bytes, [1, height, width * channels], whole + part);
  return bytes;
}

/** The middle axis of `bytes` through a box that reaches `radius` to both sides; the borders are repeated. */
function boxed(bytes, [before, size, after], radius) {
  const reach = Math.floor(radius);
  const full = Math.floor(2 ** 24 / Math.fround(2 * radius + 1));
  const edge = Math.floor((2 ** 24 - (2 * reach + 1) * full) / 2); // of the two pixels that the box cuts
  const target = new Uint8ClampedArray(bytes.length);
  for (let b = 0; b < before; b++) {
    for (let a = 0; a < after; a++) {
      const at = (i) => bytes[(b * size + Math.min(Math.max(i, 0), size - 1)) * after + a];
      let sum = 0;
      for (let i = -reach; i <= reach; i++) sum += at(i);
      for (let i = 0; i < size; i++) {
        const value = sum * full + (at(i - reach - 1) + at(i + reach + 1)) * edge;
        target[(b * size + i) * after + a] = Math.floor((value + 2 ** 23) / 2 ** 24);
        sum += at(i + reach + 1) - at(i - reach);
      }
    }
  }
  return target;
}
