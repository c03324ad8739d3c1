package android.app;

/** What the app calls of this class as of API 26; see {@link android.view.WindowInsets}. */
public class NotificationManager {
  public static final int IMPORTANCE_LOW = 2;

  public native void createNotificationChannel(NotificationChannel channel);

  public native void notify(int id, Notification notification);
}
