/// The app: three screens over one model.

import ElirCore
import Foundation
import SwiftUI
import UIKit

@main
struct ElirApp: App {
    @StateObject private var model = AppModel()
    @State private var screen = Screen.restore

    private enum Screen { case restore, parity, benchmark }

    var body: some Scene {
        WindowGroup {
            TabView(selection: $screen) {
                RestoreScreen(model: model)
                    .tabItem { Label("Restore", systemImage: "wand.and.stars") }
                    .tag(Screen.restore)
                ParityScreen(model: model)
                    .tabItem { Label("Parity", systemImage: "checkmark.seal") }
                    .tag(Screen.parity)
                BenchmarkScreen(model: model)
                    .tabItem { Label("Benchmark", systemImage: "stopwatch") }
                    .tag(Screen.benchmark)
            }
            .onOpenURL { url in
                screen = .restore
                model.open(url)
            }
            .task {
                await model.showLast()
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
