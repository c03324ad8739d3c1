package ai.onnxruntime;

/** See {@link OrtEnvironment}. */
public abstract class OnnxTensorLike implements OnnxValue {
  OnnxTensorLike() {}
}
