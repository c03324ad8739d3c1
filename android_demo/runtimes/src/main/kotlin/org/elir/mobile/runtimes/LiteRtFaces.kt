/** The face detector's two networks with LiteRT, on one core: they are small. */
package org.elir.mobile.runtimes

import com.google.ai.edge.litert.Accelerator
import com.google.ai.edge.litert.CompiledModel
import com.google.ai.edge.litert.TensorBuffer
import java.io.File
import org.elir.mobile.core.Detector
import org.elir.mobile.core.FaceNetworks

class LiteRtFaces(detector: Detector) : FaceNetworks {
    private val detect = Network(detector.detect)
    private val mesh = try {
        Network(detector.mesh)
    } catch (error: Exception) {
        detect.close()
        throw error
    }

    override fun detect(x: FloatArray) = detect.run(x).let { (proposals, logits) -> proposals to logits }

    override fun mesh(x: FloatArray) = mesh.run(x).let { (points, logit) -> points to logit.single() }

    override fun close() {
        detect.close()
        mesh.close()
    }

    private class Network(file: File) {
        private val model = CompiledModel.create(
            file.path,
            CompiledModel.Options(Accelerator.CPU).apply { cpuOptions = CompiledModel.CpuOptions(numThreads = 1) },
        )
        private val given = model.createInputBuffers()
        private val made = model.createOutputBuffers()

        /** Both outputs, the larger one first. */
        fun run(x: FloatArray): List<FloatArray> {
            given.single().writeFloat(x)
            model.run(given, made)
            return made.map(TensorBuffer::readFloat).sortedByDescending { it.size }
        }

        fun close() {
            (given + made).forEach(TensorBuffer::close)
            model.close()
        }
    }
}
