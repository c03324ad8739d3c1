package ai.onnxruntime;

/** See {@link OrtEnvironment}. */
public interface OnnxValue extends AutoCloseable {
  @Override
  void close();
}
