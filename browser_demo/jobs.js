/**
 * Measuring on this device: a job file in, a result file out, in the format of `elir_mobile/core/jobs.py`.
 *
 * All files of a job stay loaded and restore the golden image in turn, so that a slow spell of the device
 * hits all of them.
 */

import { Bundle, fileStem, isForGpu, sha256 } from "./bundle.js";
import { goldenParity } from "./fidelity.js";
import { PROGRAMS, Restorer, floatBytes, gpuName, hasGpu, isGpuSoftware, startRuntime } from "./restorer.js";

const SCHEMA_VERSION = 1;

/** Interpolated percentile, as NumPy's default. */
export function percentile(values, percent) {
  const ordered = Float64Array.from(values).sort();
  const place = ((ordered.length - 1) * percent) / 100;
  const low = Math.floor(place);
  const high = Math.min(low + 1, ordered.length - 1);
  return ordered[low] + (ordered[high] - ordered[low]) * (place - low);
}

function statistics(runs) {
  return { median_ms: percentile(runs, 50), p90_ms: percentile(runs, 90), runs_ms: runs };
}

/** What this device says of itself. */
export async function deviceFacts() {
  const data = navigator.userAgentData;
  const hints = (await data?.getHighEntropyValues(["architecture", "platformVersion", "fullVersionList"])) ?? {};
  const brand = hints.fullVersionList?.find(({ brand }) => brand.includes("Chrom"));
  const { version } = await (await fetch("litert/core/package.json")).json();
  const webgpu = await gpuName();
  return {
    name: brand ? `${brand.brand} ${brand.version}` : navigator.userAgent,
    kind: "browser",
    system: `${data?.platform ?? navigator.platform} ${hints.platformVersion ?? ""}`.trim(),
    arch: hints.architecture ?? "",
    cpu: `logical processors: ${navigator.hardwareConcurrency}`,
    emulated: false,
    runtimes: { "@litertjs/core": version, ...(webgpu && { webgpu }) },
  };
}

/**
 * Do a job.
 *
 * @param job `files`, `threads`, `warmup`, `runs`, `parity`.
 * @param bundle an opened {@link Bundle}.
 * @param keep awaited with (name, bytes) for each raw output; leave out to keep none.
 * @param progress awaited with (done, of, what).
 * @returns the content of the result file. A file that fails has its sentence in its row's `error`.
 */
export async function runJob(job, bundle, { keep = null, progress = async () => {} } = {}) {
  const asked = bundle.files.filter(({ path }) => job.files.includes(path));
  // One runtime for all, since all stay loaded. Without a GPU its files fail, and the others run.
  const gpu = asked.some(isForGpu) && (await hasGpu());
  await startRuntime(gpu);
  const { input, noise } = bundle.golden;
  const turns = job.runs > 0 ? job.warmup + job.runs : 0;
  const all = job.files.length * (1 + turns);
  let done = 0;
  const opened = [];
  const rows = [];
  const failed = (row, error) => (row.error = String(error.message ?? error).split("\n")[0]);
  try {
    for (const path of job.files) {
      const entry = bundle.files.find((file) => file.path === path);
      await progress(done++, all, path);
      const row = emptyRow(path, entry, job.threads);
      rows.push(row);
      if (!entry) {
        failed(row, `the bundle has no LiteRT file ${path}`);
        continue;
      }
      try {
        const restorer = await Restorer.open(bundle, entry, job.threads, gpu);
        row.threads = restorer.threads;
        const timed = turns && !(isForGpu(entry) && (await isGpuSoftware()));
        if (timed) row.load_ms = restorer.loadMs;
        if (timed) row.first_ms = (await restorer.restore(input, noise)).times.total;
        if (job.parity) await addParity(row, restorer, bundle, keep);
        if (timed) opened.push({ row, restorer, runs: [] });
        else restorer.close();
      } catch (error) {
        failed(row, error);
      }
    }
    for (let turn = 0; turn < turns; turn++) {
      for (const { row, restorer, runs } of opened) {
        await progress(done++, all, row.path);
        const { times } = await restorer.restore(input, noise);
        if (turn >= job.warmup) runs.push(times);
      }
    }
    for (const { row, runs } of opened) {
      const of = (name) => statistics(runs.map((times) => times[name]));
      row.programs = Object.fromEntries(PROGRAMS.map((name) => [name, of(name)]));
      row.total = of("total");
    }
  } finally {
    opened.forEach(({ restorer }) => restorer.close()); // a person may have cancelled it
  }
  await progress(all, all, "done");
  return { schema_version: SCHEMA_VERSION, device: await deviceFacts(), rows };
}

function emptyRow(path, entry, threads) {
  return {
    path,
    sha256: entry?.sha256 ?? "",
    target: entry?.target ?? "",
    precision: entry?.precision ?? "",
    threads,
    load_ms: null,
    first_ms: null,
    programs: {},
    total: null,
    peak_bytes: null, // a page cannot see its process
    parity: {},
    output_sha256: {},
    error: null,
  };
}

async function addParity(row, restorer, bundle, keep) {
  const outputs = await restorer.goldenOutputs();
  row.parity = goldenParity(outputs, bundle.golden);
  if (keep) row.outputs = {};
  for (const [name, values] of Object.entries(outputs)) {
    const bytes = floatBytes(values);
    row.output_sha256[name] = await sha256(bytes);
    if (!keep) continue;
    row.outputs[name] = `${fileStem(row.target, row.precision)}-${name}.f32`;
    await keep(row.outputs[name], bytes);
  }
}

/** Without a screen: do the job at `url`, and put its outputs and `result.json` beside it. */
export async function runJobFile(url, progress) {
  const job = await (await fetch(url)).json();
  const bundle = await Bundle.open(new URL(`${job.bundle}/`, url));
  const put = async (name, body) => {
    const response = await fetch(new URL(name, url), { method: "PUT", body });
    if (!response.ok) throw new Error(`${name} cannot be written (${response.status})`);
  };
  const result = await runJob(job, bundle, { keep: put, progress });
  await put("result.json", JSON.stringify(result, null, 1));
}
