/**
 * Seeded noise, equal to PyTorch's: `torch.randn(shape, generator=torch.Generator().manual_seed(seed))`.
 *
 * Mersenne Twister (Matsumoto and Nishimura 1998, the reference `mt19937ar`), 24 bits of each word as a uniform number, and
 * Box-Muller in blocks of sixteen, as PyTorch's `normal_fill` does on the CPU.
 */

const [WORDS, SHIFT, BLOCK] = [624, 397, 16];

/** A function that gives the next float32 in [0, 1) of the 32-bit Mersenne Twister. */
function twister(seed) {
  const state = new Uint32Array(WORDS);
  state[0] = seed;
  for (let i = 1; i < WORDS; i++) state[i] = Math.imul(1812433253, state[i - 1] ^ (state[i - 1] >>> 30)) + i;
  let next = WORDS;
  const twist = () => {
    for (let i = 0; i < WORDS; i++) {
      const bits = (state[i] & 0x80000000) | (state[(i + 1) % WORDS] & 0x7fffffff);
      state[i] = state[(i + SHIFT) % WORDS] ^ (bits >>> 1) ^ (bits & 1 ? 0x9908b0df : 0);
    }
    next = 0;
  };
  return () => {
    if (next === WORDS) twist();
    let bits = state[next++];
    bits ^= bits >>> 11;
    bits ^= (bits << 7) & 0x9d2c5680;
    bits ^= (bits << 15) & 0xefc60000;
    bits ^= bits >>> 18;
    return (bits & 0xffffff) / 2 ** 24;
  };
}

/** `count` numbers, at least sixteen, that depend on nothing but `count` and the lower 32 bits of `seed`. */
export function seededNoise(count, seed) {
  const uniform = twister(seed);
  const out = Float32Array.from({ length: count }, uniform);
  for (let start = 0; start <= count - BLOCK; start += BLOCK) boxMuller(out, start);
  if (count % BLOCK) {
    // The last sixteen are drawn anew, over what is there.
    for (let i = count - BLOCK; i < count; i++) out[i] = uniform();
    boxMuller(out, count - BLOCK);
  }
  return out;
}

function boxMuller(values, start) {
  for (let i = start; i < start + BLOCK / 2; i++) {
    const radius = Math.sqrt(-2 * Math.log(1 - values[i]));
    const angle = Math.fround(Math.fround(2 * Math.PI) * values[i + BLOCK / 2]); // PyTorch multiplies in float32
    values[i] = radius * Math.cos(angle);
    values[i + BLOCK / 2] = radius * Math.sin(angle);
  }
}
