/** Work that was asked for while something else runs: nothing of it is lost, and nothing is done twice. */
package org.elir.mobile.core

/** First in, first out; of two things called the same the later one counts, in the place of the earlier. */
class Waiting<Work> {
    private val works = LinkedHashMap<String, Work>()

    /** What waits, in order. */
    val names: List<String> get() = works.keys.toList()

    /** Add [work] called [name]. */
    fun add(name: String, work: Work) {
        works[name] = work
    }

    /** What is to be done next, which waits no longer; null: nothing. */
    fun next(): Work? = works.keys.firstOrNull()?.let(works::remove)
}
