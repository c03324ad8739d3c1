/** A `.tflite` file with LiteRT's CompiledModel: the signatures `encode`, `step` and `decode`. */
package org.elir.mobile.runtimes

import com.google.ai.edge.litert.Accelerator
import com.google.ai.edge.litert.CompiledModel
import com.google.ai.edge.litert.TensorBuffer
import java.io.File
import org.elir.mobile.core.Programs

/**
 * On [accelerator] as a whole, the CPU with so many [threads]. With the CPU as its second choice LiteRT would run there
 * without a word where another chip does not take the file.
 */
class LiteRtPrograms(file: File, accelerator: Accelerator, threads: Int) : Programs {
    private val model = CompiledModel.create(
        file.path,
        CompiledModel.Options(accelerator).apply {
            if (accelerator == Accelerator.CPU) cpuOptions = CompiledModel.CpuOptions(numThreads = threads)
        },
    )
    private val signatures = try {
        mapOf("encode" to 1, "step" to 2, "decode" to 1).mapValues { (name, inputs) -> Signature(name, inputs) }
    } catch (error: Exception) {
        model.close()
        throw error
    }

    override fun encode(image: FloatArray) = signatures.getValue("encode").run(image)

    override fun step(latent: FloatArray, row: FloatArray) = signatures.getValue("step").run(latent, row)

    override fun decode(latent: FloatArray) = signatures.getValue("decode").run(latent)

    override fun close() {
        signatures.values.forEach(Signature::close)
        model.close()
    }

    /** One signature with its buffers; the converter calls inputs `args_0`, `args_1` and the output `output_0`. */
    private inner class Signature(private val name: String, inputs: Int) {
        private val given: Map<String, TensorBuffer> =
            (0 until inputs).associate { "args_$it" to model.createInputBuffer("args_$it", name) }
        private val made: Map<String, TensorBuffer> = mapOf("output_0" to model.createOutputBuffer("output_0", name))

        fun run(vararg inputs: FloatArray): FloatArray {
            inputs.forEachIndexed { i, values -> given.getValue("args_$i").writeFloat(values) }
            model.run(given, made, name)
            return made.getValue("output_0").readFloat()
        }

        fun close() = (given.values + made.values).forEach(TensorBuffer::close)
    }
}
