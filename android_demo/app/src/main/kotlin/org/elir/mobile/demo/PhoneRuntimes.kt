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
        val file = bundle.file(artifact)
        return try {
            when (artifact.runtime) {
                "executorch" -> ExecuTorchPrograms(file, bundle, threads)
                "litert" -> LiteRtPrograms(file, threads)
                else -> throw RuntimeMissingException("${artifact.target} files do not run on Android: choose another")
            }
        } catch (error: LinkageError) { // its classes or its library are not in this build
            throw RuntimeMissingException("This build has no ${artifact.runtime}: build it with Gradle, or choose another")
        } catch (error: RuntimeMissingException) {
            throw error
        } catch (error: Exception) {
            throw IllegalStateException("${artifact.path} cannot be loaded (${error.message}): export it again", error)
        }
    }
}
