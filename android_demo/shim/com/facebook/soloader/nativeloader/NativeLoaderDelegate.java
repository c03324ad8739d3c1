package com.facebook.soloader.nativeloader;

/** What loads a native library. */
public interface NativeLoaderDelegate {
  boolean loadLibrary(String shortName);
}
