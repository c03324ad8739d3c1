/// What the screens share: the bundles, what is chosen, and the one piece of work that is under way.

import Combine
import ElirApple
import ElirCore
import Foundation
import UIKit

@MainActor
final class AppModel: ObservableObject {
    let engine = Engine()

    @Published private(set) var bundles: [ModelBundle] = []
    /// What is wrong with bundles that cannot be used, a sentence each.
    @Published private(set) var bundleProblems: [String] = []
    @Published private(set) var isReading = false

    @Published var bundleID: String?
    @Published var target: String?
    @Published var precision: String?
    @Published var steps: Int?
    @Published var units = ComputeUnits.all
    @Published var seed: Int64 = 0
    /// Fidelity, and whether colours are kept.
    @Published var wishes = Wishes()
    /// Name of the bundle that restores what is around the faces; nil: that is left as it is.
    @Published var backgroundID: String?

    /// The photograph's file; nil: the bundle's own example.
    @Published private(set) var photo: Data?
    /// What was restored last.
    @Published private(set) var result: RestoredPair?
    /// Both, kept for when the system has ended the app.
    let last = LastWork(
        folder: FileManager.default.urls(for: .applicationSupportDirectory, in: .userDomainMask)[0]
            .appendingPathComponent("last"))
    /// A photograph that came while work was under way, the last one if several: the user opens it, since that ends what is
    /// shown of the work.
    @Published private(set) var waiting: Data?
    /// How many photographs other apps have handed over.
    private var handedOver = 0

    /// Part of the work that is done; nil: nothing is under way.
    @Published private(set) var part: Double?
    /// Until the work is done; nil: that cannot be said yet.
    @Published private(set) var secondsLeft: Double?
    private var timeLeft = TimeLeft()
    /// Why the last work ended early: one sentence.
    @Published var problem: String?
    /// What the last work has left where, if that does not show.
    @Published var notice: String?
    private var work: Task<Void, Never>?
    private var inBackground: BackgroundWork?

    /// Where the app's user puts bundles and job files (Files, Finder, or `devicectl`).
    static let documents = FileManager.default.urls(for: .documentDirectory, in: .userDomainMask)[0]

    var bundle: ModelBundle? { bundles.first { $0.id == bundleID } ?? bundles.first }

    var choices: Choices? { bundle.map { Choices($0, targets: Engine.targets, kind: "ios") } }

    /// Bundles that can restore what is around the faces.
    var backgrounds: [ModelBundle] {
        bundles.filter { $0.task.domain == anyPhoto && advised($0) != nil }
    }

    /// The chosen one of ``backgrounds`` with its advised file.
    var background: (bundle: ModelBundle, choice: Choice)? {
        backgrounds.first { $0.id == backgroundID }.flatMap { bundle in advised(bundle).map { (bundle, $0) } }
    }

    private func advised(_ bundle: ModelBundle) -> Choice? {
        Choices(bundle, targets: Engine.targets, kind: "ios").nearest(target: nil, precision: nil, steps: nil)
    }

    /// The file and steps to use: what was wished for, or the nearest that the bundle has.
    var choice: Choice? { choices?.nearest(target: target, precision: precision, steps: steps) }

    /// Read the bundles that were built in and those in ``documents``; one of the same name there wins.
    func readBundles() async {
        isReading = true
        let builtIn = Bundle.main.resourceURL.map { ModelBundle.folders(in: $0.appendingPathComponent("Bundles")) }
        let added = ModelBundle.folders(in: Self.documents)
        let names = Set(added.map(\.lastPathComponent))
        let folders = added + (builtIn ?? []).filter { !names.contains($0.lastPathComponent) }
        let found = await engine.read(folders)
        (bundles, bundleProblems) = (found.bundles, found.problems)
        isReading = false
    }

    /// Start `body`; its value goes to `then`, its error becomes ``problem``. While something else is under way it is
    /// refused in a sentence.
    ///
    /// - Parameter title: for the system, which lets it go on when the app is left; nil: the work is short.
    func start<Value: Sendable>(
        _ title: String? = nil,
        _ body: @escaping @Sendable (_ report: @escaping Report) async throws -> Value,
        then: @escaping @MainActor (Value) -> Void
    ) {
        guard work == nil else {
            problem = "this was not started, as other work is under way: cancel that, or ask again when it has ended"
            return
        }
        (part, problem, notice) = (0, nil, nil)
        (timeLeft, secondsLeft) = (TimeLeft(), nil)
        UIApplication.shared.isIdleTimerDisabled = true  // the screen stays on
        let inBackground = BackgroundWork(title: title) { [weak self] in self?.cancel() }
        self.inBackground = inBackground
        work = Task {
            var success = false
            do {
                then(
                    try await body { part in
                        Task { @MainActor [weak self] in self?.report(part) }
                    })
                success = true
            } catch is CancellationError {
                // The user, or ``runLow()``, which has said why.
            } catch {
                problem = error.localizedDescription
            }
            (part, secondsLeft, work, self.inBackground) = (nil, nil, nil, nil)
            UIApplication.shared.isIdleTimerDisabled = false
            inBackground.end(success: success)
        }
    }

    private func report(_ part: Double) {
        guard self.part != nil else { return }
        self.part = part
        secondsLeft = timeLeft.report(part, at: ProcessInfo.processInfo.systemUptime)
        inBackground?.report(part)
    }

    /// Open the photograph in the file `data`, or nil: the bundle's example. While work is under way it is ``waiting``.
    func open(_ data: Data?) {
        guard work == nil else {
            waiting = data
            return
        }
        (photo, result, waiting) = (data, nil, nil)
        Task { try? await last.keep(photo: data) }  // without it nothing is there after the app's end
    }

    /// Open the image file at `url`, which another app hands over; of several the last.
    func open(_ url: URL) {
        handedOver += 1
        let (number, waits) = (handedOver, work != nil)
        Task {
            do {
                let data = try await PhotoFile.read(handedOver: url, documents: Self.documents)
                guard number == handedOver else { return }
                // What ended while the file was read is to be seen, too.
                if waits { waiting = data } else { open(data) }
            } catch {
                if number == handedOver { problem = "the photo cannot be read: share it again" }
            }
        }
    }

    func show(_ made: RestoredPair) { result = made }

    /// Show what an earlier process left, unless a photograph was opened since.
    func showLast() async {
        let kept = await last.kept
        guard photo == nil, result == nil, work == nil else { return }
        photo = kept.photo
        result = kept.made.flatMap(RestoredPair.init)
    }

    func cancel() { work?.cancel() }

    /// The system is short of memory: end the work before it ends the app.
    func runLow() {
        if work != nil {
            problem = "the phone is low on memory: close other apps, or choose a smaller picture or an int8 file"
        }
        cancel()
        Task { await engine.release() }
    }

    /// Run the job file `name` of ``documents`` and write `result.json` beside it.
    func runJob(named name: String) {
        let (engine, units, folder) = (engine, units, Self.documents)
        start("Measuring") { report in
            let job = try Job(contentsOf: folder.appendingPathComponent(name))
            try await engine.run(job, units: units, report: report)
                .write(to: folder.appendingPathComponent("result.json"))
        } then: { [weak self] _ in
            self?.notice = "result.json is in the app's folder."
        }
    }
}
