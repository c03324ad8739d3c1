/**
 * A photo that is restored whole, in tiles that overlap and fade into one another: what `restore` and `Restorer` of
 * `elir_mobile/restore.py` do. The noise is drawn for the whole photo; the tiles' latents are kept, so that fidelity and colours
 * can be changed without running the network again.
 */

import { keepColors, keepsColors } from "./colors.js";
import { seededNoise } from "./noise.js";
import { enlargedLines } from "./pictures.js";
import { mixed } from "./sampling.js";
import { axisWindows, levelOffsets } from "./tiling.js";

const OVERLAP = 0.25; // of the tile's side
const DOWNSCALE = 8; // pixels to one of the latent

/** Where the tiles of a side of a photo are, starting at whole latent pixels; it is padded to fill them. */
function windowsOf(side, tile) {
  const padded = side <= tile ? tile : Math.ceil(side / DOWNSCALE) * DOWNSCALE;
  return axisWindows(padded, tile, Math.floor((tile * OVERLAP) / DOWNSCALE) * DOWNSCALE);
}

export class Tiled {
  whole = true;
  on = true;

  /**
   * @param pixels `{ data, width, height }`, opaque.
   * @param tile side of the tiles that the network takes, pixels.
   * @param channels of its latent.
   * @param task how much larger the restored photo is, `upscale`, and how the given one gets that large, `enlarge`.
   */
  constructor(pixels, tile, channels, { upscale, enlarge }) {
    Object.assign(this, { pixels, tile, channels, upscale, enlarge });
    [this.rows, this.columns] = [this.size.height, this.size.width].map((side) => windowsOf(side, tile));
  }

  /** The sides of the restored photo. */
  get size() {
    const { pixels, upscale } = this;
    return { width: pixels.width * upscale, height: pixels.height * upscale };
  }

  /** What is restored of it. */
  get parts() {
    return [this];
  }

  get tiles() {
    return this.rows.length * this.columns.length;
  }

  get changed() {
    return Boolean(this.restored);
  }

  /**
   * Restore it.
   *
   * @param wishes the `seed` of the noise, the `fidelity`, whether the `colors` are the photo's, and whether a `grey`
   *   photo stays grey in any case.
   * @param progress awaited with (done, of) before each program.
   * @returns what is new of the photo: `restored`, the `latents`, and the mean `times` of a tile.
   */
  async restore(restorer, wishes, progress = async () => {}) {
    const { tile, channels } = this;
    const side = tile / DOWNSCALE;
    const [high, wide] = [this.rows, this.columns].map((windows) => (windows.at(-1).start + tile) / DOWNSCALE);
    const field = seededNoise(channels * high * wide, wishes.seed);
    const [latents, sums] = [[], {}];
    const made = async (image, row, column) => {
      const noise = new Float32Array(channels * side * side);
      const [top, left] = [row.start / DOWNSCALE, column.start / DOWNSCALE];
      for (let line = 0; line < channels * side; line++) {
        const from = (Math.floor(line / side) * high + top + (line % side)) * wide + left;
        noise.set(field.subarray(from, from + side), line * side);
      }
      const before = latents.length;
      const { image: out, coarse, latent, times } = await restorer.restore(image, noise, {
        fidelity: wishes.fidelity,
        progress: (done, of) => progress(before * of + done, this.tiles * of),
      });
      latents.push({ coarse, latent });
      for (const [name, value] of Object.entries(times)) sums[name] = (sums[name] ?? 0) + value;
      return out;
    };
    const restored = await this.#blended(made, wishes);
    const times = Object.fromEntries(Object.entries(sums).map(([name, sum]) => [name, sum / this.tiles]));
    return { restored, latents, times };
  }

