package ai.onnxruntime;

import java.nio.DoubleBuffer;
import java.nio.FloatBuffer;
import java.nio.IntBuffer;
import java.nio.LongBuffer;

/** See {@link OrtEnvironment}. */
public class OnnxTensor extends OnnxTensorLike {
  private OnnxTensor() {}

  public static OnnxTensor createTensor(OrtEnvironment env, Object data) throws OrtException {
    throw OrtEnvironment.ABSENT;
  }

  public static OnnxTensor createTensor(OrtEnvironment env, FloatBuffer data, long[] shape) throws OrtException {
    throw OrtEnvironment.ABSENT;
  }

  public static OnnxTensor createTensor(OrtEnvironment env, DoubleBuffer data, long[] shape) throws OrtException {
    throw OrtEnvironment.ABSENT;
  }

  public static OnnxTensor createTensor(OrtEnvironment env, IntBuffer data, long[] shape) throws OrtException {
    throw OrtEnvironment.ABSENT;
  }

  public static OnnxTensor createTensor(OrtEnvironment env, LongBuffer data, long[] shape) throws OrtException {
    throw OrtEnvironment.ABSENT;
  }

  public FloatBuffer getFloatBuffer() {
    throw OrtEnvironment.ABSENT;
  }

  @Override
  public void close() {}
}
