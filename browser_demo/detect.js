/**
 * Where the faces of a photograph are, with the five points that they are aligned by: `elir_mobile/faces/detect.py`, which
 * says why it is done so. The two networks are a bundle's `detector`; here they are functions, so that this module needs
 * no runtime.
 */

import { TEMPLATE, inverse, mapped, middleOf, similarity, warp } from "./align.js";
import { blurred, resized, rounded } from "./pictures.js";
import { starts } from "./tiling.js";

const SIDE = 192; // of both networks' inputs, pixels
const STRIDE = 4; // of the detector's anchors
const MIN_FACE = 24; // side of the box of the smallest face that is looked for, pixels
const SEEN = 20; // side of a box in the detector's input from which on it finds nearly every face
const OVERLAP = 48; // of tiles, pixels
const LEVEL = 2.5; // how many times larger the picture is at most than at the level before
const [MIN_SCORE, SURE_SCORE] = [0.3, 0.8]; // of the detector: what is looked at again, and what need not be
const LEAST = 0.05; // of the detector in a second look
// What the second looks show: sides of the box in shares of the input, and the spread of a blur, pixels.
const LOOKS = [[0.2, 0], [0.35, 0], [0.35, 3]];
const [MIN_MEAN, MIN_PRESENCE] = [0.5, 0.5]; // mean score of all looks, and the mesh's
const MIN_SIDE = 16; // of a box in the photograph, pixels
const SAME = 0.3; // intersection over union from which on two boxes are of one face
const INSIDE = 0.6; // share of the smaller box, likewise
const ROI = 1.5; // side of what the mesh is shown, in sides of the box
// The mesh's points: corners of both eyes as seen in the picture, nose, corners of the mouth.
const [EYES, NOSE, MOUTH] = [[[33, 133], [362, 263]], 4, [61, 291]];

const sigmoid = (logit) => 1 / (1 + Math.exp(-Math.min(Math.max(logit, -100), 100)));

/** Longer side of a face's box, pixels. */
export const sideOf = ({ box: [left, top, right, bottom] }) => Math.max(right - left, bottom - top);

/**
 * What the detector proposes with a score of at least `least`.
 *
 * @param raw (2304, 16): x and y of the centre, width, height, six points; pixels, from the anchor's centre.
 * @param logits (2304) of the scores.
 * @returns `{ row, score }` of each: left, top, right, bottom and the points' x and y, pixels of the input.
 */
export function decoded(raw, logits, least = MIN_SCORE) {
  const across = SIDE / STRIDE;
  const found = [];
  logits.forEach((logit, i) => {
    const score = sigmoid(logit);
    if (score < least) return;
    const [x, y] = [((i % across) + 0.5) * STRIDE, (Math.floor(i / across) + 0.5) * STRIDE];
    const [dx, dy, width, height, ...points] = raw.subarray(16 * i, 16 * i + 16);
    const box = [x + dx - width / 2, y + dy - height / 2, x + dx + width / 2, y + dy + height / 2];
    found.push({ row: [...box, ...points.map((value, k) => value + (k % 2 ? y : x))], score });
  });
  return found;
}

/** Of two boxes: intersection over union, and over the smaller one. */
export function overlaps(one, other) {
  const shared = [0, 1]
    .map((axis) => Math.max(0, Math.min(one[axis + 2], other[axis + 2]) - Math.max(one[axis], other[axis])))
    .reduce((a, b) => a * b);
  const [area, another] = [one, other].map(([left, top, right, bottom]) => (right - left) * (bottom - top));
  return [shared / (area + another - shared), shared / Math.min(area, another)];
}

/** One row for each face: what overlaps a better one becomes part of its mean, what lies within another is dropped. */
export function suppressed(found) {
  let left = found.toSorted((a, b) => b.score - a.score);
  const kept = [];
  while (left.length) {
    const [{ row, score }] = left;
    const shares = left.map((other) => overlaps(row, other.row));
    const same = left.filter((_, i) => shares[i][0] >= SAME);
    const sum = same.reduce((total, other) => total + other.score, 0);
    const mean = row.map((_, k) => same.reduce((total, other) => total + other.row[k] * other.score, 0) / sum);
    kept.push({ row: mean, score });
    left = left.filter((_, i) => shares[i][0] < SAME && shares[i][1] < INSIDE);
  }
  return kept;
}

/**
 * The whole of a picture, then tiles of it, larger until the smallest face is large enough: `pixels` (SIDE, SIDE, 3),
 * `scale` to one of the photograph, `left` and `top` in its own pixels, and whether the photograph goes on beyond each
 * side (`inner`).
 */
export function* tiles({ data, width, height }) {
  const [whole, finest] = [SIDE / Math.max(width, height), SEEN / MIN_FACE];
  const levels = Math.max(0, Math.ceil(Math.log(finest / whole) / Math.log(LEVEL)));
  const channels = data.length / (width * height);
  for (let level = 0; level <= levels; level++) {
    const scale = whole * (finest / whole) ** (level / Math.max(levels, 1));
    const [wide, high] = [width, height].map((side) => Math.max(1, rounded(side * scale)));
    const scene = resized(data, [height, width], channels, [high, wide], "bilinear", 2);
    for (const top of starts(high, SIDE, OVERLAP)) {
      for (const left of starts(wide, SIDE, OVERLAP)) {
        const [right, bottom] = [Math.min(left + SIDE, wide), Math.min(top + SIDE, high)];
        const pixels = new Uint8Array(SIDE * SIDE * 3);
        for (let y = top; y < bottom; y++) {
          for (let x = left; x < right; x++) {
            const [to, from] = [((y - top) * SIDE + x - left) * 3, (y * wide + x) * channels];
            for (let c = 0; c < 3; c++) pixels[to + c] = scene[from + c];
          }
        }
        yield { pixels, scale, left, top, inner: [left > 0, top > 0, right < wide, bottom < high] };
      }
    }
  }
}

