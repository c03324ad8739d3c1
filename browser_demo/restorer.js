/**
 * A bundle's LiteRT file in the browser: its three programs.
 */

import { Tensor, loadAndCompile, loadLiteRt, unloadLiteRt } from "@litertjs/core";
import { UserError, isForGpu } from "./bundle.js";
import { noised, sample } from "./sampling.js";

export const PROGRAMS = ["encode", "step", "decode"];

/** Whether this browser has what LiteRT's GPU accelerator needs: WebGPU, and promises inside WebAssembly. */
export async function hasGpu() {
  return "Suspending" in WebAssembly && Boolean(await navigator.gpu?.requestAdapter());
}

/** Whether that GPU is one in software, whose speed says nothing of this device's. */
export async function isGpuSoftware() {
  const { info } = (await navigator.gpu?.requestAdapter()) ?? {};
  return info?.isFallbackAdapter || info?.architecture === "swiftshader";
}

/** What WebGPU calls that GPU, for `elir_mobile/harness/measure.py`; null where there is none. */
export async function gpuName() {
  if (!(await hasGpu())) return null;
  const { info } = await navigator.gpu.requestAdapter();
  const name = info.architecture || info.vendor || "a GPU without a name";
  return (await isGpuSoftware()) ? `${name} (a GPU in software)` : name;
}

let runtime; // promise of the most threads that can be used
let withGpu; // whether it is the build that has the GPU accelerator, and one thread

/** Load the runtime, for files on the GPU or for others; resolves to the number of threads that it can use. */
export function startRuntime(gpu) {
  if (runtime && withGpu !== gpu) {
    unloadLiteRt();
    runtime = null;
  }
  withGpu = gpu;
  runtime ??= (async () => {
    const folder = new URL("litert/core/wasm/", document.baseURI).href;
    if (gpu) {
      await loadLiteRt(folder, { jspi: true });
      return 1;
    }
    if (!globalThis.crossOriginIsolated) {
      await loadLiteRt(folder);
      return 1;
    }
    try {
      await loadLiteRt(folder, { threads: true });
      return navigator.hardwareConcurrency;
    } catch {
      // Threads need relaxed SIMD too, which not every browser has.
      await loadLiteRt(folder);
      return 1;
    }
  })();
  return runtime;
}

/** Little-endian bytes of float32 values. */
export function floatBytes(values) {
  const view = new DataView(new ArrayBuffer(4 * values.length));
  values.forEach((value, i) => view.setFloat32(4 * i, value, true));
  return new Uint8Array(view.buffer);
}

/** The bytes of `model` as LiteRT runs them on the processor, with `threads` threads. */
const onProcessor = (bytes, threads) =>
  loadAndCompile(bytes, { accelerator: "wasm", cpuOptions: { numThreads: threads } });

/**
 * A network of the face detector as `FaceFinder` takes it: float32 (side, side, 3) → its outputs, the longest first.
 *
 * It lives in the runtime of the restorer that was opened last, on one thread: the runtime has as many workers as there
 * are processors, and a model that must wait for another one to start may hold up the page for good.
 *
 * @param entry its file's in the manifest.
 */
export async function openNetwork(bundle, entry) {
  const model = await onProcessor(await bundle.bytes(entry), 1);
  return async (values) => {
    const side = Math.sqrt(values.length / 3);
    const input = new Tensor(values, [1, side, side, 3]);
    const outputs = await model.run([input]);
    input.delete();
    const found = [];
    for (const output of outputs) {
      found.push(Float32Array.from(await output.data()));
      output.delete();
    }
    return found.toSorted((a, b) => b.length - a.length);
  };
}

/** The three programs of one file. */
export class Restorer {
  /**
   * Load the file of `entry` with at most `threads` threads. `loadMs` leaves the download out.
   *
   * @param gpu whether the runtime is to have the GPU accelerator; what another one has opened is lost.
   */
  static async open(bundle, entry, threads, gpu = isForGpu(entry)) {
    if (isForGpu(entry) && !(await hasGpu())) {
      throw new UserError(`${entry.path} needs WebGPU, which this browser lacks: choose another file`);
    }
    const [bytes, most] = [await bundle.bytes(entry), await startRuntime(gpu)];
    const self = new Restorer();
    self.bundle = bundle;
    self.entry = entry;
    self.threads = Math.max(1, Math.min(threads, most));
    const start = performance.now();
    // Asked for fp16, LiteRT.js 2.5.3 writes shaders that need f16 where WebGPU has none; they fail without an error.
    const onGpu = { accelerator: "webgpu", gpuOptions: { precision: "fp32" } };
    self.model = await (isForGpu(entry) ? loadAndCompile(bytes, onGpu) : onProcessor(bytes, self.threads));
    self.loadMs = performance.now() - start;
    const missing = PROGRAMS.find((name) => !(name in self.model.signatures));
    if (missing) throw new UserError(`${entry.path} has no signature '${missing}': export it again`);
    return self;
  }

  async #call(name, ...inputs) {
    const given = {};
    inputs.forEach(([values, shape], i) => (given[`args_${i}`] = new Tensor(values, shape)));
    try {
      const { output_0: out } = await this.model.run(name, given);
      const values = Float32Array.from(await out.data());
      out.delete();
      return values;
    } finally {
      Object.values(given).forEach((tensor) => tensor.delete());
    }
  }

  /** (3, H, W) in [0, 1] → coarse latent. */
  encode(image) {
    return this.#call("encode", [image, [1, 3, this.bundle.size, this.bundle.size]]);
  }

  /** The latent after Euler step `k`. */
  step(latent, k) {
    const row = this.bundle.row(k);
    return this.#call("step", [latent, this.bundle.latentShape], [row, [1, row.length, 1, 1]]);
  }

  /** Latent → (3, H, W) in [0, 1]. */
  decode(latent) {
    return this.#call("decode", [latent, this.bundle.latentShape]);
  }

  /** Restore `image` with unit Gaussian `noise`, see `sample`. */
  restore(image, noise, options = {}) {
    const { steps, sigma_s: sigma } = this.bundle.manifest;
    return sample(this, image, noise, { steps, sigma, ...options });
  }

  /** What each program makes of its golden input, and the whole loop of the golden image. */
  async goldenOutputs() {
    const { input, noise, coarse, latent } = this.bundle.golden;
    const start = noised(coarse, noise, this.bundle.manifest.sigma_s);
    return {
      encode: await this.encode(input),
      step: await this.step(start, 0),
      decode: await this.decode(latent),
      image: (await this.restore(input, noise)).image,
    };
  }

  close() {
    this.model.delete();
  }
}
