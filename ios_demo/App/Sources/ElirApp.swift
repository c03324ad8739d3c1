/// The app: three screens over one model.

import ElirCore
import Foundation
import SwiftUI
import UIKit

@main
struct ElirApp: App {
    @StateObject private var model = AppModel()

    var body: some Scene {
        WindowGroup {
            TabView {
                RestoreScreen(model: model)
                    .tabItem { Label("Restore", systemImage: "wand.and.stars") }
                ParityScreen(model: model)
                    .tabItem { Label("Parity", systemImage: "checkmark.seal") }
                BenchmarkScreen(model: model)
                    .tabItem { Label("Benchmark", systemImage: "stopwatch") }
            }
            .task {
                await model.readBundles()
                if let name = jobArgument { model.runJob(named: name) }
            }
            .onReceive(
                NotificationCenter.default.publisher(for: UIApplication.didReceiveMemoryWarningNotification)
            ) { _ in model.runLow() }
        }
    }

    /// The name after `--job` on the command line.
    private var jobArgument: String? {
        let arguments = CommandLine.arguments
        guard let at = arguments.firstIndex(of: "--job"), at + 1 < arguments.count else { return nil }
        return arguments[at + 1]
    }
}
