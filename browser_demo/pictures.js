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

/** How a picture is enlarged: reach of the kernel in pixels, and its weight at a distance `d` within that. */
export const FILTERS = {
  nearest: { reach: 0.5, kernel: () => 1 },
  bicubic: { reach: 2, kernel: (d) => (d < 1 ? (1.5 * d - 2.5) * d * d + 1 : ((2.5 - 0.5 * d) * d - 4) * d + 2) },
};
const ONE = 2 ** 22; // weights are fixed-point numbers, as in Pillow's Resample.c, whose bytes these are

/**
 * (height, width, `channels`) bytes, `factor` times as large, by the filter called `name`.
 *
 * Both axes in turn, across first, rounded to bytes between them.
 */
export function enlarged(bytes, [height, width], channels, factor, name) {
  if (factor === 1) return bytes;
  const { length } = bytes;
  const across = along(bytes, [height, width, channels], factor, name);
  return along(across, [1, height, (length / height) * factor], factor, name);
}

/** The middle axis of `bytes`, whose sizes are `before`, `size` and `after`, made `factor` times as long. */
function along(bytes, [before, size, after], factor, name) {
  const { reach, kernel } = FILTERS[name];
  const out = new Uint8ClampedArray(bytes.length * factor);
  for (let i = 0; i < size * factor; i++) {
    const centre = (i + 0.5) / factor;
    const first = Math.max(Math.floor(centre - reach + 0.5), 0);
    const last = Math.min(Math.floor(centre + reach + 0.5), size);
    const weights = Array.from({ length: last - first }, (_, k) => kernel(Math.abs(first + k - centre + 0.5)));
    const sum = weights.reduce((a, b) => a + b);
    const fixed = weights.map((weight) => Math.sign(weight) * Math.floor(Math.abs(weight / sum) * ONE + 0.5));
    for (let b = 0; b < before; b++) {
      for (let a = 0; a < after; a++) {
        let total = ONE / 2;
        fixed.forEach((weight, k) => (total += weight * bytes[(b * size + first + k) * after + a]));
        out[(b * size * factor + i) * after + a] = Math.floor(total / ONE); // clamped to a byte
      }
    }
  }
  return out;
}
