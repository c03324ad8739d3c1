/** Colours of the input for a restored picture: `elir_mobile/colors.py`. */

import { resized, rounded } from "./pictures.js";

const BAND = 16; // pixels; waves longer than about twice this are the input's
// Full-range BT.601, as in JPEG: (R, G, B) to Cb and Cr, and what each gives to red, green and blue.
const TO_CHROMA = [[-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]];
const FROM_CHROMA = [[0, 1.402], [-0.344136, -0.714136], [1.772, 0]];

/** `restored` with the chroma of `given` at low frequencies, grey where `given` is; both opaque and of one size. */
export function keepColors(restored, given) {
  const { data, width, height } = restored;
  const out = Uint8ClampedArray.from(data); // clamped arrays round to nearest, of two to even
  if (isGrey(given)) {
    for (let i = 0; i < data.length; i += 4) {
      const luma = (19595 * data[i] + 38470 * data[i + 1] + 7471 * data[i + 2] + 32768) >> 16; // Pillow's
      out.fill(luma, i, i + 3);
    }
    return { data: out, width, height };
  }
  const small = [height, width].map((side) => Math.max(1, rounded(side / BAND)));
  const [theirs, ours] = [given, restored].map((one) => resized(one.data, [height, width], 4, small, "box"));
  const [blue, red] = TO_CHROMA.map((weights) => {
    const moved = Float32Array.from({ length: small[0] * small[1] }, (_, i) =>
      weights.reduce((sum, weight, c) => sum + weight * (theirs[4 * i + c] - ours[4 * i + c]), 0),
    );
    return resized(moved, small, 1, [height, width], "bicubic");
  });
  FROM_CHROMA.forEach(([fromBlue, fromRed], c) => {
    for (let i = 0; i < width * height; i++) out[4 * i + c] = data[4 * i + c] + fromBlue * blue[i] + fromRed * red[i];
  });
  return { data: out, width, height };
}

/** Whether a picture has no colour at all. */
function isGrey({ data }) {
  for (let i = 0; i < data.length; i += 4) {
    if (data[i] !== data[i + 1] || data[i] !== data[i + 2]) return false;
  }
  return true;
}
