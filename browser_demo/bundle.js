/**
 * A bundle on the page's server: what its manifest says, the table of time biases and the golden vectors.
 *
 * The format is that of `elir_mobile/bundle.py`. Every file is checked against the manifest's SHA-256 before use.
 */

import { FILTERS, planar } from "./pictures.js";

const SCHEMA_VERSION = 2;
const [TARGET, GPU_TARGET] = ["litert", "litert/gpu"];

/** Whether `entry` is a file for WebGPU. */
export const isForGpu = (entry) => entry.target === GPU_TARGET;

/** What a person can mend; the message is one sentence. */
export class UserError extends Error {}

async function fetched(url) {
  const response = await fetch(url).catch(() => {
    throw new UserError(`${url} cannot be reached: check the network, or serve the page again`);
  });
  if (!response.ok) throw new UserError(`${url} cannot be read (${response.status}): serve the bundle again`);
  return response;
}

/** The start of the names of files made from an artifact; a target may be `runtime/delegate`. */
export function fileStem(target, precision) {
  return `${target.replaceAll("/", "-")}-${precision}`;
}

/** SHA-256 of bytes in hexadecimal. */
export async function sha256(bytes) {
  if (!globalThis.crypto?.subtle) {
    throw new UserError(
      "this browser checks no files on a page without https: open it by https:// or as localhost (adb reverse on a phone)",
    );
  }
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** An opened bundle: its manifest, its task, table of time biases and golden vectors. */
export class Bundle {
  constructor(url, manifest) {
    this.url = url;
    this.manifest = manifest;
    this.task = taskOf(manifest);
  }

  /** Open the bundle at `url` (with a slash at the end). */
  static async open(url) {
    const bundle = new Bundle(url, checked(await (await fetched(new URL("manifest.json", url))).text()));
    bundle.table = floats(await bundle.bytes(bundle.manifest.table));
    bundle.golden = {};
    for (const [name, entry] of Object.entries(bundle.manifest.golden?.arrays ?? {})) {
      const bytes = await bundle.bytes(entry);
      bundle.golden[name] = entry.dtype === "uint8" ? planar(bytes) : floats(bytes);
    }
    return bundle;
  }

  /** The entries of the files for browsers: first those that the manifest recommends, for WebGPU and without it. */
  get files() {
    const { "browser-gpu": gpu, browser } = this.manifest.recommendation ?? {};
    const place = ({ path }) => [gpu, browser].indexOf(path) + 1 || 3;
    const files = this.manifest.files.filter(({ target }) => target === TARGET || target === GPU_TARGET);
    return files.toSorted((a, b) => place(a) - place(b));
  }

  /** Why the manifest recommends the file of `entry` to browsers; empty where it does not. */
  reason({ path }) {
    const { recommendation = {}, reasons = {} } = this.manifest;
    return reasons[["browser-gpu", "browser"].find((kind) => recommendation[kind] === path)] ?? "";
  }

  get size() {
    return this.manifest.size;
  }

  /** Of the golden noise, and so of what a photo is first restored with. */
  get seed() {
    return this.manifest.golden.seed;
  }

  get latentShape() {
    return this.manifest.golden.arrays.noise.shape;
  }

  /** The verified bytes of what `entry` names. */
  async bytes(entry) {
    const bytes = new Uint8Array(await (await fetched(new URL(entry.path, this.url))).arrayBuffer());
    if ((await sha256(bytes)) !== entry.sha256) {
      throw new UserError(`${entry.path} is damaged: write the bundle again`);
    }
    return bytes;
  }

  /** Row `k` of the table, the second input of step `k`. */
  row(k) {
    const width = this.manifest.table.shape[1];
    return this.table.subarray(k * width, (k + 1) * width);
  }
}

const damaged = (what) => new UserError(`the bundle is damaged: ${what}; write it again`);

/** The manifest in `text`, if it is one that this page can read. */
function checked(text) {
  let manifest;
  try {
    manifest = JSON.parse(text);
  } catch {
    throw damaged("its manifest cannot be read");
  }
  const { schema_version: version, table, files } = manifest;
  if (version > SCHEMA_VERSION) {
    throw new UserError(
      `the bundle was made by a newer elir-mobile (schema ${version}, this page reads ${SCHEMA_VERSION}): update this page`,
    );
  }
  if (!(version >= 1 && table?.sha256 && files?.every?.(({ path }) => path))) {
    throw damaged("its manifest lacks what every bundle has");
  }
  return manifest;
}

/**
 * What the manifest says of the task: `title` for people; `domain`, what the network was trained on; `upscale`, how
 * many times larger the restored picture is; `enlarge`, how the given one gets that large beforehand.
 *
 * Schema 1 has the task's name alone: its pictures are restored as large as they are.
 */
function taskOf(manifest) {
  const { schema_version: version, task, size } = manifest;
  if (version === 1) return { title: task, domain: null, upscale: 1, enlarge: "nearest" };
  const { title, domain, upscale, enlarge } = manifest;
  if (!title || !domain) throw damaged("its manifest lacks what every bundle has");
  if (!(upscale >= 1 && size % upscale === 0 && enlarge in FILTERS)) {
    throw damaged(`it enlarges ${upscale} times by '${enlarge}'`);
  }
  return { title, domain, upscale, enlarge };
}

/** Little-endian float32 values of a file. */
function floats(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Float32Array.from({ length: bytes.byteLength / 4 }, (_, i) => view.getFloat32(4 * i, true));
}
