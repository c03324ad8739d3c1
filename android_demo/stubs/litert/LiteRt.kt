/**
 * The part of LiteRT's public Kotlin API that the app calls, without anything behind it.
 *
 * `com.google.ai.edge.litert:litert` cannot be had everywhere that the app is compiled. Where it cannot, its use is
 * type-checked against this file, written from the documented signatures of version 2; none of it is packed.
 */
@file:Suppress("UNUSED_PARAMETER", "unused")

package com.google.ai.edge.litert

private fun absent(): Nothing = throw UnsupportedOperationException("compiled without LiteRT")

enum class Accelerator { NONE, CPU, GPU, NPU }

abstract class JniHandle internal constructor() : AutoCloseable {
    override fun close(): Unit = absent()
}

class Environment private constructor() : JniHandle()

class TensorBuffer internal constructor() : JniHandle() {
    fun writeFloat(data: FloatArray): Unit = absent()

    fun readFloat(): FloatArray = absent()
}

class CompiledModel private constructor() : JniHandle() {
    data class CpuOptions(
        val numThreads: Int? = null,
        val xnnPackFlags: Int? = null,
        val xnnPackWeightCachePath: String? = null,
    )

    class Options(vararg accelerators: Accelerator) {
        var cpuOptions: CpuOptions? = null
    }

    fun createInputBuffer(inputName: String, signature: String? = null): TensorBuffer = absent()

    fun createOutputBuffer(outputName: String, signature: String? = null): TensorBuffer = absent()

    fun run(
        inputs: Map<String, TensorBuffer>,
        outputs: Map<String, TensorBuffer>,
        signature: String? = null,
    ): Unit = absent()

    companion object {
        @JvmStatic
        @JvmOverloads
        fun create(
            filePath: String,
            options: Options = Options(Accelerator.CPU),
            optionalEnv: Environment? = null,
        ): CompiledModel = absent()
    }
}
