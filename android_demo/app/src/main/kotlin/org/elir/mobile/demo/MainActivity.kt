/** The one window: what to restore with, and below it the Restore, Parity or Benchmark screen. */
package org.elir.mobile.demo

import android.Manifest
import android.app.Activity
import android.content.ActivityNotFoundException
import android.content.Intent
import android.content.pm.PackageManager
import android.content.res.Configuration
import android.net.Uri
import android.os.Build
import android.os.Bundle
import android.provider.MediaStore
import android.text.method.ScrollingMovementMethod
import android.view.View
import android.view.ViewGroup
import android.view.WindowInsets
import android.widget.AdapterView
import android.widget.ArrayAdapter
import android.widget.Button
import android.widget.CheckBox
import android.widget.LinearLayout
import android.widget.ProgressBar
import android.widget.SeekBar
import android.widget.Spinner
import android.widget.Switch
import android.widget.TableLayout
import android.widget.TextView

private const val PICK = 1
private const val TAKE = 2
private const val NOTIFICATIONS = 3
private const val POST_NOTIFICATIONS = "android.permission.POST_NOTIFICATIONS" // of API 33
private const val CAMERA_PLACE = "camera place"
private const val SCREEN = "screen"
private const val LIGHT_NAVIGATION_BAR = 0x10 // View.SYSTEM_UI_FLAG_LIGHT_NAVIGATION_BAR, which API 23 has not
private val TABS = listOf(R.id.tab_restore, R.id.tab_parity, R.id.tab_benchmark)

