package android.view;

import android.graphics.Insets;

/**
 * What the app calls of this class as of API 30; only to compile against a platform whose own is older.
 *
 * <p>It comes before the platform on the classpath and is never packed: a phone has its own.
 */
public final class WindowInsets {
  private WindowInsets() {}

  public native Insets getInsets(int typeMask);

  /** Kinds of insets. */
  public static final class Type {
    private Type() {}

    public static native int systemBars();

    public static native int displayCutout();
  }
}
