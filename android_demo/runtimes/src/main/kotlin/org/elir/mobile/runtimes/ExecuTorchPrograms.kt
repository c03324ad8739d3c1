/** A `.pte` file with ExecuTorch: the methods `encode`, `step` and `decode` of one module, mapped into memory. */
package org.elir.mobile.runtimes

import java.io.File
import org.elir.mobile.core.Bundle
import org.elir.mobile.core.COLOURS
import org.elir.mobile.core.Programs
import org.pytorch.executorch.EValue
import org.pytorch.executorch.Module
import org.pytorch.executorch.Tensor

class ExecuTorchPrograms(file: File, bundle: Bundle, threads: Int) : Programs {
    private val size = bundle.size.toLong()
    private val latent = longArrayOf(1, *bundle.latentShape.map(Int::toLong).toLongArray())
    private val module = Module.load(file.path, Module.LOAD_MODE_MMAP, threads)

    init {
        try {
            val found = module.getMethods() // no property: a function in Kotlin
            for (name in listOf("encode", "step", "decode")) {
                check(name in found) { "it has no method '$name'" }
                module.loadMethod(name)
            }
        } catch (error: RuntimeException) {
            module.destroy()
            throw error
        }
    }

    override fun encode(image: FloatArray) =
        run("encode", Tensor.fromBlob(image, longArrayOf(1, COLOURS.toLong(), size, size)))

    override fun step(latent: FloatArray, row: FloatArray) = run(
        "step",
        Tensor.fromBlob(latent, this.latent),
        Tensor.fromBlob(row, longArrayOf(1, row.size.toLong(), 1, 1)),
    )

    override fun decode(latent: FloatArray) = run("decode", Tensor.fromBlob(latent, this.latent))

    override fun close() = module.destroy()

    /** The output is copied: the runtime hands out memory that its next call overwrites. */
    private fun run(method: String, vararg inputs: Tensor): FloatArray {
        val values = Array(inputs.size) { EValue.from(inputs[it]) }
        return module.execute(method, *values)[0].toTensor().dataAsFloatArray
    }
}
