/** How far outputs are from the float network's: the decibels of `elir_mobile/core/golden.py`, and the budgets. */

/** SQNR of encode and step, PSNR of decode and image, in dB; null where equal to the last bit. */
export function goldenParity(outputs, golden) {
  for (const [name, values] of Object.entries(outputs)) {
    // In JSON a NaN is null, which says equal.
    if (!values.every(Number.isFinite)) throw new Error(`${name} gives values that are not finite`);
  }
  const found = {
    encode: sqnr(golden.coarse, outputs.encode),
    step: sqnr(golden.step, outputs.step),
    decode: psnr(golden.output, outputs.decode),
    image: psnr(golden.output, outputs.image),
  };
  for (const [name, value] of Object.entries(found)) {
    if (value !== null && !Number.isFinite(value)) throw new Error(`${name} has a golden vector that is not finite`);
  }
  return found;
}

/** Signal to noise in dB; null where `out` equals `reference`. */
export function sqnr(reference, out) {
  let [signal, error] = [0, 0];
  reference.forEach((value, i) => {
    signal += value ** 2;
    error += (value - out[i]) ** 2;
  });
  return error === 0 ? null : 10 * Math.log10(signal / error);
}

/** Peak signal to noise in dB of values in [0, 1]; null where `out` equals `reference`. */
export function psnr(reference, out) {
  const error = reference.reduce((sum, value, i) => sum + (value - out[i]) ** 2, 0) / reference.length;
  return error === 0 ? null : -10 * Math.log10(error);
}

/**
 * Each output's decibels `here`, its `budget` in the manifest, and whether it `holds`: null where nothing was measured
 * or nothing was asked.
 *
 * @param parity decibels by output, null where it is equal to the last bit; null: not measured yet.
 */
export function checks(parity, budgets) {
  return ["encode", "step", "decode", "image"].map((name) => {
    const here = parity && name in parity ? (parity[name] ?? Infinity) : null;
    const budget = budgets?.[name]?.budget_db ?? null;
    return { name, here, budget, holds: here === null || budget === null ? null : here >= budget };
  });
}
