/// Lets work go on when the app is left: with iOS 26 as a task that the system shows and the user can end there; before, for
/// the minutes that the system gives.

import BackgroundTasks
import Foundation
import UIKit

@MainActor
final class BackgroundWork {
    /// `project.yml` permits identifiers that begin so, behind the app's own.
    private static let identifierPart = ".work."
    private static let units: Int64 = 1000

    private var granted: UIBackgroundTaskIdentifier?
    private var identifier: String?
    private var task: RunningTask?
    private var progress: Foundation.Progress?
    private var isOver = false
    private let expire: @MainActor () -> Void

    /// - Parameters:
    ///   - title: for the system to show; nil: the work is short.
    ///   - expire: called where the system, or the user in the system's view, ends the work.
    init(title: String?, expire: @escaping @MainActor () -> Void) {
        self.expire = expire
        granted = UIApplication.shared.beginBackgroundTask(withName: title ?? "work") { [weak self] in
            self?.expire()
            self?.endGranted()  // at once: the work may take long to heed that it is cancelled
        }
        if #available(iOS 26.0, *), let title { ask(title) }
    }

    @available(iOS 26.0, *)
    private func ask(_ title: String) {
        guard let app = Bundle.main.bundleIdentifier else { return }
        let identifier = app + Self.identifierPart + UUID().uuidString
        let registered = BGTaskScheduler.shared.register(forTaskWithIdentifier: identifier, using: .main) {
            [weak self] task in
            MainActor.assumeIsolated { self?.begin(task) ?? task.setTaskCompleted(success: false) }
        }
        guard registered else { return }
        let request = BGContinuedProcessingTaskRequest(
            identifier: identifier, title: title, subtitle: "ELIR is at work on this phone")
        request.strategy = .fail
        // Refused, the work has the minutes that it would have had before iOS 26.
        if (try? BGTaskScheduler.shared.submit(request)) != nil { self.identifier = identifier }
    }

    @available(iOS 26.0, *)
    private func begin(_ task: BGTask) {
        guard !isOver, let continued = task as? BGContinuedProcessingTask else {
            return task.setTaskCompleted(success: false)
        }
        let running = RunningTask(task)
        self.task = running
        progress = continued.progress
        continued.progress.totalUnitCount = Self.units
        task.expirationHandler = { [weak self] in
            Task { @MainActor in self?.expire() }
            running.complete(success: false)  // at once, as above
        }
        endGranted()  // its minutes must not end what the task goes on with
    }

    /// `part` of the work is done; what was told once is not taken back.
    func report(_ part: Double) {
        guard let progress else { return }
        progress.completedUnitCount = max(progress.completedUnitCount, Int64(part * Double(Self.units)))
    }

    func end(success: Bool) {
        isOver = true
        if let task {
            task.complete(success: success)
        } else if let identifier {
            BGTaskScheduler.shared.cancel(taskRequestWithIdentifier: identifier)
        }
        endGranted()
    }

    private func endGranted() {
        if let granted { UIApplication.shared.endBackgroundTask(granted) }
        granted = nil
    }
}

/// A task of the system that is told once, from any thread, that it is over.
private final class RunningTask: @unchecked Sendable {
    private let lock = NSLock()
    private var task: BGTask?

    init(_ task: BGTask) { self.task = task }

    func complete(success: Bool) {
        lock.lock()
        let running = task
        task = nil
        lock.unlock()
        running?.setTaskCompleted(success: success)
    }
}
