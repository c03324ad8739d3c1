/// How fast, and what each choice of compute units does to it; thermal state and device facts beside it.

import ElirApple
import ElirCore
import Foundation
import SwiftUI

struct BenchmarkScreen: View {
    @ObservedObject var model: AppModel
    @State private var measurements: [Measurement] = []
    @State private var files: [URL] = []
    @State private var thermal = ProcessInfo.processInfo.thermalState

    /// One file on one choice of units.
    private struct Measurement: Identifiable, Sendable {
        let id: Int
        let title: String
        let row: ResultRow
        /// Before and after.
        let thermal: [ProcessInfo.ThermalState]
    }

    private static let timing = TimingProtocol()

    var body: some View {
        NavigationStack {
            Form {
                ChoiceSection(model: model)
                if let bundle = model.bundle, let choice = model.choice {
                    Section {
                        Button("Measure this file") { measure(bundle, choice.artifact, on: [model.units]) }
                        if choice.artifact.target == CoreMLPrograms.target {
                            Button("Measure it on each choice of units") {
                                measure(bundle, choice.artifact, on: ComputeUnits.allCases)
                            }
                        }
                        Button("Run job.json of the app's folder") { model.runJob(named: "job.json") }
                        Text(
                            "\(Self.timing.warmups) warm-ups, \(Self.timing.runs) runs of one tile; median (90th percentile)"
                        )
                        .font(.footnote).foregroundStyle(.secondary)
                    }
                    .disabled(model.part != nil || !bundle.hasGolden)
                }
                WorkSection(model: model)
                ForEach(measurements) { measurement in
                    Section(measurement.title) { rows(measurement) }
                }
                if !files.isEmpty {
                    Section { ShareLink("Share the results as JSON", items: files) }
                }
                device
            }
            .navigationTitle("Benchmark")
            .onReceive(
                NotificationCenter.default.publisher(for: ProcessInfo.thermalStateDidChangeNotification)
            ) { _ in
                Task { @MainActor in thermal = ProcessInfo.processInfo.thermalState }
            }
        }
    }

    @ViewBuilder private func rows(_ measurement: Measurement) -> some View {
        let row = measurement.row
        if let error = row.error { ProblemLabel(text: error) }
        if let timing = row.timing {
            LabeledContent("whole restoration", value: whole(timing))
            ForEach(CoreMLPackages.programs, id: \.self) { program in
                if let latency = timing.programs[program] {
                    LabeledContent(program == .step ? "each step" : program.rawValue, value: text(latency))
                }
            }
            LabeledContent("first restoration", value: "\(timing.first.formatted(digits: 1)) ms")
        }
        if let load = row.loadMs { LabeledContent("loading", value: "\(load.formatted(digits: 1)) ms") }
        if let peak = row.peakBytes { LabeledContent("peak memory of the app", value: "\(peak >> 20) MB") }
        if let image = row.parity?.decibels[.image] {
            LabeledContent(
                "picture against float", value: image == .infinity ? "exact" : "\(image.formatted(digits: 1)) dB")
        }
        LabeledContent("thermal state", value: measurement.thermal.map(\.title).joined(separator: " → "))
    }

    /// The median and how it compares with the first measurement: the effect of the units.
    private func whole(_ timing: Timing) -> String {
        guard measurements.count > 1, let first = measurements[0].row.timing else { return text(timing.total) }
        return "\(text(timing.total)), × \((first.total.median / timing.total.median).formatted(digits: 2))"
    }

    private func text(_ latency: Latency) -> String {
        "\(latency.median.formatted(digits: 1)) ms (\(latency.p90.formatted(digits: 1)))"
    }

    private var device: some View {
        Section("Device") {
            let facts = Device.facts(units: model.units)
            LabeledContent("model", value: facts.name)
            LabeledContent("system", value: facts.system)
            LabeledContent("processor", value: facts.cpu)
            LabeledContent("free memory", value: "\(Device.availableMemory >> 20) MB")
            LabeledContent("thermal state", value: thermal.title)
            LabeledContent(
                "low power mode", value: ProcessInfo.processInfo.isLowPowerModeEnabled ? "on: slower" : "off")
            if facts.emulated { ProblemLabel(text: "A simulator: these times say nothing of a phone.") }
        }
    }

    private func measure(_ bundle: ModelBundle, _ artifact: Artifact, on choices: [ComputeUnits]) {
        let engine = model.engine
        let job = Job(
            bundle: bundle.folder, files: [artifact.path], threads: ProcessInfo.processInfo.activeProcessorCount,
            timing: Self.timing, parity: true)
        (measurements, files) = ([], [])
        model.start("Measuring") { report in
            var found: [Measurement] = []
            var written: [URL] = []
            for (index, units) in choices.enumerated() {
                let before = ProcessInfo.processInfo.thermalState
                let result = try await engine.run(job, units: units) { part in
                    report((Double(index) + part) / Double(choices.count))
                }
                let url = FileManager.default.temporaryDirectory
                    .appendingPathComponent(choices.count == 1 ? "result.json" : "result-\(units).json")
                try result.write(to: url)
                written.append(url)
                let name = "\(targetTitle(artifact.target)) \(artifact.precision)"
                found.append(
                    Measurement(
                        id: index,
                        title: artifact.target == CoreMLPrograms.target ? "\(name), \(units.rawValue)" : name,
                        row: result.rows[0],
                        thermal: [before, ProcessInfo.processInfo.thermalState]))
            }
            return (found, written)
        } then: {
            (measurements, files) = $0
        }
    }
}
