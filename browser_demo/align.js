/**
 * From a photograph to the square that a face network was trained on, and back: `elir_mobile/faces/align.py`.
 *
 * A picture is `{ data, width, height }`, rows of pixels with three or four bytes each, as an `ImageData`. Coordinates are
 * in pixels and continuous: pixel `i` covers `i` to `i + 1`. A map is two rows `[a, b, shift]`.
 */

import { resized, rounded } from "./pictures.js";

/** Eyes, nose and corners of the mouth, as seen in the picture, in a square of side 1. */
export const TEMPLATE = [
  [192.98138, 239.94708],
  [318.90277, 240.1936],
  [256.63416, 314.01935],
  [201.26117, 371.41043],
  [313.08905, 371.15118],
].map((point) => point.map((value) => value / 512));

/** The mean of points. */
export const middleOf = (points) => [0, 1].map((axis) => points.reduce((sum, p) => sum + p[axis], 0) / points.length);

/** The turn, scale and shift that bring the points `source` nearest to `target` in least squares; no mirror image. */
export function similarity(source, target) {
  const [from, to] = [middleOf(source), middleOf(target)];
  let [real, imaginary, norm] = [0, 0, 0];
  source.forEach(([x, y], i) => {
    const [px, py] = [x - from[0], y - from[1]];
    const [qx, qy] = [target[i][0] - to[0], target[i][1] - to[1]];
    real += px * qx + py * qy;
    imaginary += px * qy - py * qx;
    norm += px * px + py * py;
  });
  const [c, s] = [real / norm, imaginary / norm];
  return [
    [c, -s, to[0] - c * from[0] + s * from[1]],
    [s, c, to[1] - s * from[0] - c * from[1]],
  ];
}

/** The map back. */
export function inverse([[a, b, x], [c, d, y]]) {
  const whole = a * d - b * c;
  return [
    [d / whole, -b / whole, (b * y - d * x) / whole],
    [-c / whole, a / whole, (c * x - a * y) / whole],
  ];
}

/** A point through a map. */
export const mapped = ([[a, b, x], [c, d, y]], [px, py]) => [a * px + b * py + x, c * px + d * py + y];

/** How many times longer a similarity makes things. */
export const scaleOf = ([[a, b], [c, d]]) => Math.sqrt(Math.abs(a * d - b * c));

/** What a map makes of a rectangle's corners: the least and the largest x and y. */
export function boundsOf(matrix, width, height) {
  const points = [[0, 0], [width, 0], [width, height], [0, height]].map((point) => mapped(matrix, point));
  const both = (pick) => [0, 1].map((axis) => pick(...points.map((point) => point[axis])));
  return [both(Math.min), both(Math.max)];
}

const clip = (value, low, high) => Math.min(Math.max(value, low), high);

/**
 * A picture through a similarity, in float: bicubic, reduced with antialiasing first where it shrinks; borders mirrored.
 *
 * @param matrix from the picture to the result.
 * @returns (height, width, 3) float32 in the units of the picture's bytes, a little beyond their range.
 */
export function warp({ data, width: fullWidth, height: fullHeight }, matrix, width, height) {
  const channels = data.length / (fullWidth * fullHeight);
  const back = inverse(matrix);
  const scale = scaleOf(matrix);
  const margin = 2 + 2 / Math.min(scale, 1); // what the filters reach
  const [least, most] = boundsOf(back, width, height);
  const size = [fullWidth, fullHeight];
  const [low, high] = [[], []];
  size.forEach((side, axis) => {
    const [first, last] = [least[axis] - margin, most[axis] + margin];
    // What lies beyond a border is mirrored from as far inside.
    low[axis] = Math.floor(clip(Math.min(first, 2 * side - last), 0, side - 1));
    high[axis] = Math.min(Math.ceil(Math.max(last, -first)), side);
  });
  const [partWidth, partHeight] = [high[0] - low[0], high[1] - low[1]];
  let part = new Float32Array(partWidth * partHeight * 3);
  for (let y = 0, place = 0; y < partHeight; y++) {
    for (let x = 0, from = ((low[1] + y) * fullWidth + low[0]) * channels; x < partWidth; x++, from += channels) {
      for (let c = 0; c < 3; c++) part[place++] = data[from + c];
    }
  }
  let [wide, tall] = [partWidth, partHeight];
  if (scale < 1) {
    [wide, tall] = [wide, tall].map((side) => Math.max(1, rounded(side * scale)));
    part = resized(part, [partHeight, partWidth], 3, [tall, wide], "bicubic");
  }
  const out = new Float32Array(width * height * 3);
  const [columns, rows] = [new Int32Array(4), new Int32Array(4)];
  const [across, down] = [new Float64Array(4), new Float64Array(4)];
  const [[a, b, x0], [c, d, y0]] = back;
  for (let row = 0, place = 0; row < height; row++) {
    for (let column = 0; column < width; column++, place += 3) {
      const [px, py] = [column + 0.5, row + 0.5];
      taps(((a * px + b * py + x0 - low[0]) * wide) / partWidth - 0.5, wide, columns, across);
      taps(((c * px + d * py + y0 - low[1]) * tall) / partHeight - 0.5, tall, rows, down);
      for (let i = 0; i < 4; i++) {
        for (let j = 0; j < 4; j++) {
          const weight = down[i] * across[j];
          const from = (rows[i] * wide + columns[j]) * 3;
          out[place] += weight * part[from];
          out[place + 1] += weight * part[from + 1];
          out[place + 2] += weight * part[from + 2];
        }
      }
    }
  }
  return out;
}

const SHARPNESS = -0.75; // of the cubic kernel, as PyTorch's grid_sample has it

/** The four places around `at` on an axis of `size`, mirrored at its ends, and what each counts. */
function taps(at, size, places, weights) {
  const first = Math.floor(at) - 1;
  const t = at - first - 1;
  for (let i = 0; i < 4; i++) {
    const place = (((first + i) % (2 * size)) + 2 * size) % (2 * size);
    places[i] = place < size ? place : 2 * size - 1 - place;
    const far = Math.abs(i - 1 - t);
    weights[i] =
      far <= 1
        ? ((SHARPNESS + 2) * far - (SHARPNESS + 3)) * far * far + 1
        : (((far - 5) * far + 8) * far - 4) * SHARPNESS;
  }
}

/** (height, width, 3) floats as an opaque picture of bytes. */
export function picture(values, width, height) {
  const data = new Uint8ClampedArray(4 * width * height).fill(255); // clamped arrays round to nearest, of two to even
  for (let i = 0, from = 0; i < data.length; i += 4) {
    for (let c = 0; c < 3; c++) data[i + c] = values[from++];
  }
  return { data, width, height };
}
