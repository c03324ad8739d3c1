/**
 * Which file of a bundle a phone runs: those that the manifest advises, the faster chip first, as far as they compute
 * here what they should.
 *
 * A GPU or an NPU may give zeros, or nearly, without an error, or end the app. So before a file is used for the first
 * time the golden vectors go through it, and what came of it is remembered.
 */
package org.elir.mobile.core

import java.io.File
import java.io.IOException
import java.util.concurrent.CancellationException
import org.json.JSONException
import org.json.JSONObject

/** Classes of device that a phone may be, as the manifest's advice calls them: the faster chip first. */
val PHONE_KINDS: List<String> = listOf("android-npu", "android-gpu", "android")

/** The files that the manifest advises and the app has [runtimes] for, the faster chip first; else one that it has. */
fun Bundle.advised(runtimes: Runtimes): List<Artifact> =
    PHONE_KINDS.mapNotNull(::recommended).distinct().filter(runtimes::has)
        .ifEmpty { artifacts.filter(runtimes::has).take(1) }

/**
 * What the golden vectors said of files on this phone, kept in [file].
 *
 * @param device what the verdicts hold for, drivers included; those on another one are forgotten.
 */
class Verdicts(private val file: File, private val device: String) {
    private val problems: JSONObject = try {
        JSONObject(file.readText()).takeIf { it.getString("device") == device }?.getJSONObject("problems")
    } catch (error: IOException) {
        null
    } catch (error: JSONException) {
        null
    } ?: JSONObject()

    /** What is known to speak against the file called [key]; empty: nothing, null: it was not asked. */
    operator fun get(key: String): String? = if (problems.has(key)) problems.getString(key) else null

    /** Find out by [check] what speaks against it. What [check] throws is no verdict; if it ends the app, that is one. */
    fun find(key: String, check: () -> String): String {
        keep(key, "it ended the app")
        return try {
            check()
        } catch (error: Throwable) {
            problems.remove(key)
            write()
            throw error
        }.also { keep(key, it) }
    }

    private fun keep(key: String, problem: String) {
        problems.put(key, problem)
        write()
    }

    private fun write() {
        val text = JSONObject().put("device", device).put("problems", problems).toString(1)
        runCatching { writeWhole(file, text) } // it is found out anew where nothing can be kept
    }
}

/** A file that is used, and a sentence for each that would have come before it. */
class Chosen(val artifact: Artifact, val programs: Programs, val passedOver: List<String>)

/**
 * The first of [files] that computes here what it should.
 *
 * Each must be as near to the float network as the last one must be, which is the processor's: it need not reach what the
 * same file did on the host, where nothing is rounded to float16.
 *
 * @param open loads a file; what it gave before is closed by then.
 * @throws IllegalStateException none of them does; the message says of each why.
 */
fun choose(bundle: Bundle, files: List<Artifact>, verdicts: Verdicts, open: (Artifact) -> Programs): Chosen {
    val passedOver = mutableListOf<String>()
    for (artifact in files) {
        val last = files.last()
        val key = "${artifact.sha256} within ${last.sha256}"
        val problem = try {
            verdicts[key].takeUnless { it.isNullOrEmpty() } ?: tried(open(artifact)) { programs ->
                val budgets = last.parity.takeIf { bundle.hasGolden }.orEmpty()
                val found = when {
                    artifact === last && budgets.isEmpty() -> ""
                    else -> verdicts[key] ?: verdicts.find(key) { shortOf(bundle, programs, budgets) }
                }
                if (found.isEmpty()) return Chosen(artifact, programs, passedOver)
                found
            }
        } catch (error: CancellationException) {
            throw error
        } catch (error: Exception) { // it cannot be loaded, or does not run
            error.message ?: error.toString()
        }
        passedOver += "${artifact.path} is not used on this phone: $problem"
    }
    throw IllegalStateException(passedOver.joinToString("; ").ifEmpty { "${bundle.folder.name} has no file for a phone" })
}

/** What [check] says of [programs], which are closed unless it returns from where it was written. */
private inline fun tried(programs: Programs, check: (Programs) -> String): String = try {
    check(programs)
} catch (error: Throwable) {
    programs.close()
    throw error
}.also { programs.close() }
