/**
 * A photo while it is restored as one square, or face by face (`tiled.js` has the third way). What
 * `elir_mobile/photographs.py` and `elir_mobile/faces/inplace.py` do, with each part kept, so that a face can be switched
 * on and off, and the fidelity changed, without restoring anew.
 */

import { TEMPLATE, picture, scaleOf, similarity, warp } from "./align.js";
import { UserError } from "./bundle.js";
import { keepColors, keepsColors } from "./colors.js";
import { compared, isSharp, paste } from "./paste.js";
import { enlarged, planar, resized, rgba } from "./pictures.js";
import { seededNoise } from "./noise.js";
import { mixed } from "./sampling.js";

/** An image file, upright, as an `ImageBitmap`. */
export async function opened(blob) {
  try {
    return await createImageBitmap(blob); // applies the EXIF orientation
  } catch {
    throw new UserError(`${blob.name ?? "this"} is not an image that can be read: choose another`);
  }
}

/** How many pictures a file holds, of which the first is opened; 1 where the browser cannot tell. */
export async function framesOf(blob) {
  try {
    const decoder = new ImageDecoder({ data: await blob.arrayBuffer(), type: blob.type });
    await Promise.all([decoder.completed, decoder.tracks.ready]);
    const { frameCount } = decoder.tracks.selectedTrack;
    decoder.close();
    return frameCount;
  } catch {
    return 1;
  }
}

/** The pixels of an image on white, and the `alpha` that it had; null where it was opaque. */
export function pixelsOf(image) {
  const { width, height } = image;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  if (!context) throw tooLarge(width, height);
  const read = () => context.getImageData(0, 0, width, height).data;
  context.drawImage(image, 0, 0);
  let data = read();
  let alpha = new Uint8ClampedArray(width * height);
  for (let i = 0; i < alpha.length; i++) alpha[i] = data[4 * i + 3];
  if (alpha.every((share) => share === 255)) {
    alpha = null;
  } else {
    context.globalCompositeOperation = "destination-over";
    context.fillStyle = "white";
    context.fillRect(0, 0, width, height);
    data = read();
    if (data.at(-1) < 255) throw tooLarge(width, height); // some browsers draw nothing then
  }
  return { data, width, height, alpha };
}

const tooLarge = (width, height) =>
  new UserError(`${width}×${height} pixels are more than this browser can hold: reduce the photo`);

/** Refuse a photo that this browser could not show, before it is restored. */
export function checkRoom({ width, height }) {
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context?.fillRect(width - 1, height - 1, 1, 1);
  if (!context?.getImageData(width - 1, height - 1, 1, 1).data[3]) throw tooLarge(width, height);
}

/**
 * The restored photo on `canvas` as it is saved: with the alpha of the given one, what its white ground added taken off
 * again, see `with_alpha` of `elir_mobile/images.py`.
 */
export function withAlpha(canvas, { width, height, alpha }) {
  if (!alpha) return canvas;
  const size = [canvas.height, canvas.width];
  const shares = resized(alpha, [height, width], 1, size, "bicubic");
  const picture = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const { data } = picture;
  shares.forEach((share, i) => {
    for (let c = 4 * i; c < 4 * i + 3; c++) data[c] = share ? 255 + ((data[c] - 255) * 255) / share : 255;
    data[4 * i + 3] = share;
  });
  const made = document.createElement("canvas");
  [made.width, made.height] = [canvas.width, canvas.height];
  made.getContext("2d").putImageData(picture, 0, 0);
  return made;
}

/** The centred square of an image, enlarged to the network's size as its task wants it. */
export async function squareOf(image, size, { upscale, enlarge }) {
  const given = size / upscale;
  const side = Math.min(image.width, image.height);
  const [left, top] = [(image.width - side) / 2, (image.height - side) / 2].map(Math.floor);
  const options = { resizeWidth: given, resizeHeight: given, resizeQuality: "high" };
  const { data, alpha } = pixelsOf(await createImageBitmap(image, left, top, side, side, options));
  const large = enlarged(data, [given, given], 4, upscale, enlarge);
  const shares = alpha && resized(alpha, [given, given], 1, [size, size], "bicubic");
  return { data: large, width: size, height: size, alpha: shares };
}

