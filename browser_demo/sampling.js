/** The one sampling loop, whatever computes the three programs: `elir_mobile/core/sampling.py`. */

/**
 * Restore `image` with unit Gaussian `noise`.
 *
 * @param programs `encode`, `step` and `decode`: float32 arrays → promises of such.
 * @param sigma what the noise is multiplied by.
 * @param fidelity from the sample (0) to the coarse estimate (1), see `mixed`.
 * @param progress awaited with (done, of) before each program.
 * @returns the image, the coarse and the sampled latent, and the milliseconds of encode, one step (the mean), decode,
 *   and in total.
 */
export async function sample(programs, image, noise, { steps, sigma, fidelity = 0, progress = async () => {} }) {
  const spent = { encode: 0, step: 0, decode: 0 };
  let done = 0;
  const timed = async (name, ...inputs) => {
    await progress(done++, steps + 2);
    const start = performance.now();
    const out = await programs[name](...inputs);
    spent[name] += performance.now() - start;
    return out;
  };
  const coarse = await timed("encode", image);
  let latent = noised(coarse, noise, sigma);
  for (let k = 0; k < steps; k++) latent = await timed("step", latent, k);
  const restored = await timed("decode", mixed(latent, coarse, fidelity));
  const total = spent.encode + spent.step + spent.decode;
  return { image: restored, coarse, latent, times: { ...spent, step: spent.step / steps, total } };
}

/** Where the trajectory starts. */
export function noised(coarse, noise, sigma) {
  const scale = Math.fround(sigma); // float32 throughout, as everywhere else
  return coarse.map((value, i) => value + Math.fround(scale * noise[i]));
}

/** From the sampled latent (`fidelity` 0) to the coarse one (1), which is nearer to the truth on average and smoother. */
export function mixed(latent, coarse, fidelity) {
  return fidelity ? latent.map((value, i) => value + Math.fround(fidelity * (coarse[i] - value))) : latent;
}
