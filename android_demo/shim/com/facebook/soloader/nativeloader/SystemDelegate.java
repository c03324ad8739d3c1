package com.facebook.soloader.nativeloader;

/** Loads libraries with {@link System#loadLibrary}. */
public class SystemDelegate implements NativeLoaderDelegate {
  @Override
  public boolean loadLibrary(String shortName) {
    System.loadLibrary(shortName);
    return true;
  }
}
