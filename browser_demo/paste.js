/**
 * Restored squares back into their photograph, and whether that is called for: `elir_mobile/faces/paste.py` and
 * `inplace.py`. A patch is `{ matrix, size, restored }`: the map from the photograph to the aligned square, its side, and
 * the restored picture, or null where the face is left alone.
 */

import { boundsOf, inverse, mapped, scaleOf, warp } from "./align.js";
import { resized, rounded } from "./pictures.js";

const FADE = 0.25; // share of the mask's radius over which it fades out
const SHARPNESS = 12; // how quickly one face's pixels become the next one's
// The mask at margin 0 and at margin 1: middle and half axes in a square of side 1.
const [FACE_ONLY, WHOLE] = [[0.5, 0.56, 0.3, 0.36], [0.5, 0.5, 0.5, 0.5]];
const ROUND = 4; // exponent of the mask's outline: 2 an ellipse, infinity a rectangle
// A face is left alone from this detail and this agreement on.
const [ENOUGH_DETAIL, ENOUGH_AGREEMENT] = [0.45, 0.35];
const FINE = 0.7; // spread of the Gaussian that takes fine structure away, pixels
const LUMA = [0.299, 0.587, 0.114]; // BT.601

/** Distance of (x, y) in a square of side 1 from the middle of a face in units of its mask's: 1 at the outline. */
export function radius([x, y], margin) {
  const [mx, my, wide, high] = FACE_ONLY.map((value, i) => value + margin * (WHOLE[i] - value));
  return (Math.abs((x - mx) / wide) ** ROUND + Math.abs((y - my) / high) ** ROUND) ** (1 / ROUND);
}

/** The mask at a `radius`: 1 inside, 0 from the outline on, a half cosine between. */
export function faded(distance) {
  return 0.5 - 0.5 * Math.cos(Math.PI * Math.min(Math.max((1 - distance) / FADE, 0), 1));
}

/**
 * The bytes of `photo` with every restored patch in its place; its own wherever no mask reaches.
 *
 * @param margin from the face alone (0) to the whole square, with hair and ears (1).
 */
export function paste({ data, width, height }, patches, margin = 1) {
  const out = Uint8ClampedArray.from(data); // clamped arrays round to nearest, of two to even
  for (const patch of patches) {
    const [least, most] = boundsOf(inverse(patch.matrix), patch.size, patch.size);
    const inside = (corner, round) => [width, height].map((side, i) => Math.min(Math.max(round(corner[i]), 0), side));
    const [[left, top], [right, bottom]] = [inside(least, Math.floor), inside(most, Math.ceil)];
    const [wide, high] = [right - left, bottom - top];
    if (!patch.restored || !wide || !high) continue;
    const share = shareOf(patch, patches, margin);
    const [[a, b, x], [c, d, y]] = inverse(patch.matrix);
    const made = warp(patch.restored, [[a, b, x - left], [c, d, y - top]], wide, high);
    for (let row = 0, from = 0; row < high; row++) {
      for (let column = 0, to = 4 * ((top + row) * width + left); column < wide; column++, from += 3, to += 4) {
        const mine = share([left + column + 0.5, top + row + 0.5]);
        if (!mine) continue;
        for (let channel = 0; channel < 3; channel++) {
          const value = Math.min(Math.max(made[from + channel], 0), 255);
          out[to + channel] += mine * (value - data[to + channel]);
        }
      }
    }
  }
  return out;
}

/** How much of a place of the photograph `patch` paints over: its mask, less what is nearer to other faces. */
function shareOf(patch, patches, margin) {
  const distance = ({ matrix, size }, place) => radius(mapped(matrix, place).map((value) => value / size), margin);
  const others = patches.filter((other) => other !== patch && meet(patch, other));
  return (place) => {
    const mine = distance(patch, place);
    const mask = faded(mine);
    if (!mask) return 0;
    let claims = mask;
    for (const other of others) {
      const theirs = distance(other, place);
      claims += faded(theirs) * Math.exp(SHARPNESS * Math.min(Math.max(mine - theirs, -50), 50));
    }
    return (mask * mask) / claims;
  };
}

/** Whether the circles around two squares overlap. */
function meet(...both) {
  const [[x, y], [u, v]] = both.map(({ matrix, size }) => mapped(inverse(matrix), [size / 2, size / 2]));
  const reach = both.reduce((sum, { matrix, size }) => sum + size / scaleOf(matrix) / Math.SQRT2, 0);
  return Math.hypot(x - u, y - v) < reach;
}

/**
 * How the fine structure of an aligned face relates to that of its restoration, no finer than the photograph is.
 *
 * @param side of the square in the photograph, pixels.
 * @returns `detail`, how strongly the restored structure appears in the given one, and `agreement`, their correlation.
 */
export function compared(given, restored, side) {
  const size = Math.min(given.width, Math.max(16, rounded(side)));
  const [ours, theirs] = [given, restored].map((picture) => fine(picture, size));
  const [mx, my, wide, high] = FACE_ONLY;
  let [common, own, made] = [0, 0, 0];
  for (let i = 0; i < size * size; i++) {
    const [x, y] = [((i % size) + 0.5) / size, (Math.floor(i / size) + 0.5) / size];
    if (((x - mx) / wide) ** 2 + ((y - my) / high) ** 2 >= 1) continue;
    common += ours[i] * theirs[i];
    own += ours[i] ** 2;
    made += theirs[i] ** 2;
  }
  return { detail: common / Math.max(made, 1e-6), agreement: common / Math.max(Math.sqrt(own * made), 1e-6) };
}

/** Whether a face has the detail already that the network would give it. */
export const isSharp = ({ detail, agreement }) => detail >= ENOUGH_DETAIL && agreement >= ENOUGH_AGREEMENT;

/** What a narrow Gaussian takes away from the luma of a square, at `size`. */
function fine({ data, width }, size) {
  let luma = Float32Array.from({ length: width * width }, (_, i) =>
    LUMA.reduce((sum, weight, c) => sum + weight * data[4 * i + c], 0),
  );
  luma = resized(luma, [width, width], 1, [size, size], "bicubic");
  const weights = [-3, -2, -1, 0, 1, 2, 3].map((d) => Math.exp(-0.5 * (d / FINE) ** 2));
  const sum = weights.reduce((a, b) => a + b);
  const mirrored = (i) => (i < 0 ? -i : i < size ? i : 2 * size - 2 - i);
  const smoothed = (values, across, down) =>
    values.map((_, i) => {
      const [x, y] = [i % size, Math.floor(i / size)];
      return weights.reduce((total, weight, k) => {
        const [column, row] = [mirrored(x + across * (k - 3)), mirrored(y + down * (k - 3))];
        return total + (weight / sum) * values[row * size + column];
      }, 0);
    });
  const smooth = smoothed(smoothed(luma, 1, 0), 0, 1);
  return luma.map((value, i) => value - smooth[i]);
}
