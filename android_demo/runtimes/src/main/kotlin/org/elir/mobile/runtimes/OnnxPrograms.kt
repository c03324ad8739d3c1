/** A folder with `encode.onnx`, `step.onnx` and `decode.onnx`, with ONNX Runtime on the processor or a Snapdragon's NPU. */
package org.elir.mobile.runtimes

import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtSession
import ai.onnxruntime.qnnpluginep.getEpName
import ai.onnxruntime.qnnpluginep.getLibraryPath
import java.io.File
import java.nio.FloatBuffer
import org.elir.mobile.core.Bundle
import org.elir.mobile.core.COLOURS
import org.elir.mobile.core.Programs

/**
 * On the processor with so many [threads], or [onNpu] as a whole: what the NPU does not take is an error, as in
 * `elir_mobile/runtimes/qnn.py`, and nothing is left to the processor. Qualcomm's compiler runs while such a file is opened.
 */
class OnnxPrograms(folder: File, bundle: Bundle, threads: Int, onNpu: Boolean) : Programs {
    private val image = longArrayOf(1, COLOURS.toLong(), bundle.size.toLong(), bundle.size.toLong())
    private val latent = longArrayOf(1, *bundle.latentShape.map(Int::toLong).toLongArray())
    private val environment = OrtEnvironment.getEnvironment()
    private val options = OrtSession.SessionOptions()
    private val sessions = mutableMapOf<String, OrtSession>()

    init {
        try {
            options.setIntraOpNumThreads(threads)
            if (onNpu) {
                options.addExecutionProvider(npu(environment), mapOf("backend_type" to "htp", "enable_htp_fp16_precision" to "1"))
                options.addConfigEntry("session.disable_cpu_ep_fallback", "1")
            }
            for (name in listOf("encode", "step", "decode")) {
                sessions[name] = environment.createSession(File(folder, "$name.onnx").path, options)
            }
        } catch (error: Throwable) {
            close()
            throw error
        }
    }

    override fun encode(image: FloatArray) = run("encode", "image" to tensor(image, this.image))

    override fun step(latent: FloatArray, row: FloatArray) = run(
        "step",
        "latent" to tensor(latent, this.latent),
        "row" to tensor(row, longArrayOf(1, row.size.toLong(), 1, 1)),
    )

    override fun decode(latent: FloatArray) = run("decode", "latent" to tensor(latent, this.latent))

    override fun close() {
        sessions.values.forEach(OrtSession::close)
        options.close()
    }

    private fun tensor(values: FloatArray, shape: LongArray) =
        OnnxTensor.createTensor(environment, FloatBuffer.wrap(values), shape)

    private fun run(name: String, vararg inputs: Pair<String, OnnxTensor>): FloatArray = try {
        sessions.getValue(name).run(mapOf(*inputs)).use { made ->
            val values = (made.get(0) as OnnxTensor).floatBuffer
            FloatArray(values.remaining()).also { values.get(it) }
        }
    } finally {
        inputs.forEach { it.second.close() }
    }

    private companion object {
        private var registered = false

        /** The devices of Qualcomm's plugin, which a process registers once. */
        @Synchronized
        private fun npu(environment: OrtEnvironment) = getEpName().let { name ->
            if (!registered) environment.registerExecutionProviderLibrary(name, getLibraryPath())
            registered = true
            environment.epDevices.filter { it.epName == name }.ifEmpty { error("this phone has no NPU that QNN knows") }
        }
    }
}
