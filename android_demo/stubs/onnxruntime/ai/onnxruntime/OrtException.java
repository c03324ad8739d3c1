package ai.onnxruntime;

/** See {@link OrtEnvironment}. */
public class OrtException extends Exception {
  public OrtException(String message) {
    super(message);
  }
}
