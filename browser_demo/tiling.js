/** Overlapping windows, and the level of the tiles in them: `elir_mobile/core/tiling.py`. */

const HOLD = 0.05; // how strongly a tile keeps its own level, against the share of it that overlaps others

/** Where windows of `tile` samples along `length` start. */
export function starts(length, tile, overlap) {
  if (length <= tile) return [0];
  const found = [];
  for (let start = 0; start < length - tile; start += tile - overlap) found.push(start);
  return [...found, length - tile];
}

/**
 * Windows of `tile` samples, or one of `length` if that is less, that cover `length` and share at least `overlap`:
 * `start` and `weights`, which sum to 1 over all windows.
 */
export function axisWindows(length, tile, overlap) {
  if (length <= tile) return [{ start: 0, weights: new Float32Array(length).fill(1) }];
  const bump = Float64Array.from({ length: tile }, (_, i) => {
    const ramp = Math.min(i, tile - 1 - i) + 0.5; // distance from the nearer end
    return Math.sin((Math.PI / 2) * Math.min(ramp / Math.max(overlap, 1), 1)) ** 2;
  });
  const total = new Float64Array(length);
  const places = starts(length, tile, overlap);
  for (const start of places) bump.forEach((value, i) => (total[start + i] += value));
  return places.map((start) => ({ start, weights: Float32Array.from(bump, (value, i) => value / total[start + i]) }));
}

/**
 * What to add to each tile so that all have one level where they overlap.
 *
 * @param tiles reduced tiles of one size: `top`, `left`, `width`, `height`, and `values`, row by row.
 * @param before tiles that stay as they are.
 */
export function levelOffsets(tiles, before = []) {
  const system = tiles.map((_, i) => tiles.map((_, j) => (i === j ? HOLD : 0)));
  const sides = tiles.map(() => 0);
  tiles.forEach((tile, i) => {
    for (const other of before) {
      const [share, lighter] = met(tile, other);
      system[i][i] += share;
      sides[i] += share * lighter;
    }
    tiles.slice(0, i).forEach((other, j) => {
      const [share, lighter] = met(tile, other);
      system[i][i] += share;
      system[j][j] += share;
      system[i][j] -= share;
      system[j][i] -= share;
      sides[i] += share * lighter;
      sides[j] -= share * lighter;
    });
  });
  return solved(system, sides);
}

/** The share of `tile` that `other` overlaps, and by how much `other` is lighter in the middle of that. */
function met(tile, other) {
  const [top, left] = [Math.max(tile.top, other.top), Math.max(tile.left, other.left)];
  const high = Math.min(tile.top + tile.height, other.top + other.height) - top;
  const wide = Math.min(tile.left + tile.width, other.left + other.width) - left;
  if (high <= 0 || wide <= 0) return [0, 0];
  const [above, beside] = [high, wide].map((side) => Math.floor(side / 4));
  let sum = 0;
  for (let y = top + above; y < top + high - above; y++) {
    for (let x = left + beside; x < left + wide - beside; x++) {
      const [ours, theirs] = [tile, other].map((one) => one.values[(y - one.top) * one.width + x - one.left]);
      sum += theirs - ours;
    }
  }
  const lighter = sum / ((high - 2 * above) * (wide - 2 * beside));
  return [(high * wide) / (tile.width * tile.height), lighter];
}

/** The solution of a system of equations that is positive definite, by elimination. */
function solved(system, sides) {
  const rows = system.map((row, i) => [...row, sides[i]]);
  const count = rows.length;
  rows.forEach((pivot, i) => {
    for (const row of rows.slice(i + 1)) {
      const factor = row[i] / pivot[i];
      for (let k = i; k <= count; k++) row[k] -= factor * pivot[k];
    }
  });
  const found = new Float64Array(count);
  for (let i = count - 1; i >= 0; i--) {
    const rest = rows[i].slice(i + 1, count).reduce((sum, value, k) => sum + value * found[i + 1 + k], 0);
    found[i] = (rows[i][count] - rest) / rows[i][i];
  }
  return found;
}
