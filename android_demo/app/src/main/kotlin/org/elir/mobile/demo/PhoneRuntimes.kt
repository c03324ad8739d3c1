/** Which runtime opens which file on a phone, and what is said where there is none. */
package org.elir.mobile.demo

import org.elir.mobile.core.Artifact
import org.elir.mobile.core.Bundle
import org.elir.mobile.core.Programs
import org.elir.mobile.core.RuntimeMissingException
import org.elir.mobile.core.Runtimes

/** LiteRT's files for the GPU. */
const val GPU_TARGET = "litert/gpu"

object PhoneRuntimes : Runtimes {
    /** A class of what opens [artifact]; null: the app has no code for it. A `.pte` names its own delegate. */
    private fun opener(artifact: Artifact): String? = when {
        artifact.runtime == "executorch" -> "org.pytorch.executorch.Module"
        artifact.target == "litert" || artifact.target == GPU_TARGET -> "com.google.ai.edge.litert.CompiledModel"
        else -> null
    }

    /** Whether the app knows how to open [artifact]. */
    fun knows(artifact: Artifact): Boolean = opener(artifact) != null

    /** Whether this build also has the runtime inside. */
    fun has(artifact: Artifact): Boolean = try {
        opener(artifact)?.let { Class.forName(it, false, javaClass.classLoader) } != null
    } catch (error: ClassNotFoundException) {
        false
    }

    override fun open(bundle: Bundle, artifact: Artifact, threads: Int): Programs {
        val runtime = artifact.runtime
        if (!knows(artifact)) {
            throw RuntimeMissingException("${artifact.target} files do not run on Android: choose another")
        }
        if (!has(artifact)) {
            throw RuntimeMissingException("This build has no $runtime: build it with Gradle, or choose another")
        }
        val file = bundle.file(artifact)
        return try {
            when {
                runtime == "executorch" -> ExecuTorchPrograms(file, bundle, threads)
                artifact.target == GPU_TARGET -> LiteRtPrograms(file, threads = null)
                else -> LiteRtPrograms(file, threads)
            }
        } catch (error: LinkageError) { // its classes are inside, its native library or a part of it is not to be had
            val reason = refusals.getOrPut(runtime) { error.message ?: error.toString() }
            throw IllegalStateException("This phone cannot load $runtime ($reason): choose another runtime", error)
        } catch (error: Exception) {
            throw IllegalStateException("${artifact.path} cannot be loaded (${error.message}): export it again", error)
        }
    }

    /** What the system said when it first refused a runtime; later it says only that it did. */
    private val refusals = mutableMapOf<String, String>()
}
