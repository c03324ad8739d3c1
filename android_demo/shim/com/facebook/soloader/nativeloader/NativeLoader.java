package com.facebook.soloader.nativeloader;

/**
 * The three calls of SoLoader's NativeLoader that ExecuTorch's Java classes make.
 *
 * <p>Only the build without Gradle packs the classes of this folder; Gradle resolves the real ones.
 */
public final class NativeLoader {
  private static NativeLoaderDelegate delegate;

  private NativeLoader() {}

  public static synchronized boolean isInitialized() {
    return delegate != null;
  }

  public static synchronized void init(NativeLoaderDelegate chosen) {
    delegate = chosen;
  }

  public static boolean loadLibrary(String shortName) {
    return delegate.loadLibrary(shortName);
  }
}