class MainActivity : Activity() {
    private lateinit var session: Session
    private var screen = R.id.tab_restore
    private var cameraPlace: Uri? = null
    private var afterPermission: () -> Unit = {}
    private val listener: () -> Unit = ::refresh

    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        setContentView(R.layout.main)
        keepClearOfBars(view(R.id.root))
        session = Session.of(this)
        cameraPlace = state?.getParcelable(CAMERA_PLACE)
        if (state == null && intent.action == Intent.ACTION_SEND) {
            intent.getParcelableExtra<Uri>(Intent.EXTRA_STREAM)?.let(session::open)
        }
        for (tab in TABS) button(tab) { show(tab) }
        text(R.id.message).movementMethod = ScrollingMovementMethod() // files passed over may be many
        button(R.id.cancel, session::cancel)
        onSelect(R.id.model) { session.choose(session.bundles.getOrNull(it)) }
        onSelect(R.id.target) { session.choose(targets().getOrNull(it), session.artifact?.precision) }
        onSelect(R.id.precision) { session.choose(session.artifact?.target, precisions().getOrNull(it)) }
        onSelect(R.id.steps) { session.steps = (session.bundle?.steps ?: 0) - it }
        show(state?.getInt(SCREEN) ?: R.id.tab_restore)
    }

    /**
     * From Android 15 on the window goes from edge to edge of the screen: its content keeps clear of the system's bars
     * and of a camera in the screen itself. Before, the system did that, and there is nothing left to keep clear of.
     */
    private fun keepClearOfBars(root: View) {
        val own = root.paddingLeft
        root.setOnApplyWindowInsetsListener { view, insets ->
            if (Build.VERSION.SDK_INT >= 30) {
                val covered = insets.getInsets(WindowInsets.Type.systemBars() or WindowInsets.Type.displayCutout())
                view.setPadding(own + covered.left, own + covered.top, own + covered.right, own + covered.bottom)
            }
            insets
        }
        // The buttons of the navigation bar lie on the app's background.
        if (Build.VERSION.SDK_INT >= 35 && resources.getBoolean(R.bool.light)) {
            window.decorView.systemUiVisibility = window.decorView.systemUiVisibility or LIGHT_NAVIGATION_BAR
        }
    }

    override fun onSaveInstanceState(state: Bundle) {
        super.onSaveInstanceState(state)
        state.putParcelable(CAMERA_PLACE, cameraPlace)
        state.putInt(SCREEN, screen)
    }

    override fun onStart() {
        super.onStart()
        session.onChange = listener
        refresh()
    }

    override fun onStop() {
        super.onStop()
        // Another window of the app may have started before this one stopped.
        if (session.onChange === listener) session.onChange = {}
    }

    override fun onConfigurationChanged(now: Configuration) {
        super.onConfigurationChanged(now)
        if (screen != R.id.tab_restore) return
        view(R.id.slider).minimumHeight = resources.getDimensionPixelSize(R.dimen.comparison) // less on its side
    }

    override fun onTrimMemory(level: Int) {
        super.onTrimMemory(level)
        session.trim()
    }

    private fun show(tab: Int) {
        screen = tab
        val place = view(R.id.screen) as ViewGroup
        place.removeAllViews()
        view(R.id.scroll).scrollTo(0, 0)
        layoutInflater.inflate(if (tab == R.id.tab_restore) R.layout.restore else R.layout.report, place)
        when (tab) {
            R.id.tab_restore -> showRestore()
            R.id.tab_parity -> showReport(R.string.parity_help, R.string.check, session::check)
            else -> showReport(R.string.benchmark_help, R.string.measure, session::measure)
        }
        refresh()
    }

    private fun showRestore() {
        button(R.id.pick, ::pick)
        button(R.id.take) { withStorage(::take) }
        button(R.id.restore) { withNotifications { session.restore() } }
        button(R.id.another) { withNotifications { session.restore(another = true) } }
        onSelect(R.id.background) { session.chooseBackground(session.backgrounds.getOrNull(it - 1)) }
        (view(R.id.fidelity) as SeekBar).setOnSeekBarChangeListener(object : SeekBar.OnSeekBarChangeListener {
            override fun onProgressChanged(bar: SeekBar, tenths: Int, byUser: Boolean) {
                if (byUser) session.chooseFidelity(tenths)
            }

            override fun onStartTrackingTouch(bar: SeekBar) = Unit

            override fun onStopTrackingTouch(bar: SeekBar) = Unit
        })
        button(R.id.save) { withStorage { session.save() } }
        button(R.id.share) { withStorage { session.save(::share) } }
        onSelect(R.id.part) { session.choosePart(session.parts[it]) }
        (view(R.id.slider) as SliderView).onRing = { session.chooseFace(it, it in session.left) }
    }

    private fun showReport(help: Int, start: Int, action: () -> Unit) {
        text(R.id.help).setText(help)
        (view(R.id.start) as Button).setText(start)
        button(R.id.start, action)
    }

    private fun refresh() {
        val bundle = session.bundle
        val artifact = session.artifact
        val models = session.bundles.map {
            val trained = if (it.trained) "" else ", untrained"
            "${it.task.title} · ${it.modelName}$trained · K=${it.steps}"
        }
        fill(R.id.model, models, session.bundles.indexOf(bundle))
        fill(R.id.target, targets(), targets().indexOf(artifact?.target))
        fill(R.id.precision, precisions(), precisions().indexOf(artifact?.precision))
        val steps = bundle?.steps ?: 0
        val counts = (steps downTo 0).map { if (it == steps) "$it" else "$it of $steps, stops underway" }
        fill(R.id.steps, counts, steps - session.steps)
        text(R.id.message).text = session.message
        val running = session.progress
        view(R.id.root).keepScreenOn = running != null
        text(R.id.time_left).text = session.secondsLeft?.let { getString(R.string.time_left, it) }.orEmpty()
        view(R.id.working).visibility = if (running == null) View.GONE else View.VISIBLE
        (view(R.id.progress) as ProgressBar).apply {
            max = 1000
            progress = running ?: 0
        }
        for (tab in TABS) view(tab).isSelected = tab == screen
        val idle = running == null && bundle != null
        when (screen) {
            R.id.tab_restore -> {
                (view(R.id.slider) as SliderView).show(session.before, session.after, session.rings)
                fill(R.id.part, session.parts.map { getString(it.title) }, session.parts.indexOf(session.part))
                val behind = session.backgrounds
                val titles = listOf(getString(R.string.background_none)) + behind.map { "${it.task.title} · ${it.modelName}" }
                fill(R.id.background, titles, behind.indexOf(session.background) + 1)
                val around = session.part == Part.FACES && behind.isNotEmpty()
                view(R.id.around).visibility = if (around) View.VISIBLE else View.GONE
                text(R.id.fidelity_text).text = getString(R.string.fidelity, session.fidelity * 10)
                (view(R.id.fidelity) as SeekBar).progress = session.fidelity
                (view(R.id.colours) as Switch).apply {
                    setOnCheckedChangeListener(null)
                    isChecked = session.keepsColours
                    setOnCheckedChangeListener { _, kept -> session.chooseColours(kept) }
                }
                for (id in listOf(R.id.fidelity, R.id.colours)) enable(id, idle)
                fillFaces(view(R.id.faces) as LinearLayout)
                for (id in listOf(R.id.pick, R.id.take)) enable(id, running == null)
                enable(R.id.restore, idle && session.before != null)
                for (id in listOf(R.id.another, R.id.save, R.id.share)) enable(id, idle && session.restored != null)
            }
            R.id.tab_parity -> {
                enable(R.id.start, idle)
                fillParity(view(R.id.rows) as TableLayout, session.checked)
                text(R.id.facts).text = session.reason?.let { getString(R.string.advised, it) }
            }
            else -> {
                enable(R.id.start, idle)
                fillBenchmark(view(R.id.rows) as TableLayout, session.benchmark)
                text(R.id.facts).text = describeDevice(this)
            }
        }
    }

    /** A box for each face beside its ring: boxes can be reached without sight and by keys. */
    private fun fillFaces(row: LinearLayout) {
        val rings = session.rings
        if (row.childCount != rings.size) {
            row.removeAllViews()
            for (number in rings.indices) {
                row.addView(CheckBox(this).apply { text = getString(R.string.face, number + 1) })
            }
        }
        rings.forEachIndexed { number, ring ->
            (row.getChildAt(number) as CheckBox).apply {
                setOnCheckedChangeListener(null)
                isChecked = ring.on
                isEnabled = session.progress == null
                setOnCheckedChangeListener { _, wanted -> session.chooseFace(number, wanted) }
            }
        }
    }

    private fun targets() = session.artifacts.map { it.target }.distinct()

    private fun precisions() = session.artifacts.filter { it.target == session.artifact?.target }.map { it.precision }

    private fun pick() {
        val intent = Intent(Intent.ACTION_GET_CONTENT).setType("image/*").addCategory(Intent.CATEGORY_OPENABLE)
        start(Intent.createChooser(intent, getString(R.string.pick)), PICK)
    }

    private fun take() {
        val place = try {
            newGalleryEntry(this, "photo-${System.currentTimeMillis()}.jpg")
        } catch (error: PhotoException) {
            return session.say(error.message.orEmpty())
        }
        cameraPlace = place
        val flags = Intent.FLAG_GRANT_WRITE_URI_PERMISSION or Intent.FLAG_GRANT_READ_URI_PERMISSION
        start(Intent(MediaStore.ACTION_IMAGE_CAPTURE).putExtra(MediaStore.EXTRA_OUTPUT, place).addFlags(flags), TAKE)
    }

    private fun share(uri: Uri) {
        val intent = Intent(Intent.ACTION_SEND).setType("image/jpeg").putExtra(Intent.EXTRA_STREAM, uri)
            .addFlags(Intent.FLAG_GRANT_READ_URI_PERMISSION)
        start(Intent.createChooser(intent, getString(R.string.share)), null)
    }

    private fun start(intent: Intent, request: Int?) {
        try {
            if (request == null) startActivity(intent) else startActivityForResult(intent, request)
        } catch (error: ActivityNotFoundException) {
            if (request == TAKE) dropCameraPlace()
            session.say("This phone has no app for that: install one")
        }
    }

    override fun onActivityResult(request: Int, result: Int, data: Intent?) {
        val uri = if (request == TAKE) cameraPlace else data?.data
        if (result != RESULT_OK || uri == null) {
            if (request == TAKE) dropCameraPlace()
            return
        }
        cameraPlace = null
        session.open(uri)
    }

    /** The camera took no photo: leave no empty picture in the gallery. */
    private fun dropCameraPlace() {
        cameraPlace?.let { contentResolver.delete(it, null, null) }
        cameraPlace = null
    }

    /** Before Android 10 adding a picture to the gallery needs the user's permission. */
    private fun withStorage(action: () -> Unit) {
        val permission = Manifest.permission.WRITE_EXTERNAL_STORAGE
        if (Build.VERSION.SDK_INT >= 29 || checkSelfPermission(permission) == PackageManager.PERMISSION_GRANTED) {
            return action()
        }
        afterPermission = action
        requestPermissions(arrayOf(permission), 0)
    }

    /**
     * From Android 13 on a notification needs the user's permission, which is asked for once: work goes on without it, too,
     * unseen.
     */
    private fun withNotifications(action: () -> Unit) {
        val asks = Build.VERSION.SDK_INT >= 33 && !session.askedForNotifications
        session.askedForNotifications = true
        if (!asks || checkSelfPermission(POST_NOTIFICATIONS) == PackageManager.PERMISSION_GRANTED) return action()
        afterPermission = action
        requestPermissions(arrayOf(POST_NOTIFICATIONS), NOTIFICATIONS)
    }

    override fun onRequestPermissionsResult(request: Int, permissions: Array<out String>, results: IntArray) {
        if (request == NOTIFICATIONS || results.firstOrNull() == PackageManager.PERMISSION_GRANTED) afterPermission()
        else session.say("Without that permission no picture can be added to the gallery: allow it in the settings")
    }

    /** Typed, so that it compiles against every version of the platform's own, generic from Android 8 on. */
    private fun view(id: Int): View = findViewById(id)

    private fun text(id: Int) = view(id) as TextView

    private fun button(id: Int, action: () -> Unit) = view(id).setOnClickListener { action() }

    private fun enable(id: Int, enabled: Boolean) {
        view(id).isEnabled = enabled
    }

    /** Show [texts] in a spinner; one that shows them already is left alone: a new adapter would close it. */
    private fun fill(id: Int, texts: List<String>, selected: Int) {
        val spinner = view(id) as Spinner
        if (spinner.tag != texts) {
            spinner.tag = texts
            spinner.adapter = ArrayAdapter(this, android.R.layout.simple_spinner_dropdown_item, texts)
        }
        if (selected >= 0 && spinner.selectedItemPosition != selected) spinner.setSelection(selected)
        spinner.isEnabled = session.progress == null
    }

    private fun onSelect(id: Int, action: (Int) -> Unit) {
        (view(id) as Spinner).onItemSelectedListener = object : AdapterView.OnItemSelectedListener {
            override fun onItemSelected(parent: AdapterView<*>, view: View?, position: Int, row: Long) = action(position)

            override fun onNothingSelected(parent: AdapterView<*>) = Unit
        }
    }
}
