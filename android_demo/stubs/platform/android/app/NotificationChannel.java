package android.app;

/** What the app calls of this class, which is of API 26; see {@link android.view.WindowInsets}. */
public final class NotificationChannel {
  public NotificationChannel(String id, CharSequence name, int importance) {}
}
