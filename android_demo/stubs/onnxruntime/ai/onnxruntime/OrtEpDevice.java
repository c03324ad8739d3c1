package ai.onnxruntime;

/** See {@link OrtEnvironment}. */
public final class OrtEpDevice {
  private OrtEpDevice() {}

  public String getEpName() {
    throw OrtEnvironment.ABSENT;
  }
}
