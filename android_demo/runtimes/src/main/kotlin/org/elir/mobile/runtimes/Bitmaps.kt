/** Android's bitmaps to the core's pictures and back. */
package org.elir.mobile.runtimes

import android.graphics.Bitmap
import android.graphics.Color
import org.elir.mobile.core.COLOURS
import org.elir.mobile.core.Picture

/** This bitmap as a picture, turned upright by EXIF's [orientation]. */
fun Bitmap.toPicture(orientation: Int = 1): Picture = Picture.upright(width, height, orientation) { y, line ->
    getPixels(line, 0, line.size, 0, y, line.size, 1)
}

/** This picture as a bitmap. */
fun Picture.toBitmap(): Bitmap {
    val bitmap = Bitmap.createBitmap(width, height, Bitmap.Config.ARGB_8888)
    val line = IntArray(width)
    for (y in 0 until height) {
        for (x in line.indices) {
            val at = (y * width + x) * COLOURS
            fun channel(c: Int) = pixels[at + c].toInt() and 255
            line[x] = Color.rgb(channel(0), channel(1), channel(2))
        }
        bitmap.setPixels(line, 0, line.size, 0, y, line.size, 1)
    }
    return bitmap
}
