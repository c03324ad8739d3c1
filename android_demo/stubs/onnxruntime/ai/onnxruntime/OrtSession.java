package ai.onnxruntime;

import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/** See {@link OrtEnvironment}. */
public class OrtSession implements AutoCloseable {
  private OrtSession() {}

  public Result run(Map<String, ? extends OnnxTensorLike> inputs) throws OrtException {
    throw OrtEnvironment.ABSENT;
  }

  public Result run(Map<String, ? extends OnnxTensorLike> inputs, Set<String> requestedOutputs)
      throws OrtException {
    throw OrtEnvironment.ABSENT;
  }

  @Override
  public void close() throws OrtException {}

  /** Options of a session. */
  public static class SessionOptions implements AutoCloseable {
    public void setIntraOpNumThreads(int numThreads) throws OrtException {
      throw OrtEnvironment.ABSENT;
    }

    public void addConfigEntry(String configKey, String configValue) throws OrtException {
      throw OrtEnvironment.ABSENT;
    }

    public void addExecutionProvider(List<OrtEpDevice> devices, Map<String, String> providerOptions)
        throws OrtException {
      throw OrtEnvironment.ABSENT;
    }

    @Override
    public void close() {}
  }

  /** What a run gives. */
  public static class Result implements AutoCloseable, Iterable<Map.Entry<String, OnnxValue>> {
    Result() {}

    public OnnxValue get(int index) {
      throw OrtEnvironment.ABSENT;
    }

    public Optional<OnnxValue> get(String key) {
      throw OrtEnvironment.ABSENT;
    }

    @Override
    public Iterator<Map.Entry<String, OnnxValue>> iterator() {
      throw OrtEnvironment.ABSENT;
    }

    @Override
    public void close() {}
  }
}
