/**
 * Running without a screen: a job file names files of a bundle, a result file says what each computed and how fast.
 *
 * The format is the harness's: its other devices read and write the same two files. Files run one after another,
 * each loaded alone, so that a phone's memory holds one model at a time.
 */
package org.elir.mobile.core

import java.io.File
import java.io.IOException
import org.json.JSONArray
import org.json.JSONException
import org.json.JSONObject

/** Of job and result files. */
private const val JOB_SCHEMA_VERSION = 1

/** A job that cannot be read; the message is one sentence that says what to do. */
class JobException(message: String, cause: Throwable? = null) : Exception(message, cause)

/** What to run: [files] of the bundle in [bundle], as paths of its manifest. */
class Job(
    val bundle: File,
    val files: List<String>,
    val threads: Int,
    val protocol: Protocol,
    val parity: Boolean,
) {
    companion object {
        /**
         * Read the job in [file]; a relative bundle is relative to it.
         *
         * @throws JobException missing, damaged or too new.
         */
        fun read(file: File): Job = try {
            val job = JSONObject(file.readText())
            val version = job.getInt("schema_version")
            if (version != JOB_SCHEMA_VERSION) {
                val message = "${file.name} has schema $version, this app reads $JOB_SCHEMA_VERSION: update the app"
                throw JobException(message)
            }
            val files = job.getJSONArray("files")
            val bundle = File(job.getString("bundle"))
            val threads = job.getInt("threads")
            if (threads < 1) throw JobException("${file.name} asks for $threads threads: use at least 1")
            Job(
                if (bundle.isAbsolute) bundle else File(file.absoluteFile.parentFile, bundle.path),
                (0 until files.length()).map { files.getString(it) },
                threads,
                Protocol(job.getInt("warmup"), job.getInt("runs")),
                job.getBoolean("parity"),
            )
        } catch (error: JSONException) {
            throw JobException("${file.name} is not a job: ${error.message}", error)
        } catch (error: IOException) {
            throw JobException("${file.path} cannot be read: push it again", error)
        }
    }
}

/**
 * Do [job] and return the result file's content.
 *
 * A file that fails, or a bundle that cannot be used, has its sentence in the row's `error`; the others go on.
 *
 * @param device the `device` entry: name, kind, system, arch, cpu, emulated, runtimes.
 */
fun runJob(job: Job, runtimes: Runtimes, device: JSONObject, progress: (String) -> Unit = {}): JSONObject {
    val rows = JSONArray()
    val bundle = runCatching { Bundle.read(job.bundle) }
    for (path in job.files) {
        progress(path)
        rows.put(
            try {
                row(job, bundle.getOrThrow(), path, runtimes)
            } catch (error: OutOfMemoryError) {
                failed(job, path, "not enough memory for $path: close other apps or use a smaller model")
            } catch (error: Exception) {
                failed(job, path, error.message ?: error.toString())
            } catch (error: LinkageError) {
                failed(job, path, "the runtime cannot be loaded: ${error.message}")
            },
        )
    }
    return JSONObject().put("schema_version", JOB_SCHEMA_VERSION).put("device", device).put("rows", rows)
}

private fun failed(job: Job, path: String, error: String): JSONObject = JSONObject()
    .put("path", path).put("sha256", "").put("target", "").put("precision", "")
    .put("load_ms", JSONObject.NULL).put("first_ms", JSONObject.NULL).put("threads", job.threads)
    .put("programs", JSONObject()).put("total", JSONObject.NULL).put("peak_bytes", JSONObject.NULL)
    .put("parity", JSONObject()).put("output_sha256", JSONObject()).put("error", error)

private fun row(job: Job, bundle: Bundle, path: String, runtimes: Runtimes): JSONObject {
    val artifact = bundle.artifacts.find { it.path == path }
        ?: throw JobException("${bundle.folder.name} has no file $path: name one of its manifest")
    val start = System.nanoTime()
    return runtimes.open(bundle, artifact, job.threads).use { programs ->
        val loadMs = (System.nanoTime() - start) / 1e6
        val timing = if (job.protocol.runs > 0) measure(bundle, programs, job.protocol) else null
        val parity = if (job.parity) goldenParity(bundle, programs) else null
        parity?.outputs?.forEach { (name, out) ->
            check(out.all(Float::isFinite)) { "$name of $path gives values that are not finite" }
        }
        JSONObject()
            .put("path", artifact.path)
            .put("sha256", artifact.sha256)
            .put("target", artifact.target)
            .put("precision", artifact.precision)
            .put("load_ms", loadMs)
            .put("first_ms", timing?.firstMs ?: JSONObject.NULL)
            .put("threads", job.threads)
            .put("programs", timing?.programs.orEmpty().toJson(::latency))
            .put("total", timing?.total?.let(::latency) ?: JSONObject.NULL)
            .put("peak_bytes", peakBytes() ?: JSONObject.NULL)
            // Equal to the last bit is no finite number of decibels.
            .put("parity", parity?.decibels.orEmpty().toJson { if (it == Double.POSITIVE_INFINITY) JSONObject.NULL else it })
            .put("output_sha256", parity?.outputs.orEmpty().toJson { sha256(it) })
            .put("error", JSONObject.NULL)
    }
}

private fun latency(latency: Latency): JSONObject = JSONObject()
    .put("median_ms", latency.median).put("p90_ms", latency.p90).put("runs_ms", JSONArray(latency.runs))

private fun <T> Map<String, T>.toJson(value: (T) -> Any): JSONObject =
    JSONObject().also { out -> forEach { (name, entry) -> out.put(name, value(entry)) } }

/** Largest resident size of this process so far in bytes, or null where the system does not say. */
fun peakBytes(): Long? = runCatching {
    File("/proc/self/status").readLines().first { it.startsWith("VmHWM:") }.filter(Char::isDigit).toLong() * 1024
}.getOrNull()

/**
 * Write [text] to [file] whole or not at all.
 *
 * @throws IOException the place cannot be written.
 */
fun writeWhole(file: File, text: String) {
    val staged = File(file.absoluteFile.parentFile, ".${file.name}.part")
    staged.writeText(text)
    if (!staged.renameTo(file)) throw IOException("${file.path} cannot be written")
}
