/** Which runtime opens which file on a phone, and what is said where there is none. */
package org.elir.mobile.runtimes

import com.google.ai.edge.litert.Accelerator
import org.elir.mobile.core.Artifact
import org.elir.mobile.core.Bundle
import org.elir.mobile.core.Detector
import org.elir.mobile.core.FaceNetworks
import org.elir.mobile.core.Programs
import org.elir.mobile.core.RuntimeMissingException
import org.elir.mobile.core.Runtimes

private const val EXECUTORCH = "org.pytorch.executorch.Module"
private const val LITERT = "com.google.ai.edge.litert.CompiledModel"

private const val ONNX = "ai.onnxruntime.OrtEnvironment"
private const val QNN = "ai.onnxruntime.qnnpluginep.QnnPluginEpLibraryKt" // its plugin for ONNX Runtime

/** LiteRT's files for the processor, the GPU and, compiled for one chip, Qualcomm's NPU. */
private val LITERT_TARGETS = listOf("litert", "litert/gpu", "litert/qnn")

object PhoneRuntimes : Runtimes {
    /** A class of what opens [artifact]; null: there is no code for it. A `.pte` names its own delegate. */
    private fun opener(artifact: Artifact): String? = when {
        artifact.runtime == "executorch" -> EXECUTORCH
        artifact.target in LITERT_TARGETS -> LITERT
        artifact.target == "onnx" -> ONNX
        artifact.target == "onnx/qnn" -> QNN
        else -> null
    }

    /** Whether there is code to open [artifact]. */
    fun knows(artifact: Artifact): Boolean = opener(artifact) != null

    /** Whether this build also has the runtime inside. */
    override fun has(artifact: Artifact): Boolean = opener(artifact)?.let(::isInside) == true

    /** Whether faces can be found. */
    val findsFaces: Boolean get() = isInside(LITERT)

    private fun isInside(name: String) = try {
        Class.forName(name, false, javaClass.classLoader)
        true
    } catch (error: ClassNotFoundException) {
        false
    }

    override fun open(bundle: Bundle, artifact: Artifact, threads: Int): Programs {
        val onNpu = artifact.target == "onnx/qnn"
        val runtime = if (onNpu) artifact.target else artifact.runtime
        if (!knows(artifact)) {
            throw RuntimeMissingException("${artifact.target} files do not run on Android: choose another")
        }
        if (!has(artifact)) {
            throw RuntimeMissingException("This build has no $runtime: build it with Gradle, or choose another")
        }
        val file = bundle.file(artifact)
        return loaded(runtime, artifact.path) {
            when {
                artifact.runtime == "onnx" -> OnnxPrograms(file, bundle, threads, onNpu)
                runtime == "executorch" -> ExecuTorchPrograms(file, bundle, threads)
                artifact.target == "litert/gpu" -> LiteRtPrograms(file, Accelerator.GPU, threads)
                artifact.target == "litert/qnn" -> LiteRtPrograms(file, Accelerator.NPU, threads)
                else -> LiteRtPrograms(file, Accelerator.CPU, threads)
            }
        }
    }

    override fun open(detector: Detector): FaceNetworks? =
        if (findsFaces) loaded("litert", detector.detect.name) { LiteRtFaces(detector) } else null

    private fun <T> loaded(runtime: String, path: String, load: () -> T): T = try {
        load()
    } catch (error: LinkageError) { // its classes are inside, its native library or a part of it is not to be had
        val reason = refusals.getOrPut(runtime) { error.message ?: error.toString() }
        throw IllegalStateException("This phone cannot load $runtime ($reason): choose another runtime", error)
    } catch (error: Exception) {
        throw IllegalStateException("$path cannot be loaded (${error.message}): export it again", error)
    }

    /** What the system said when it first refused a runtime; later it says only that it did. */
    private val refusals = mutableMapOf<String, String>()
}
