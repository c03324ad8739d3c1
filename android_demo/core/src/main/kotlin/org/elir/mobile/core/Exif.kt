/**
 * What a photograph's file says of when, where and with what it was taken, for the file of the restored one.
 *
 * The tags of a JPEG's or a PNG's EXIF block are written anew (EXIF 3.0; TIFF 6.0): whatever is damaged is left out, and
 * so is what describes the stored pixels, the thumbnail and the orientation among them, since it is over once they are
 * read. Sizes and colour space are those of what is saved. `elir_mobile/metadata.py` keeps the same tags. Nothing here
 * trusts the file: every offset and length is held against the block.
 */
package org.elir.mobile.core

import java.io.ByteArrayOutputStream
import java.io.DataInputStream
import java.io.EOFException
import java.io.FilterOutputStream
import java.io.InputStream
import java.io.OutputStream
import java.nio.BufferUnderflowException
import java.nio.ByteBuffer
import java.nio.ByteOrder

private const val EXIF_IFD = 0x8769
private const val GPS_IFD = 0x8825
private const val INTEROP_IFD = 0xA005 // says the colour space of the stored pixels
private const val COLOUR_SPACE = 0xA001
private const val PIXEL_WIDTH = 0xA002
private const val PIXEL_HEIGHT = 0xA003
private const val SHORT = 3
private const val LONG = 4

/** Bytes of a value of each type, from 1 on. */
private val SIZES = intArrayOf(1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8)

/** The tags of the first directory that say how pixels are stored, or point elsewhere; profile and XMP stand beside EXIF. */
private val PIXEL_TAGS: Set<Int> = listOf(
    254..259, 262..266, 273..273, 274..274, 277..281, 284..284, 288..293, 297..297, 301..301, 317..325, 330..330, 332..334,
    336..342, 347..347, 512..521, 529..532, 700..700, 34377..34377, 34675..34675, EXIF_IFD..EXIF_IFD, GPS_IFD..GPS_IFD,
).flatten().toSet()
private val EXIF_TAGS_LEFT = setOf(INTEROP_IFD, COLOUR_SPACE, PIXEL_WIDTH, PIXEL_HEIGHT)

private val EXIF_HEAD = "Exif\u0000\u0000".toByteArray(Charsets.ISO_8859_1)
private val PNG_HEAD = byteArrayOf(0x89.toByte(), 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A)
private const val MOST = 65533 // bytes of a JPEG segment, less its length
private const val MOST_READ = 1 shl 24 // a PNG's block may be of any size

/** A tag: [values] are as they stand in the file, in its byte order. */
private class Tag(val number: Int, val type: Int, val count: Int, val values: ByteArray)

