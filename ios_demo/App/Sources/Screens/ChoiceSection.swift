/// Choosing bundle, file, steps and units: the same section on every screen. And what each screen shows of
/// work under way and of problems.

import ElirApple
import ElirCore
import Foundation
import SwiftUI

struct ChoiceSection: View {
    @ObservedObject var model: AppModel
    /// Whether one file is to be chosen, or all of the bundle are used.
    var choosesFile = true

    var body: some View {
        Section("Model") {
            if model.isReading {
                ProgressView("Verifying the bundles")
            } else if model.bundles.isEmpty && model.bundleProblems.isEmpty {
                Text("No bundle is here: put one into the app's folder in Files, or build it into the app.")
            }
            ForEach(model.bundleProblems, id: \.self) { ProblemLabel(text: $0) }
            if let bundle = model.bundle, let choices = model.choices {
                Picker("Task", selection: Binding(get: { bundle.id }, set: { model.bundleID = $0 })) {
                    ForEach(model.bundles) { Text(title($0)).tag($0.id) }
                }
                if let choice = model.choice {
                    if choosesFile { files(choices, choice) }
                    if choices.targets.contains(CoreMLPrograms.target) { units }
                } else {
                    ProblemLabel(
                        text: "\(bundle.id) has no file that this app can run: export one for Core ML or ExecuTorch")
                }
                if let suited = suited(bundle) { Text(suited).foregroundStyle(.secondary) }
                if choosesFile, let reason = reason(bundle) { Text(reason).font(.footnote).foregroundStyle(.secondary) }
                if !bundle.trained { Text("Random weights: for speed only.").foregroundStyle(.secondary) }
            }
            Button("Look for bundles again") { Task { await model.readBundles() } }
                .disabled(model.part != nil || model.isReading)
        }
    }

    @ViewBuilder private func files(_ choices: Choices, _ choice: Choice) -> some View {
        Picker("Target", selection: Binding(get: { choice.artifact.target }, set: { model.target = $0 })) {
            ForEach(choices.targets, id: \.self) { Text(targetTitle($0)).tag($0) }
        }
        Picker("Precision", selection: Binding(get: { choice.artifact.precision }, set: { model.precision = $0 })) {
            ForEach(choices.precisions(of: choice.artifact.target), id: \.self) { Text($0).tag($0) }
        }
        LabeledContent("File", value: fileFacts(choice.artifact))
    }

    private var units: some View {
        Picker("Core ML runs on", selection: $model.units) {
            ForEach(ComputeUnits.allCases) { Text($0.rawValue).tag($0) }
        }
    }

    private func title(_ bundle: ModelBundle) -> String {
        "\(bundle.task.title) (\(bundle.modelName), \(bundle.size) pixels)"
    }

    /// What photographs the model is for, where the manifest says so.
    private func suited(_ bundle: ModelBundle) -> String? {
        if bundle.findsFaces { return "For the faces in any photo." }
        switch bundle.task.domain {
        case alignedFace: return "For a photo that one upright face fills."
        case anyPhoto: return "For any photo."
        default: return nil
        }
    }

    /// Why the manifest advises the file that is chosen; nil where it advises another.
    private func reason(_ bundle: ModelBundle) -> String? {
        guard let advised = bundle.recommended(for: "ios"), advised.path == model.choice?.artifact.path else {
            return nil
        }
        return bundle.reason(for: "ios")
    }

    private func fileFacts(_ artifact: Artifact) -> String {
        "\(targetTitle(artifact.target)) \(artifact.precision), \((Double(artifact.bytes) / 1e6).formatted(digits: 1)) MB"
    }
}

/// A target's name as people write it.
func targetTitle(_ target: String) -> String {
    switch target {
    case CoreMLPrograms.target: return "Core ML"
    case ExecuTorchPrograms.target: return "ExecuTorch"
    case ExecuTorchPrograms.coreMLTarget: return "ExecuTorch, Core ML"
    default: return target
    }
}

/// One sentence on what is wrong and what to do.
struct ProblemLabel: View {
    let text: String

    var body: some View {
        Label(text, systemImage: "exclamationmark.triangle.fill").foregroundStyle(.red)
    }
}

/// How far the work is, with a way to end it; or how it ended.
struct WorkSection: View {
    @ObservedObject var model: AppModel

    var body: some View {
        if let part = model.part {
            Section {
                ProgressView(value: part)
                    .accessibilityLabel("Progress")
                if let seconds = model.secondsLeft { Text(TimeLeft.text(seconds)).foregroundStyle(.secondary) }
                Button("Cancel", role: .cancel) { model.cancel() }
            }
        }
        if let problem = model.problem {
            Section { ProblemLabel(text: problem) }
        }
        if let notice = model.notice {
            Section { Text(notice) }
        }
    }
}

extension Double {
    /// With so many digits after the point.
    func formatted(digits: Int) -> String { String(format: "%.\(digits)f", self) }
}
