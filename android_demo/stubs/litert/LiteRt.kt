/**
 * The part of LiteRT 2.2.0's Kotlin API that the app calls, without anything behind it.
 *
 * `com.google.ai.edge.litert:litert` cannot be had everywhere that the app is compiled. Where it cannot, its use is
 * type-checked against this file: the signatures of version 2.2.0 as its sources under `litert/kotlin` declare them,
 * with all overloads of what is called. None of it is packed.
 */
@file:Suppress("UNUSED_PARAMETER", "unused")

package com.google.ai.edge.litert

import android.content.res.AssetManager

private fun absent(): Nothing = throw UnsatisfiedLinkError("compiled without LiteRT")

enum class Accelerator private constructor(val value: Int) {
    NONE(0),
    CPU(1),
    GPU(2),
    NPU(3),
}

abstract class JniHandle internal constructor() : AutoCloseable {
    protected abstract fun destroy()

    final override fun close(): Unit = absent()
}

class Environment private constructor() : JniHandle() {
    override fun destroy(): Unit = absent()
}

class TensorBuffer internal constructor() : JniHandle() {
    fun writeFloat(data: FloatArray): Unit = absent()

    fun readFloat(): FloatArray = absent()

    override fun destroy(): Unit = absent()
}

class CompiledModel private constructor() : JniHandle() {
    data class CpuOptions(
        val numThreads: Int? = null,
        val xnnPackFlags: Int? = null,
        val xnnPackWeightCachePath: String? = null,
    )

    class Options(internal val accelerators: Set<Accelerator>) {
        constructor(vararg accelerators: Accelerator) : this(setOf(*accelerators))

        var cpuOptions: CpuOptions? = null

        companion object {
            @JvmStatic val CPU = Options(Accelerator.CPU)
        }
    }

    fun createInputBuffer(inputName: String, signature: String = ""): TensorBuffer = absent()

    fun createOutputBuffer(outputName: String, signature: String = ""): TensorBuffer = absent()

    @JvmOverloads
    fun createInputBuffers(signatureIndex: Int = 0): List<TensorBuffer> = absent()

    fun createInputBuffers(signature: String): List<TensorBuffer> = absent()

    @JvmOverloads
    fun createOutputBuffers(signatureIndex: Int = 0): List<TensorBuffer> = absent()

    fun createOutputBuffers(signature: String): List<TensorBuffer> = absent()

    @JvmOverloads
    fun run(inputs: List<TensorBuffer>, signatureIndex: Int = 0): List<TensorBuffer> = absent()

    fun run(inputs: List<TensorBuffer>, signature: String): List<TensorBuffer> = absent()

    @JvmOverloads
    fun run(inputs: List<TensorBuffer>, outputs: List<TensorBuffer>, signatureIndex: Int = 0): Unit = absent()

    fun run(inputs: List<TensorBuffer>, outputs: List<TensorBuffer>, signature: String): Unit = absent()

    fun run(
        inputs: Map<String, TensorBuffer>,
        outputs: Map<String, TensorBuffer>,
        signature: String = "",
    ): Unit = absent()

    override fun destroy(): Unit = absent()

    companion object {
        @JvmStatic
        @JvmOverloads
        fun create(
            assetManager: AssetManager,
            assetName: String,
            options: Options = Options.CPU,
            optionalEnv: Environment? = null,
        ): CompiledModel = absent()

        @JvmStatic
        @JvmOverloads
        fun create(
            filePath: String,
            options: Options = Options.CPU,
            optionalEnv: Environment? = null,
        ): CompiledModel = absent()
    }
}