/** Finds the faces of photographs. */
export class FaceFinder {
  /**
   * @param detect, mesh the two networks: float32 (SIDE, SIDE, 3) → a promise of the outputs, the longer one first.
   */
  constructor(detect, mesh) {
    this.detect = detect;
    this.mesh = mesh;
  }

  /**
   * The faces of a picture, the largest first: `box` (left, top, right, bottom, from brow to chin), `points` as
   * `TEMPLATE` has them, `score`.
   *
   * @param progress awaited with (done, of) before each look.
   */
  async find(picture, progress = async () => {}) {
    const all = [...tiles(picture)];
    const found = [];
    for (const [i, tile] of all.entries()) {
      await progress(i, all.length);
      found.push(...(await this.#proposed(tile)));
    }
    const faces = [];
    for (const { row, score } of suppressed(found)) {
      await progress(all.length, all.length + 1);
      const face = await this.#face(picture, row, score);
      if (face) faces.push(face);
    }
    return distinct(faces).toSorted((a, b) => sideOf(b) - sideOf(a));
  }

  /** What the detector proposes in a tile, in pixels of the photograph; cut faces are left out. */
  async #proposed({ pixels, scale, left, top, inner }) {
    const found = await this.#detected(pixels, MIN_SCORE);
    const cut = ({ row }) =>
      [row[0] < 1, row[1] < 1, row[2] > SIDE - 1, row[3] > SIDE - 1].some((near, i) => near && inner[i]);
    return found
      .filter((one) => !cut(one))
      .map(({ row, score }) => ({ row: row.map((value, k) => (value + (k % 2 ? top : left)) / scale), score }));
  }

  /** The face of a proposal with the detector's own points; null: it is none. */
  async #face(picture, row, score) {
    const box = row.slice(0, 4);
    const points = [0, 1, 2, 3].map((i) => row.slice(4 + 2 * i, 6 + 2 * i));
    const side = sideOf({ box });
    if (side < MIN_SIDE) return null;
    const middle = [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2];
    const angle = Math.atan2(points[1][1] - points[0][1], points[1][0] - points[0][0]);
    const { mesh, presence } = await this.#meshed(picture, middle, ROI * side, angle);
    if (score < SURE_SCORE) {
      let sum = score;
      for (const [share, blur] of LOOKS) sum += await this.#looked(picture, middle, side, angle, share, blur);
      if (sum / (1 + LOOKS.length) < MIN_MEAN) return null;
    }
    if (presence >= MIN_PRESENCE) {
      const eyes = EYES.map((corners) => middleOf(corners.map((i) => mesh[i])));
      const both = (pick) => [0, 1].map((axis) => mesh.reduce((best, point) => pick(best, point[axis]), mesh[0][axis]));
      const around = [...both(Math.min), ...both(Math.max)];
      return { box: around, points: [...eyes, mesh[NOSE], ...MOUTH.map((i) => mesh[i])], score: Math.max(score, presence) };
    }
    // Without a mesh there is the middle of the mouth alone: its corners are where the template has them.
    const four = [...TEMPLATE.slice(0, 3), middleOf(TEMPLATE.slice(3))];
    const back = similarity(four, points);
    return { box, points: [...points.slice(0, 3), ...TEMPLATE.slice(3).map((point) => mapped(back, point))], score };
  }

  /** The detector's score of a face there, upright in the middle of its input, with `side` as that share of it. */
  async #looked(picture, middle, side, angle, share, blur) {
    const values = warp(picture, upright(middle, side / share, angle), SIDE, SIDE);
    const bytes = Uint8ClampedArray.from(values, Math.floor);
    const found = await this.#detected(blurred(bytes, [SIDE, SIDE], 3, blur), LEAST);
    const near = found.filter(({ row }) =>
      [0, 1].every((axis) => Math.abs((row[axis] + row[axis + 2]) / 2 - SIDE / 2) < 0.35 * share * SIDE),
    );
    return near.reduce((best, { score }) => Math.max(best, score), 0);
  }

  /** See `decoded`; `pixels` are (SIDE, SIDE, 3) bytes. */
  async #detected(pixels, least) {
    const [raw, logits] = await this.detect(Float32Array.from(pixels, (value) => value / 127.5 - 1));
    return decoded(raw, logits, least);
  }

  /** The mesh in a square of the photograph turned by `angle`, and how sure it is. */
  async #meshed(picture, middle, side, angle) {
    const matrix = upright(middle, side, angle);
    const values = warp(picture, matrix, SIDE, SIDE).map((value) => Math.min(Math.max(value / 255, 0), 1));
    const [flat, [logit]] = await this.mesh(values);
    const back = inverse(matrix);
    const mesh = Array.from({ length: flat.length / 3 }, (_, i) => mapped(back, [flat[3 * i], flat[3 * i + 1]]));
    return { mesh, presence: sigmoid(logit) };
  }
}

/** The map from a square of the photograph, turned by `angle`, to a network's input. */
function upright([x, y], side, angle) {
  const [c, s] = [Math.cos(angle), Math.sin(angle)].map((value) => (value * SIDE) / side);
  return [
    [c, s, SIDE / 2 - c * x - s * y],
    [-s, c, SIDE / 2 + s * x - c * y],
  ];
}

/** One of those whose meshes lie on one another: the surest. */
function distinct(faces) {
  const kept = [];
  for (const face of faces.toSorted((a, b) => b.score - a.score)) {
    const shares = kept.map((other) => overlaps(face.box, other.box));
    if (!shares.some(([union, smaller]) => union >= SAME || smaller >= INSIDE)) kept.push(face);
  }
  return kept;
}
