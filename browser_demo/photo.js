/**
 * A photo while it is restored: as one square where the model takes it whole, or face by face. What
 * `elir_mobile/photographs.py` and `elir_mobile/faces/inplace.py` do, with each part kept, so that a face can be switched
 * on and off, and the fidelity changed, without restoring anew.
 */

import { TEMPLATE, picture, scaleOf, similarity, warp } from "./align.js";
import { UserError } from "./bundle.js";
import { keepColors } from "./colors.js";
import { compared, isSharp, paste } from "./paste.js";
import { enlarged, planar, rgba } from "./pictures.js";
import { mixed } from "./restorer.js";

/** An image file, upright, as an `ImageBitmap`. */
export async function opened(blob) {
  try {
    return await createImageBitmap(blob); // applies the EXIF orientation
  } catch {
    throw new UserError(`${blob.name ?? "this"} is not an image that can be read: choose another`);
  }
}

/** The pixels of an image on white. */
export function pixelsOf(image) {
  const { width, height } = image;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  if (!context) throw new UserError(`${width}×${height} pixels are more than this browser can hold: reduce the photo`);
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, width, height);
}

/** The centred square of an image, enlarged to the network's size as its task wants it. */
export async function squareOf(image, size, { upscale, enlarge }) {
  const given = size / upscale;
  const side = Math.min(image.width, image.height);
  const [left, top] = [(image.width - side) / 2, (image.height - side) / 2].map(Math.floor);
  const options = { resizeWidth: given, resizeHeight: given, resizeQuality: "high" };
  const { data } = pixelsOf(await createImageBitmap(image, left, top, side, side, options));
  return { data: enlarged(data, [given, given], 4, upscale, enlarge), width: size, height: size };
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

  /**
   * Restore it.
   *
   * @param wishes the `noise`, the `fidelity`, and whether the `colors` are the photo's.
   * @param progress as the restorer's.
   */
  async restore(restorer, wishes, progress) {
    const options = { fidelity: wishes.fidelity, progress };
    Object.assign(this, await restorer.restore(planar(this.given.data, 4), wishes.noise, options));
    this.finish(wishes);
  }

  /** Follow a fidelity that was changed. */
  async decode(restorer, wishes) {
    this.image = await restorer.decode(mixed(this.latent, this.coarse, wishes.fidelity));
    this.finish(wishes);
  }

  /** Make `restored` of the network's image. */
  finish({ colors }) {
    const made = { ...this.given, data: rgba(this.image) };
    this.restored = colors ? keepColors(made, this.given) : made;
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
