/** Photographs in and out of the phone: decoded upright, saved to the gallery, taken with the camera app. */
package org.elir.mobile.demo

import android.content.ContentResolver
import android.content.ContentValues
import android.content.Context
import android.graphics.Bitmap
import android.graphics.BitmapFactory
import android.media.ExifInterface
import android.net.Uri
import android.os.Build
import android.provider.MediaStore
import java.io.File
import java.io.IOException
import org.elir.mobile.core.Exif
import org.elir.mobile.core.Picture
import org.elir.mobile.core.WithSegment
import org.elir.mobile.runtimes.toBitmap
import org.elir.mobile.runtimes.toPicture

private const val MIN_SIDE = 32 // below this nothing is left to restore
private const val SHOWN_SIDE = 2048 // of bitmaps on the screen: larger ones exceed what a canvas takes
private const val JPEG_QUALITY = 95

// Of android.provider.MediaStore from Android 10 on, which this is not compiled against everywhere.
private const val RELATIVE_PATH = "relative_path"
private const val IS_PENDING = "is_pending"

/** A photograph or its place cannot be used; the message is one sentence that says what to do. */
class PhotoException(message: String, cause: Throwable? = null) : Exception(message, cause)

/**
 * Copy the photograph at [uri] to [copy] and decode it: EXIF and the two passes of the decoder need a file. What was there
 * stays if that fails.
 *
 * @throws PhotoException see [decodePhoto].
 */
fun loadPhoto(context: Context, uri: Uri, copy: File, maxPixels: Long): Picture = try {
    val staged = File(copy.path + ".part")
    val stream = context.contentResolver.openInputStream(uri) ?: throw IOException("no content")
    stream.use { from -> staged.outputStream().use { from.copyTo(it) } }
    decodePhoto(staged, maxPixels).also { staged.renameTo(copy) }
} catch (error: IOException) {
    throw PhotoException("This photo cannot be read: pick another", error)
} catch (error: SecurityException) {
    throw PhotoException("This photo may not be read: pick it again", error)
}

/**
 * The photograph in [file], upright, with at most [maxPixels] pixels: larger ones are halved while decoding.
 *
 * @throws PhotoException it is no image, or too small.
 */
fun decodePhoto(file: File, maxPixels: Long): Picture {
    val options = BitmapFactory.Options().apply { inJustDecodeBounds = true }
    BitmapFactory.decodeFile(file.path, options)
    if (options.outWidth < MIN_SIDE || options.outHeight < MIN_SIDE) {
        throw PhotoException("This is not an image of at least $MIN_SIDE pixels a side: pick another")
    }
    options.inJustDecodeBounds = false
    options.inSampleSize = 1
    val pixels = options.outWidth.toLong() * options.outHeight
    while (pixels / options.inSampleSize / options.inSampleSize > maxPixels) options.inSampleSize *= 2
    val bitmap = BitmapFactory.decodeFile(file.path, options)
        ?: throw PhotoException("This photo cannot be read: pick another")
    val orientation = ExifInterface(file.path).getAttributeInt(ExifInterface.TAG_ORIENTATION, 1)
    return bitmap.toPicture(orientation).also { bitmap.recycle() }
}

/** What the photograph in [file] says beside its colours; null: nothing. */
fun readExif(file: File): Exif? = try {
    file.inputStream().use(Exif::read)
} catch (error: IOException) {
    null
}

/** Write [picture] to [file] whole or not at all, without loss. */
fun keepPicture(picture: Picture, file: File) {
    val staged = File(file.path + ".part")
    val bitmap = picture.toBitmap()
    staged.outputStream().use { bitmap.compress(Bitmap.CompressFormat.PNG, 100, it) }
    bitmap.recycle()
    staged.renameTo(file)
}

/** [picture] as a bitmap no larger than the screen can show. */
fun toShownBitmap(picture: Picture): Bitmap {
    val whole = picture.toBitmap()
    val scale = SHOWN_SIDE.toFloat() / maxOf(picture.width, picture.height)
    if (scale >= 1) return whole
    val width = maxOf(1, (picture.width * scale).toInt())
    val height = maxOf(1, (picture.height * scale).toInt())
    return Bitmap.createScaledBitmap(whole, width, height, true).also { if (it !== whole) whole.recycle() }
}

/** An empty picture of the gallery, to be filled; named [name]. */
fun newGalleryEntry(context: Context, name: String): Uri {
    val values = ContentValues().apply {
        put(MediaStore.MediaColumns.DISPLAY_NAME, name)
        put(MediaStore.MediaColumns.MIME_TYPE, "image/jpeg")
        if (Build.VERSION.SDK_INT >= 29) put(RELATIVE_PATH, "Pictures/ELIR")
    }
    return context.contentResolver.insert(MediaStore.Images.Media.EXTERNAL_CONTENT_URI, values)
        ?: throw PhotoException("The gallery takes no new picture: free some space")
}

/**
 * Save [picture] to the gallery as a JPEG called [name], with what [exif] says of the photograph it was made from.
 *
 * @throws PhotoException the gallery does not take it.
 */
fun savePhoto(context: Context, picture: Picture, exif: Exif?, name: String): Uri {
    val resolver = context.contentResolver
    val uri = newGalleryEntry(context, name)
    try {
        setPending(resolver, uri, true)
        val file = resolver.openOutputStream(uri) ?: throw IOException("no content")
        val stream = if (exif == null) file else WithSegment(file.buffered(), exif.segment(picture.width, picture.height))
        val bitmap = picture.toBitmap()
        val written = stream.use { bitmap.compress(Bitmap.CompressFormat.JPEG, JPEG_QUALITY, it) }
        bitmap.recycle()
        if (!written) throw IOException("not written")
        setPending(resolver, uri, false)
        return uri
    } catch (error: Throwable) { // an OutOfMemoryError, too, must leave no empty picture behind
        resolver.delete(uri, null, null)
        if (error is IOException) throw PhotoException("The picture cannot be saved: free some space", error)
        throw error
    }
}

private fun setPending(resolver: ContentResolver, uri: Uri, pending: Boolean) {
    if (Build.VERSION.SDK_INT < 29) return
    resolver.update(uri, ContentValues().apply { put(IS_PENDING, if (pending) 1 else 0) }, null, null)
}
