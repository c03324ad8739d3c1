/** Colours of the input for a restored picture: `elir_mobile/colors.py`. */

import { FILTERS, along, rounded } from "./pictures.js";

const STRIP = 256; // lines
const BAND = 16; // pixels; waves longer than about twice this are the input's
// Full-range BT.601, as in JPEG: (R, G, B) to Cb and Cr, and what each gives to red, green and blue.
const TO_CHROMA = [[-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]];
const FROM_CHROMA = [[0, 1.402], [-0.344136, -0.714136], [1.772, 0]];

/**
 * Put the chroma of `given` at low frequencies into `restored`, in place; grey where `given` is. Both are opaque.
 *
 * What is in float at one time is a part of a large picture.
 *
 * @param lines of the picture as large as `restored` that `given` is: ([top, bottom]) → their bytes.
 */
export function keepColors(restored, given, lines = ([top, bottom]) => linesOf(given, top, bottom)) {
  const { data, width, height } = restored;
  if (isGrey(given)) {
    for (let i = 0; i < data.length; i += 4) {
      const luma = (19595 * data[i] + 38470 * data[i + 1] + 7471 * data[i + 2] + 32768) >> 16; // Pillow's
      data.fill(luma, i, i + 3);
    }
    return;
  }
  const small = [height, width].map((side) => Math.max(1, rounded(side / BAND)));
  const [theirs, ours] = [lines, ([top, bottom]) => linesOf(restored, top, bottom)].map((part) => {
    const narrow = new Uint8ClampedArray(height * small[1] * 4);
    for (const [top, bottom] of strips(height)) {
      const across = along(part([top, bottom]), [bottom - top, width, 4], small[1], width, FILTERS.box);
      narrow.set(across, top * small[1] * 4);
    }
    return along(narrow, [1, height, small[1] * 4], small[0], height, FILTERS.box);
  });
  const [blue, red] = TO_CHROMA.map((weights) => {
    const moved = Float32Array.from({ length: small[0] * small[1] }, (_, i) =>
      weights.reduce((sum, weight, c) => sum + weight * (theirs[4 * i + c] - ours[4 * i + c]), 0),
    );
    return along(moved, [small[0], small[1], 1], width, small[1], FILTERS.bicubic);
  });
  for (const [from, to] of strips(height)) {
    const [cb, cr] = [blue, red].map((one) =>
      along(one, [1, small[0], width], height, small[0], FILTERS.bicubic, { from, to }),
    );
    for (let i = 0, place = 4 * from * width; i < cb.length; i++, place += 4) {
      FROM_CHROMA.forEach(([fromBlue, fromRed], c) => (data[place + c] += fromBlue * cb[i] + fromRed * cr[i]));
    }
  }
}

const linesOf = ({ data, width }, top, bottom) => data.subarray(4 * top * width, 4 * bottom * width);

/** First line and end of each part of a large picture. */
function* strips(height) {
  for (let top = 0; top < height; top += STRIP) yield [top, Math.min(top + STRIP, height)];
}

/** Whether what becomes of `given` gets its colours: `colors` are kept, or `grey` stays grey and it is grey. */
export const keepsColors = (given, { colors, grey }) => colors || (grey && isGrey(given));

/** Whether a picture has no colour at all. */
function isGrey({ data }) {
  for (let i = 0; i < data.length; i += 4) {
    if (data[i] !== data[i + 1] || data[i] !== data[i + 2]) return false;
  }
  return true;
}
