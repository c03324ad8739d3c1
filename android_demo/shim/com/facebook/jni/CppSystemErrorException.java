package com.facebook.jni;

/** A std::system_error of C++ code; thrown by libfbjni.so. */
public class CppSystemErrorException extends CppException {
  private final int mErrorCode;

  public CppSystemErrorException(String message, int errorCode) {
    super(message);
    mErrorCode = errorCode;
  }

  public int getErrorCode() {
    return mErrorCode;
  }
}
