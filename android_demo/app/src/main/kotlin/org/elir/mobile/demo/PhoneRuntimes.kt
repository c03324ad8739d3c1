/** Which runtime opens which file on a phone, and what is said where there is none. */
package org.elir.mobile.demo

import org.elir.mobile.core.Artifact
import org.elir.mobile.core.Bundle
import org.elir.mobile.core.Programs
import org.elir.mobile.core.RuntimeMissingException
import org.elir.mobile.core.Runtimes

/** The runtimes that a phone can run, in the order in which they are offered. */
val PHONE_RUNTIMES = listOf("executorch", "litert")

object PhoneRuntimes : Runtimes {
    /** Whether this build has [runtime] inside. */
    fun has(runtime: String): Boolean = try {
        val name = if (runtime == "litert") "com.google.ai.edge.litert.CompiledModel" else "org.pytorch.executorch.Module"
        Class.forName(name, false, javaClass.classLoader)
        true
    } catch (error: ClassNotFoundException) {
        false
    }

    override fun open(bundle: Bundle, artifact: Artifact, threads: Int): Programs {
        val runtime = artifact.runtime
        if (runtime !in PHONE_RUNTIMES) {
            throw RuntimeMissingException("${artifact.target} files do not run on Android: choose another")
        }
        if (!has(runtime)) {
            throw RuntimeMissingException("This build has no $runtime: build it with Gradle, or choose another")
        }
        val file = bundle.file(artifact)
        return try {
            if (runtime == "executorch") ExecuTorchPrograms(file, bundle, threads) else LiteRtPrograms(file, threads)
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