/** A square of a photo: what is given to the network, and what comes of it. */
class Part {
  /**
   * @param given picture of the network's size.
   * @param matrix from the photo to it; null: it is the photo.
   * @param box what is marked in the photo: left, top, right, bottom.
   */
  constructor(given, matrix, box) {
    Object.assign(this, { given, matrix, box, on: true, sharp: false });
  }

  get tiles() {
    return 1;
  }

  /**
   * Restore it.
   *
   * @param wishes the `seed` of the noise, the `fidelity`, whether the `colors` are the photo's, and whether a `grey`
   *   photo stays grey in any case.
   * @param progress as the restorer's.
   * @returns what is new of the part.
   */
  async restore(restorer, wishes, progress) {
    const { fidelity, seed } = wishes;
    const { noise } = restorer.bundle.golden;
    const options = { fidelity, progress };
    const made = await restorer.restore(planar(this.given.data, 4), seededNoise(noise.length, seed), options);
    return { ...made, ...this.#finished(made.image, wishes) };
  }

  /** What is new of it where the fidelity was changed. */
  async decode(restorer, wishes, progress) {
    await progress(0, 1);
    const image = await restorer.decode(mixed(this.latent, this.coarse, wishes.fidelity));
    return { image, ...this.#finished(image, wishes) };
  }

  /** Likewise, where it was whether colours are kept. */
  async finish(restorer, wishes) {
    return this.#finished(this.image, wishes);
  }

  #finished(image, wishes) {
    const restored = { ...this.given, data: rgba(image) };
    if (keepsColors(this.given, wishes)) keepColors(restored, this.given);
    return { restored };
  }

  /** Leave it alone if the network adds nothing to it. */
  judge() {
    this.sharp = isSharp(compared(this.given, this.restored, this.given.width / scaleOf(this.matrix)));
    this.on = !this.sharp;
  }
}

/** A photo and its parts. */
export class Photo {
  /** @param pixels `{ data, width, height }`, opaque. */
  constructor(pixels, parts, whole) {
    Object.assign(this, { pixels, parts, whole });
  }

  /** What the network takes whole. */
  static whole(square) {
    return new Photo(square, [new Part(square, null, null)], true);
  }

  /** A photo whose faces were found, by `FaceFinder`. */
  static of(pixels, faces, size) {
    const photo = new Photo(pixels, [], false);
    const target = TEMPLATE.map((point) => point.map((value) => value * size));
    for (const { box, points } of faces) photo.#add(similarity(points, target), box, size);
    return photo;
  }

  /** Add the square that a person marked; returns its part. */
  mark([left, top, side], size) {
    const scale = size / side;
    const matrix = [[scale, 0, -left * scale], [0, scale, -top * scale]];
    return this.#add(matrix, [left, top, left + side, top + side], size);
  }

  #add(matrix, box, size) {
    const part = new Part(picture(warp(this.pixels, matrix, size, size), size, size), matrix, box);
    this.parts.push(part);
    return part;
  }

  /** Whether anything of it is changed. */
  get changed() {
    return this.parts.some(({ on }) => on);
  }

  /** The restored photo, with its own bytes wherever no restored face reaches. */
  get restored() {
    const { pixels, parts, whole } = this;
    if (whole) return parts[0].restored;
    const patches = parts.map(({ matrix, given, on, restored }) => ({
      matrix,
      size: given.width,
      restored: on ? restored : null,
    }));
    return { ...this.size, data: paste(pixels, patches) };
  }

  /** Its sides. */
  get size() {
    const { width, height } = this.pixels; // an ImageData's own are not enumerable
    return { width, height };
  }
}