/** The tags that are kept of a photograph. */
class Exif private constructor(
    private val order: ByteOrder,
    private val main: List<Tag>,
    private val own: List<Tag>,
    private val gps: List<Tag>,
) {
    /**
     * The segment for a JPEG of [width]×[height] pixels in sRGB, from its marker on. If all of it does not fit into one, the
     * largest values are left out.
     */
    fun segment(width: Int, height: Int): ByteArray {
        val about = own + Tag(COLOUR_SPACE, SHORT, 1, number(1, 2)) +
            Tag(PIXEL_WIDTH, LONG, 1, number(width, 4)) + Tag(PIXEL_HEIGHT, LONG, 1, number(height, 4))
        val all = (main + about + gps).sortedBy { it.values.size }.toMutableList()
        var block = block(main, about, gps)
        while (EXIF_HEAD.size + block.size > MOST) {
            all.removeAt(all.lastIndex)
            block = listOf(main, about, gps).map { tags -> tags.filter { it in all } }.let { (m, o, g) -> block(m, o, g) }
        }
        val length = 2 + EXIF_HEAD.size + block.size
        return byteArrayOf(0xFF.toByte(), 0xE1.toByte(), (length shr 8).toByte(), length.toByte()) + EXIF_HEAD + block
    }

    private fun number(value: Int, size: Int): ByteArray = ByteBuffer.allocate(size).order(order).apply {
        if (size == 2) putShort(value.toShort()) else putInt(value)
    }.array()

    /** A TIFF file without pixels: the first directory, its values, and then the same of the two others. */
    private fun block(main: List<Tag>, own: List<Tag>, gps: List<Tag>): ByteArray {
        fun size(tags: List<Tag>) = 2 + 12 * tags.size + 4 + tags.sumOf { if (it.values.size > 4) it.values.size + it.values.size % 2 else 0 }
        val first = 8 + size(main) + 12 * listOf(own, gps).count { it.isNotEmpty() }
        val pointers = listOfNotNull(
            Tag(EXIF_IFD, LONG, 1, number(first, 4)).takeIf { own.isNotEmpty() },
            Tag(GPS_IFD, LONG, 1, number(first + size(own), 4)).takeIf { gps.isNotEmpty() },
        )
        val out = ByteBuffer.allocate(first + size(own) + size(gps)).order(order)
        out.put(if (order == ByteOrder.LITTLE_ENDIAN) "II".toByteArray() else "MM".toByteArray())
        out.putShort(42).putInt(8)
        for (tags in listOf(main + pointers, own, gps)) if (tags.isNotEmpty()) directory(out, tags.sortedBy { it.number })
        return out.array().copyOf(out.position())
    }

    private fun directory(out: ByteBuffer, tags: List<Tag>) {
        out.putShort(tags.size.toShort())
        var place = out.position() + 12 * tags.size + 4
        for (tag in tags) {
            out.putShort(tag.number.toShort()).putShort(tag.type.toShort()).putInt(tag.count)
            if (tag.values.size <= 4) {
                out.put(tag.values.copyOf(4))
            } else {
                out.putInt(place)
                place += tag.values.size + tag.values.size % 2
            }
        }
        out.putInt(0) // no further directory, and so no thumbnail
        for (tag in tags) if (tag.values.size > 4) out.put(tag.values).put(ByteArray(tag.values.size % 2))
    }

    companion object {
        /** What is kept of the JPEG or PNG in [file]; null: it says nothing, or nothing that can be read. */
        fun read(file: InputStream): Exif? = try {
            val stream = DataInputStream(file.buffered())
            val head = ByteArray(2).also(stream::readFully)
            when {
                head[0] == 0xFF.toByte() && head[1] == 0xD8.toByte() -> ofJpeg(stream)
                head[0] == PNG_HEAD[0] && head[1] == PNG_HEAD[1] -> ofPng(stream)
                else -> null
            }?.let(::parsed)
        } catch (error: EOFException) {
            null
        }

        /** The block of a JPEG, whose segments stand before its scan (ITU-T T.81, annex B). */
        private fun ofJpeg(stream: DataInputStream): ByteArray? {
            while (true) {
                if (stream.readUnsignedByte() != 0xFF) return null
                var marker = stream.readUnsignedByte()
                while (marker == 0xFF) marker = stream.readUnsignedByte()
                if (marker == 0xDA || marker == 0xD9) return null
                if (marker == 0x01 || marker in 0xD0..0xD7) continue // without a length
                val data = ByteArray(maxOf(0, stream.readUnsignedShort() - 2)).also(stream::readFully)
                val isExif = marker == 0xE1 && data.size > EXIF_HEAD.size &&
                    data.copyOf(EXIF_HEAD.size).contentEquals(EXIF_HEAD)
                if (isExif) return data.copyOfRange(EXIF_HEAD.size, data.size)
            }
        }

        /** The block of a PNG's eXIf chunk (PNG, third edition, 11.3.4.5), which may stand behind the pixels. */
        private fun ofPng(stream: DataInputStream): ByteArray? {
            stream.readFully(ByteArray(PNG_HEAD.size - 2))
            while (true) {
                val length = stream.readInt()
                val name = ByteArray(4).also(stream::readFully).toString(Charsets.ISO_8859_1)
                if (name == "IEND" || length < 0) return null
                if (name == "eXIf" && length <= MOST_READ) return ByteArray(length).also(stream::readFully)
                skip(stream, length + 4L)
            }
        }

        private fun skip(stream: InputStream, count: Long) {
            var left = count
            while (left > 0) {
                val skipped = stream.skip(left)
                if (skipped > 0) left -= skipped else if (stream.read() < 0) throw EOFException() else left--
            }
        }

        private fun parsed(bytes: ByteArray): Exif? = try {
            val order = when (bytes.copyOf(2).toString(Charsets.ISO_8859_1)) {
                "II" -> ByteOrder.LITTLE_ENDIAN
                "MM" -> ByteOrder.BIG_ENDIAN
                else -> return null
            }
            val block = ByteBuffer.wrap(bytes).order(order)
            if (block.getShort(2).toInt() != 42) return null
            val (main, pointers) = tags(block, block.getInt(4)).partition { it.number !in PIXEL_TAGS }
            fun behind(pointer: Int) = pointers.find { it.number == pointer && it.type == LONG && it.count == 1 }
                ?.let { tags(block, ByteBuffer.wrap(it.values).order(order).getInt()) }.orEmpty()
            val own = behind(EXIF_IFD).filter { it.number !in EXIF_TAGS_LEFT }
            val gps = behind(GPS_IFD)
            Exif(order, main, own, gps).takeIf { (main + own + gps).isNotEmpty() }
        } catch (error: BufferUnderflowException) {
            null
        } catch (error: IndexOutOfBoundsException) {
            null
        }

        /** The tags of the directory at [place] that lie within the block, each number once. */
        private fun tags(block: ByteBuffer, place: Int): List<Tag> {
            if (place < 8 || place + 2 > block.limit()) return emptyList()
            val count = block.getShort(place).toInt() and 0xFFFF
            return (0 until count).map { place + 2 + 12 * it }.takeWhile { it + 12 <= block.limit() }.mapNotNull { at ->
                val type = block.getShort(at + 2).toInt() and 0xFFFF
                val number = block.getInt(at + 4)
                val bytes = SIZES.getOrNull(type - 1)?.let { it.toLong() * number } ?: return@mapNotNull null
                val from = if (bytes <= 4) at + 8 else block.getInt(at + 8)
                if (number <= 0 || from < 0 || from + bytes > block.limit()) return@mapNotNull null
                val values = block.array().copyOfRange(from, (from + bytes).toInt())
                Tag(block.getShort(at).toInt() and 0xFFFF, type, number, values)
            }.distinctBy { it.number }
        }
    }
}

/** Puts [segment] right behind the first two bytes, a JPEG's start, of what is written to [out]. */
class WithSegment(out: OutputStream, private val segment: ByteArray) : FilterOutputStream(out) {
    private val head = ByteArrayOutputStream(2)

    override fun write(byte: Int) = write(byteArrayOf(byte.toByte()), 0, 1)

    override fun write(bytes: ByteArray, from: Int, count: Int) {
        val missing = minOf(2 - head.size(), count)
        if (missing > 0) {
            head.write(bytes, from, missing)
            out.write(bytes, from, missing)
            if (head.size() == 2) out.write(segment)
        }
        val start = from + maxOf(0, missing)
        if (start < from + count) out.write(bytes, start, from + count - start)
    }
}
