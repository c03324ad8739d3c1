package ai.onnxruntime;

import java.util.List;

/**
 * The part of ONNX Runtime 1.32.0's Java API that the app calls, without anything behind it.
 *
 * <p>Declared as of ONNX Runtime about 1.24, with all public overloads of what is called; not compared with 1.32.0. None of
 * it is packed.
 */
public final class OrtEnvironment implements AutoCloseable {
  static final UnsatisfiedLinkError ABSENT = new UnsatisfiedLinkError("compiled without ONNX Runtime");

  private OrtEnvironment() {}

  public static OrtEnvironment getEnvironment() {
    throw ABSENT;
  }

  public static OrtEnvironment getEnvironment(String name) {
    throw ABSENT;
  }

  public OrtSession createSession(String modelPath) throws OrtException {
    throw ABSENT;
  }

  public OrtSession createSession(String modelPath, OrtSession.SessionOptions options) throws OrtException {
    throw ABSENT;
  }

  public OrtSession createSession(byte[] modelArray, OrtSession.SessionOptions options) throws OrtException {
    throw ABSENT;
  }

  public void registerExecutionProviderLibrary(String registrationName, String libraryPath) throws OrtException {
    throw ABSENT;
  }

  public List<OrtEpDevice> getEpDevices() throws OrtException {
    throw ABSENT;
  }

  @Override
  public void close() {}
}
