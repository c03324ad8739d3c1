/** What the scripts that Node runs have in common: `node SCRIPT MODULES FIXTURES`, see `tests/node.py`. */

export const [modules, fixtures] = process.argv.slice(2);

const fetched = (path) => fetch(new URL(path, fixtures));

export const json = async (path) => (await fetched(path)).json();
export const bytes = async (path) => new Uint8Array(await (await fetched(path)).arrayBuffer());
export const floats = async (path) => new Float32Array((await bytes(path)).buffer);

/** The largest difference, and the share of values that differ at all. */
export const apart = (ours, theirs) => {
  if (ours.length !== theirs.length) return [Infinity, 1];
  let [most, differ] = [0, 0];
  ours.forEach((value, i) => {
    most = Math.max(most, Math.abs(value - theirs[i]));
    differ += value !== theirs[i];
  });
  return [most, differ / ours.length];
};
