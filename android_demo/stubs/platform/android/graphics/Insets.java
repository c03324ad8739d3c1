package android.graphics;

/** Distances from the sides, of API 29; only to compile against a platform that has none. */
public final class Insets {
  public final int left;
  public final int top;
  public final int right;
  public final int bottom;

  private Insets() {
    left = top = right = bottom = 0;
  }
}