  /** What is new of the photo where fidelity or colours were changed: `restored`. */
  async decode(restorer, wishes, progress = async () => {}) {
    let done = 0;
    const made = async () => {
      await progress(done, this.tiles);
      const { latent, coarse } = this.latents[done++];
      return restorer.decode(mixed(latent, coarse, wishes.fidelity));
    };
    return { restored: await this.#blended(made, wishes) };
  }

  /** Likewise: where colours are kept, the tiles have another level. */
  finish(restorer, wishes, progress) {
    return this.decode(restorer, wishes, progress);
  }

  /** The photo of its tiles, row by row, which are `made` of a tile (3, tile, tile) and its windows. */
  async #blended(made, wishes) {
    const { tile, rows, columns, pixels, upscale, enlarge } = this;
    const { width, height } = this.size;
    const [given, lines] = [[pixels.height, pixels.width], (part) => enlargedLines(pixels.data, given, 4, upscale, enlarge, part)];
    const data = new Uint8ClampedArray(4 * width * height).fill(255);
    // Sums of one row of tiles, so that what is in float grows with the width of the photo only.
    const band = new Float32Array(tile * width * 3);
    let [top, levelled] = [0, []];
    for (const row of rows) {
      flush(band, data, width, top, Math.min(row.start, height));
      band.copyWithin(0, (row.start - top) * width * 3);
      band.fill(0, band.length - (row.start - top) * width * 3);
      top = row.start;
      const strip = lines([top, Math.min(top + tile, height)]);
      const samples = [];
      for (const column of columns) {
        const image = await made(tileOf(strip, width, column.start, tile), row, column);
        add(band, width, row, column, (place, y, x) => image[place * tile * tile + y * tile + x]);
        samples.push({ top: top / DOWNSCALE, left: column.start / DOWNSCALE, ...reduced(image, tile) });
      }
      if (!wishes.colors) continue;
      const offsets = levelOffsets(samples, levelled);
      columns.forEach((column, i) => add(band, width, row, column, () => offsets[i]));
      const lifted = samples.map((one, i) => ({ ...one, values: one.values.map((value) => value + offsets[i]) }));
      levelled = [...levelled.slice(-columns.length), ...lifted];
    }
    flush(band, data, width, top, height);
    const restored = { data, width, height };
    if (keepsColors(pixels, wishes)) keepColors(restored, pixels, lines);
    return restored;
  }
}

/** Put the lines `top` to `bottom`, which `band` begins with, into the picture's bytes. */
function flush(band, data, width, top, bottom) {
  for (let i = 0, to = 4 * top * width, end = 3 * (bottom - top) * width; i < end; i += 3, to += 4) {
    for (let c = 0; c < 3; c++) data[to + c] = 255 * band[i + c];
  }
}

/** Add `value(channel, y, x)` of a tile to the sums, as its windows weigh it; what lies beyond the photo is left out. */
function add(band, width, row, column, value) {
  const wide = Math.min(column.weights.length, width - column.start);
  row.weights.forEach((down, y) => {
    for (let x = 0, to = (y * width + column.start) * 3; x < wide; x++, to += 3) {
      const weight = Math.fround(down * column.weights[x]);
      for (let c = 0; c < 3; c++) band[to + c] += weight * value(c, y, x);
    }
  });
}

/** A tile (3, tile, tile) in [0, 1] of a strip of lines, mirrored beyond the right and the lower end. */
function tileOf(strip, width, left, tile) {
  const height = strip.length / (4 * width);
  const place = (i, size) => (i % (2 * size) < size ? i % (2 * size) : 2 * size - 1 - (i % (2 * size)));
  const values = new Float32Array(3 * tile * tile);
  for (let y = 0, to = 0; y < tile; y++) {
    for (let x = 0; x < tile; x++, to++) {
      const from = 4 * (place(y, height) * width + left + place(x, width - left));
      for (let c = 0; c < 3; c++) values[c * tile * tile + to] = strip[from + c] / 255;
    }
  }
  return values;
}

/** The mean of each latent pixel of a tile, over its colours. */
function reduced(image, tile) {
  const side = tile / DOWNSCALE;
  const values = new Float32Array(side * side);
  for (let i = 0; i < image.length; i++) {
    const [y, x] = [Math.floor((i % (tile * tile)) / tile), i % tile];
    values[Math.floor(y / DOWNSCALE) * side + Math.floor(x / DOWNSCALE)] += image[i] / (3 * DOWNSCALE ** 2);
  }
  return { values, width: side, height: side };
}
